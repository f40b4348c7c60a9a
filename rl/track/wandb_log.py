"""The run in W&B's own files, under `wandb/` of the run directory, and their upload.

A record of `metrics.jsonl` is one row of W&B's history, and the number of its line is W&B's `_step`: what the files
lack is known by reading them back, whatever ended their writer. They are written offline, so that no network can hold
them up; the upload is a process of W&B's own that follows them.
"""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import wandb
from pydantic import ValidationError
from wandb.errors import AuthenticationError
from wandb.sdk.lib import wbauth

from rl.buffer.history import History
from rl.buffer.tables import State
from rl.core.config import TrainConfig
from rl.core.errors import TallyError, UsageError
from rl.core.processes import Child
from rl.core.rundir import RunDir, name_of
from rl.evaluate.result import EvalResult
from rl.learner.checkpoint import ADAPTER, ADAPTER_CONFIG
from rl.observe.readings import Record
from rl.track.content import AXIS, Table, completions, glossary, questions, scalars

FLUSH_S = 1.0
"""What a killed writer may leave unwritten, and a sync then adds."""
REACH_S, UPLOAD_S = 3.0, 600.0
"""Seconds to find the server, and to send it what there is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What the files of a run hold."""

    numbers: set[int]
    """Lines of `metrics.jsonl`; 0 is the glossary."""
    adapters: set[str]
    """Checkpoints whose adapter is stored, like ``step-000200``."""


class WandbLog:
    """Adds to the run's W&B files what they lack. A file is begun by the first record that is missing.

    Args:
        live: upload the file while it is written.

    Raises:
        OSError: the run's directory cannot be written, or W&B's service has gone.
    """

    def __init__(self, run: RunDir, config: TrainConfig, *, live: bool = False) -> None:
        self._run, self._config, self._live = run, config, live
        self._written = read_back(segments(run))
        self._log: wandb.Run | None = None
        self._upload: Child | None = None

    def write(self, number: int, record: Record) -> None:
        """Writes line `number` (from 1) of `metrics.jsonl`, unless it is there."""
        if number in self._written.numbers:
            return
        row = {AXIS: record[AXIS], "_timestamp": datetime.fromisoformat(record["time"]).timestamp()}
        tables = {name: _wandb_table(table) for name, table in self._tables(record)}
        self._begun().log(row | scalars(record) | tables, step=number, commit=True)

    def close(self) -> None:
        """Stores the adapter where that was asked for, ends the file, and waits for its upload."""
        steps = self._run.checkpoint_steps()
        if self._config.wandb_adapter and steps and name_of(steps[-1]) not in self._written.adapters:
            folder = self._run.checkpoints / name_of(steps[-1])
            log = self._begun()
            artifact = wandb.Artifact(f"adapter-{log.id}", type="model", metadata={AXIS: steps[-1]})
            for name in (ADAPTER, ADAPTER_CONFIG):
                artifact.add_file(str(folder / name))
            log.log_artifact(artifact, aliases=["latest", name_of(steps[-1])])
        if self._log is not None:
            self._log.finish()
        if self._log is not None and self._upload is not None:
            _end_upload(self._upload, [_file_of(self._log)])

    def _tables(self, record: Record) -> Iterator[tuple[str, Table]]:
        """An evaluation's questions; completions of the first step and of those that are evaluated."""
        step, kind = record[AXIS], record["kind"]
        if kind == "eval":
            with suppress(UsageError):  # without its file there are still its estimates
                yield (
                    f"eval/{record['set']}/questions",
                    questions(EvalResult.load(self._run.eval_file(record["set"], step))),
                )
        elif kind == "step" and (step == 1 or step % self._config.eval_every == 0):
            with suppress(UsageError), closing(History(self._run.buffer_url)) as history:
                yield "completions", completions(step, history.entries(step=step, states=(State.TRAINED,)))

    def _begun(self) -> wandb.Run:
        if self._log is None:
            if self._live:
                upload(self._run)  # W&B takes the files of a run in their order
            with _settings_checked():
                self._log = _begin(self._run, self._config, segments(self._run))
            if self._live:
                self._upload = _start_upload(self._run, [_file_of(self._log)], "--live")
            if 0 not in self._written.numbers:
                self._log.log({"metrics": _wandb_table(glossary())}, step=0, commit=True)
        return self._log


@contextmanager
def _settings_checked() -> Iterator[None]:
    """Raises:
    UsageError: W&B does not take its settings.
    """
    try:
        yield
    except (wandb.errors.UsageError, ValidationError) as error:
        fix = "see --wandb-project, --wandb-group, --wandb-tags, and W&B's own settings"
        raise UsageError(f"W&B: {' '.join(str(error).split())}", fix=fix) from None


def _begin(run: RunDir, config: TrainConfig, before: Sequence[Path]) -> wandb.Run:
    """The next file of a run, which is the same run at W&B for all its files."""
    folder = run.wandb.absolute()
    os.environ |= {"WANDB_DATA_DIR": str(folder / "data"), "WANDB_CACHE_DIR": str(folder / "cache")}
    launch: dict[str, Any] = json.loads(run.provenance_file.read_text())[-1]
    code = launch.pop("git_diff")
    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,  # provenance.json has what the launch found; the work tree may have changed since
        git_commit=launch["git_commit"] or None,
        x_disable_stats=True,
        x_save_requirements=False,
        x_transaction_log_flush_interval=FLUSH_S,
    )
    log = wandb.init(
        mode="offline",
        dir=run.root,
        project=config.wandb_project,
        id=before[0].stem.removeprefix("run-") if before else uuid.uuid4().hex[:12],
        name=run.root.absolute().name,
        group=config.wandb_group,
        tags=[tag.strip() for tag in (config.wandb_tags or "").split(",") if tag.strip()],
        config=config.model_dump(mode="json") | {"sources": run.sources(), "provenance": launch},
        resume="allow" if before else None,
        settings=settings,
    )
    files = {path.name: path.read_text() for path in (run.config_file, run.provenance_file)} | {"code.diff": code}
    for name, text in files.items():
        path = Path(log.dir) / name
        path.write_text(text)
        log.save(path, base_path=path.parent, policy="now")
    log.define_metric(AXIS, hidden=True)
    for section in ("progress", "train", "sampler", "age", "time", "publish", "eval"):
        log.define_metric(f"{section}/*", step_metric=AXIS)
    return log


def _file_of(log: wandb.Run) -> Path:
    return Path(log.settings.sync_file)


def _wandb_table(table: Table) -> wandb.Table:
    return wandb.Table(columns=[*table.columns], data=table.rows, allow_mixed_types=True)


# ---- the files


def segments(run: RunDir) -> list[Path]:
    """The run's `.wandb` files, one for each time that something was added, oldest first; named by the run's id."""
    return sorted(run.wandb.glob("offline-run-*/run-*.wandb"))


def unsent(run: RunDir) -> list[Path]:
    """The files that are not uploaded, oldest first."""
    return [path for path in segments(run) if not _mark_of(path).exists()]


def _mark_of(path: Path) -> Path:
    """What W&B leaves beside a file that it has uploaded, and will not upload again."""
    return path.with_name(f"{path.name}.synced")


def read_back(files: Iterable[Path]) -> Written:
    """What W&B's own reader finds; the unfinished end of a file is left out.

    Raises:
        TallyError: it does not read them, so that nobody knows what they hold.
    """
    numbers, adapters = set(), set()
    for path in files:
        for record in _records(path):
            if record["type"] == "history":
                numbers.add(record["history"].get("step", {}).get("num", 0))
            elif record["type"] == "artifact" and record["artifact"]["type"] == "model":
                adapters |= {alias for alias in record["artifact"]["aliases"] if alias != "latest"}
    return Written(numbers=numbers, adapters=adapters)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as reader:
        yield from map(json.loads, reader.stdout or ())
    if reader.returncode:
        raise TallyError(f"W&B cannot read its own file {path}", fix=f"see what `{' '.join(command[1:])}` says")


# ---- the upload


def why_not_online(config: TrainConfig) -> str:
    """Why nothing can be uploaded now; empty where it can."""
    if config.wandb == "offline" or os.environ.get("WANDB_MODE") == "offline":
        return "offline, as asked for"
    with _settings_checked():
        host = wandb.setup().settings.base_url
    try:
        if wbauth.authenticate_session(host=host, source="tally", prompt=False, update_session=False) is None:
            return "offline, as there is no API key"
    except AuthenticationError as error:
        return f"offline: {error}"
    try:
        httpx.head(host, timeout=REACH_S)
    except httpx.HTTPError as error:
        return f"offline: {host} cannot be reached ({error})"
    return ""


def upload(run: RunDir) -> None:
    """Uploads what is not uploaded, as it lies. What comes of it is seen by `unsent`."""
    if files := unsent(run):
        _end_upload(_start_upload(run, files), files)


def _start_upload(run: RunDir, files: Iterable[Path], *flags: str) -> Child:
    command = [sys.executable, "-m", "wandb", "beta", "sync", *flags, *map(str, files)]
    here = {"WANDB_DIR": str(run.root.absolute())}  # it keeps a log of its own
    return Child("W&B upload", command, _upload_log(run), env=here)


def _end_upload(upload: Child, files: Iterable[Path]) -> None:
    upload.wait(UPLOAD_S)
    upload.kill()
    if "wandb: ERROR" in upload.said():  # W&B marks a file even where the server refused what is in it
        for path in files:
            _mark_of(path).unlink(missing_ok=True)


def _upload_log(run: RunDir) -> Path:
    return run.logs / "wandb.log"


def outcome(run: RunDir, why_not: str) -> str:
    """What the user should know, and what to type where nothing could be uploaded.

    Raises:
        TallyError: something is not uploaded, though it could be.
    """
    if not unsent(run):
        return " ".join(["W&B: everything is uploaded", *_addresses(run)[-1:]])
    if why_not:
        return f"W&B: {why_not}; wandb sync {run.wandb}"
    fix = f"see {_upload_log(run)}; then: python -m rl.sync {run.root}"
    raise TallyError("W&B did not take everything", fix=fix)


def _addresses(run: RunDir) -> list[str]:
    """Where the run is shown, as W&B said at each upload."""
    log = _upload_log(run)
    return re.findall(r"View run .* at (\S+)", log.read_text()) if log.exists() else []
