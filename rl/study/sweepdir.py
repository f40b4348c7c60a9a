"""The directory of a sweep: `sweeps/<name>/`.

plan.toml    the plan, as it was when the sweep was last started
sweep.json   its runs: what each is to be, how it stands, and why; replaced as a whole, never written in place
runs/        one run directory each, as `rl.train` makes them
logs/        what `rl.train` and the shared servers printed
report/      of all runs
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rl.core.errors import UsageError
from rl.study.plan import Plan, configured, plan_text, read_plan
from rl.study.runs import SEED, Status, StudyRun, read_run

OVER = frozenset({Status.DONE, Status.BEATEN, Status.DIVERGED})
"""What is not run again; a run that failed goes on when the sweep is started again."""


class Entry(BaseModel):
    """One run of a sweep: an arm with a seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Of its directory under `runs/`: `<arm>-seed<n>`."""
    arm: str
    seed: int
    path: Path = Field(exclude=True)
    phase: str = ""
    """Of the plan, where it has phases."""
    priority: int = 1
    reason: str = ""
    criteria: list[str] = Field(default_factory=list)
    settings: dict[str, Any]
    """What the plan changes against the defaults, by the names of `TrainConfig`; the seed is apart."""
    status: Status = Status.PLANNED
    why: str = ""

    @property
    def over(self) -> bool:
        """Whether the sweep has nothing left to do for it."""
        return self.status in OVER


@dataclass(frozen=True)
class SweepDir:
    root: Path

    @staticmethod
    def is_sweep(path: Path) -> bool:
        return (path / "sweep.json").is_file()

    @property
    def is_new(self) -> bool:
        """Whether nothing is there but what a sweep leaves that was killed before its first run: its lock, and more."""
        if not self.root.exists() or not any(self.root.iterdir()):
            return True
        return (self.root / "sweep.lock").exists() and not any(self.root.glob("runs/*"))

    @property
    def plan_file(self) -> Path:
        return self.root / "plan.toml"

    @property
    def file(self) -> Path:
        return self.root / "sweep.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def scratch(self) -> Path:
        """For the servers' signs of life."""
        return self.root / "tmp"

    @property
    def report(self) -> Path:
        return self.root / "report"

    def run_path(self, name: str) -> Path:
        return self.root / "runs" / name

    def plan(self) -> Plan:
        """Raises:
        UsageError: it cannot be read.
        """
        return read_plan(self.plan_file)

    def entries(self) -> list[Entry]:
        """In the order of the plan, phase by phase.

        Raises:
            UsageError: this is no sweep, or its `sweep.json` cannot be read.
        """
        try:
            recorded = json.loads(self.file.read_text())["runs"]
            return [Entry(path=self.run_path(run["name"]), **run) for run in recorded]
        except OSError:
            fix = "name a directory that `python -m rl.sweep` made"
            raise UsageError(f"{self.root} is not a sweep: it has no sweep.json", fix=fix) from None
        except (ValidationError, ValueError, KeyError, TypeError) as error:
            fix = "restore it from a copy; the runs under runs/ are whole without it"
            raise UsageError(f"{self.file} cannot be read: {_first_line(error)}", fix=fix) from None

    def write(self, plan: Plan, entries: Sequence[Entry]) -> None:
        """Raises:
        UsageError: the directory cannot be written to.
        """
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            (self.root / "runs").mkdir(exist_ok=True)
            _replace(self.plan_file, plan_text(plan))
        except OSError as error:
            fix = "take an --out that you may write to"
            raise UsageError(f"cannot write the sweep {self.root}: {error.strerror}", fix=fix) from None
        self.write_entries(entries)

    def write_entries(self, entries: Sequence[Entry]) -> None:
        recorded = {"runs": [entry.model_dump(mode="json") for entry in entries]}
        _replace(self.file, json.dumps(recorded, indent=2) + "\n")

    def runs(self) -> list[StudyRun]:
        """All runs of the sweep, those that were not started included; of one that cannot be read, why."""
        entries = self.entries()
        if not self._in_progress():
            broken_off = {"status": Status.STOPPED, "why": "the sweep was killed: its command goes on with it"}
            running = Status.RUNNING
            entries = [e.model_copy(update=broken_off) if e.status is running else e for e in entries]
        return [_study_run(entry) for entry in entries]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the sweep: two at a time would start each run twice.

        Raises:
            UsageError: another process holds it, or the directory cannot be written to.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            file = (self.root / "sweep.lock").open("w")
        except OSError as error:
            fix = "take an --out that you may write to"
            raise UsageError(f"cannot make the directory {self.root}: {error.strerror}", fix=fix) from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                fix = "wait for it, or stop it with Ctrl-C where it was started"
                raise UsageError(f"the sweep {self.root} is in progress", fix=fix) from None
            yield

    def _in_progress(self) -> bool:
        """Whether a process, this one included, holds the sweep."""
        try:
            with (self.root / "sweep.lock").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # held; or there is none, and nobody could have
            return (self.root / "sweep.lock").exists()
        return False


def _study_run(entry: Entry) -> StudyRun:
    if not (entry.path / "config.json").exists():
        return _unread(entry, entry.why)
    try:
        return replace(read_run(entry.path, entry.name), status=entry.status, why=entry.why)
    except UsageError as error:
        return _unread(entry, str(error))


def _unread(entry: Entry, why: str) -> StudyRun:
    settings = configured(entry.settings).model_dump(mode="json") | {SEED: entry.seed}
    return StudyRun(name=entry.name, path=entry.path, settings=settings, status=entry.status, why=why)


def _replace(path: Path, text: str) -> None:
    """Whoever reads the file finds the old one or the new one, and a crash of the machine leaves one of them."""
    draft = path.with_name(f".{path.name}.part")
    with draft.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
