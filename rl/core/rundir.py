"""The run directory: `runs/<name>/`, the one place where a run leaves its facts.

    config.json      resolved configuration, with the source of each value
    provenance.json  a list of launches: command, git commit and diff, versions, hardware
    problems.sha256  of what is trained on and held out
    metrics.jsonl    one record a step; the last record of a step counts (a resumed run may repeat some)
    buffer.db        the ledger of groups, unless config.json names another database
    checkpoints/     step-000050/ in peft's format, with what a resume needs
    evals/           step-000050.json of the held-out problems, gsm8k@test/step-000050.json of a further set
    logs/            what the processes printed
    wandb/           W&B's own files; tensorboard/ where it was asked for

A run never writes into another run's directory and never deletes one.
"""

import fcntl
import json
import os
import shutil
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from rl.core.cli import Resolved, validated
from rl.core.config import HELDOUT, TrainConfig
from rl.core.errors import UsageError
from rl.core.machine import provenance

OTHER_VERSION = "read the run with the version of Tally that made it: its provenance.json names the commit"
LOCK_LIMIT_S = 2.0
DRAFT = ".part"
SCRATCH = "TALLY_SCRATCH"
"""The environment's name for a scratch folder outside the run directory."""


@dataclass(frozen=True)
class RunDir:
    root: Path

    @property
    def config_file(self) -> Path:
        return self.root / "config.json"

    @property
    def provenance_file(self) -> Path:
        return self.root / "provenance.json"

    @property
    def problems_file(self) -> Path:
        return self.root / "problems.sha256"

    @property
    def metrics_file(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def buffer_url(self) -> str:
        """Of the ledger: in the database that the configuration names, else in this directory."""
        return self.config().buffer_url or f"sqlite:///{quote(str(self.root / 'buffer.db'))}"

    @property
    def spans_machines(self) -> bool:
        """Whether the ledger is in a database server, for processes that share no directory."""
        return not self.buffer_url.startswith("sqlite:")

    @property
    def copy_mark(self) -> Path:
        """A file that is there where this directory is not the run's own, but what a machine has of it that joined."""
        return self.root / "joined"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def evals(self) -> Path:
        return self.root / "evals"

    def eval_file(self, set: str, step: int) -> Path:
        """Where the evaluation of a problem set goes; a set's name may be a path."""
        folder = self.evals if set == HELDOUT else self.evals / quote(set, safe="@")
        return folder / f"{name_of(step)}.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def wandb(self) -> Path:
        return self.root / "wandb"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    @property
    def exists(self) -> bool:
        """Whether something is there, even if it is no run; a draft of its first file is nothing."""
        return self.root.exists() and (not self.root.is_dir() or any(f.suffix != DRAFT for f in self.root.iterdir()))

    def create(self, resolved: Resolved) -> None:
        """Makes the directory, with its configuration and where it comes from. The configuration is first: by that it
        is known as a run's, though who makes it be killed.

        Raises:
            UsageError: it cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.write_config(resolved)
            for folder in (self.checkpoints, self.evals, self.logs):
                folder.mkdir()
        except OSError as error:
            fix = "take a --run-dir that you may write to"
            raise UsageError(f"cannot make the run directory {self.root}: {error.strerror}", fix=fix) from None
        self.add_provenance()

    def add_provenance(self) -> None:
        """Appends where this launch comes from."""
        path = self.provenance_file
        launches = json.loads(path.read_text()) if path.exists() else []
        _write(path, json.dumps([*launches, provenance()], indent=2) + "\n")

    def begins(self, problems_sha256: str) -> None:
        """It is whole: from now on who is killed goes on with it, and others take part."""
        _write(self.problems_file, f"{problems_sha256}\n")

    def move_aside(self) -> "RunDir":
        """Renames the directory, so that another run may have its name; returns where it is now.

        Raises:
            UsageError: it is no run, or the run is in progress.
        """
        self.config()
        with self.locked():
            return RunDir(self.root.rename(self.root.with_name(f"{self.root.name}.{datetime.now():%Y%m%d-%H%M%S}.old")))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run: two supervisors in one directory would train each group twice.

        Raises:
            UsageError: another process holds it.
        """
        with self._lock_file.open("w") as file:
            try:
                fcntl.fcntl(file, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
            except OSError:
                fix = "wait for it, or stop it with Ctrl-C where it was started"
                raise UsageError(f"the run {self.root} is in progress", fix=fix) from None
            yield

    @property
    def in_progress(self) -> bool:
        """Whether a process of this machine holds the run, be it in another container."""
        try:
            if not self._lock_file.is_file():  # to open a pipe would wait for who writes into it
                return False
            with self._lock_file.open() as file:
                held = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_RDLCK))
        except OSError:
            return False
        return held != _whole_file(fcntl.F_UNLCK)

    @property
    def _lock_file(self) -> Path:
        return self.root / "run.lock"

    @property
    def scratch(self) -> Path:
        """For temporary files of the run's processes, which may be killed before they remove them: in the run
        directory, or where it says that has several machines share that (`rl.join`)."""
        return Path(os.environ.get(SCRATCH) or self.root / "tmp")

    def clear_scratch(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()

    def config(self) -> TrainConfig:
        """Raises:
        UsageError: this is no run directory, or its configuration cannot be read.
        """
        try:
            recorded = json.loads(self.config_file.read_text())
            if unknown := recorded["config"].keys() - TrainConfig.model_fields.keys():
                strange = ", ".join(sorted(unknown))
                raise UsageError(f"{self.config_file} has settings not known here: {strange}", fix=OTHER_VERSION)
            return validated(recorded["config"], recorded["sources"])
        except OSError:
            fix = "name a directory that `python -m rl.train` made"
            raise UsageError(f"{self.root} is not a run: it has no config.json", fix=fix) from None
        except ValueError as error:
            fix = "restore the file, or start a new run"
            raise UsageError(f"{self.config_file} cannot be read: {error}", fix=fix) from None
        except (KeyError, TypeError, AttributeError):
            fix = "name a directory that `python -m rl.train` made"
            raise UsageError(f"{self.root} is not a run: its config.json is that of something else", fix=fix) from None

    def sources(self) -> dict[str, str]:
        """Where each value of the configuration came from."""
        return dict(json.loads(self.config_file.read_text())["sources"])

    def checkpoint_steps(self) -> list[int]:
        """The steps that have a checkpoint, oldest first."""
        return sorted(step_of(path) for path in self.checkpoints.glob("step-*"))

    def write_config(self, resolved: Resolved) -> None:
        recorded = {"config": resolved.config.model_dump(mode="json"), "sources": resolved.sources}
        _write(self.config_file, json.dumps(recorded, indent=2) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """What was logged; of the records of one kind, step and set only the last, as a resumed run repeats some.
        A line without an end is left out: it is still being written.

        Raises:
            UsageError: it cannot be read.
        """
        if not self.metrics_file.exists():
            return []
        content = self.metrics_file.read_bytes()
        lines = content[: _end_of_lines(content)].splitlines()
        try:
            return list({key_of(record): record for record in map(json.loads, lines)}.values())
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{self.metrics_file} cannot be read: {error!r}", fix=OTHER_VERSION) from None

    def cut_unfinished_record(self) -> None:
        """Takes away a last line without an end, as a full disk or a kill leaves it: the next record would be appended
        to it."""
        if self.metrics_file.exists():
            os.truncate(self.metrics_file, _end_of_lines(self.metrics_file.read_bytes()))

    def log(self, **record: Any) -> None:
        """Adds a record to `metrics.jsonl`."""
        self.append(record_line(**record))

    def append(self, line: str) -> None:
        """Appends one line to `metrics.jsonl`; several processes may do so, and each may have died at it."""
        with self.metrics_file.open("ab+") as file:
            _lock(file)
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            if file.read() not in (b"", b"\n"):
                self.cut_unfinished_record()
            file.write(f"{line}\n".encode())


def _whole_file(lock: int) -> bytes:
    """A lock of this kind on all of a file, as fcntl takes it (`struct flock`).

    Like flock's it is the open file's. Unlike flock's it can be asked about without taking it, which could turn a
    resume away, and from any container of the machine: /proc/locks hides those of the others.
    """
    return struct.pack("hhqqi4x", lock, os.SEEK_SET, 0, 0, 0)


def _write(path: Path, text: str) -> None:
    """Whoever reads it finds the old one or the new one, also after a kill."""
    draft = path.with_suffix(DRAFT)
    draft.write_text(text)
    draft.replace(path)


def _lock(file: BinaryIO) -> None:
    """Takes the file's lock, which others hold for microseconds; whoever holds it for long was stopped meanwhile."""
    end = time.monotonic() + LOCK_LIMIT_S
    while time.monotonic() < end:
        with suppress(BlockingIOError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.001)


def record_line(**record: Any) -> str:
    """A record as `metrics.jsonl` has it, made now."""
    return json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **record})


def key_of(record: dict[str, Any]) -> tuple[str, int, str | None]:
    """What a later record takes the place of: the record of the same kind, step and set; of restarts, each stays."""
    within = {"eval": "set", "restart": "time"}.get(record["kind"])
    return record["kind"], record["step"], record[within] if within else None


def _end_of_lines(content: bytes) -> int:
    return content.rfind(b"\n") + 1


def best_evaluation(records: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The record of the evaluation with the best held-out pass@1, of equals the earliest; None before the first.

    The best of several is an optimistic figure of its checkpoint: the problems that chose it are not fresh any more.
    """
    measured = heldout_evaluations(records)
    return max(measured, key=lambda record: (record["summary"]["pass@1"]["value"], -record["step"]), default=None)


def heldout_evaluations(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of the evaluations on held-out problems that have a pass@1."""
    evals = [record for record in records if record["kind"] == "eval"]
    return [record for record in evals if record["set"] == HELDOUT and record["summary"]["pass@1"]]


def name_of(step: int) -> str:
    """Of what belongs to a step: `step-000050`."""
    return f"step-{step:06d}"


def step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def new_name(config: TrainConfig) -> str:
    """A name that says when and what: `1121-041200-starter-lr0.0005-buffer256`, with `-replay` where it is one."""
    model, replay = Path(config.model).name, "-replay" if config.replay else ""
    return f"{datetime.now():%m%d-%H%M%S}-{model}-lr{config.lr:g}-buffer{config.buffer}{replay}"
