"""The run in W&B's own files, under `wandb/` of the run directory, and their upload.

A record of `metrics.jsonl` is one row of W&B's history, and the number of its line is W&B's `_step`: what the files
lack is known by reading them back, whatever ended their writer. They are written offline, so that no network can hold
them up; the upload is a process of W&B's own that follows them.
"""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import wandb
from wandb.errors import AuthenticationError
from wandb.sdk.lib import wbauth

from rl.buffer.history import History
from rl.buffer.ledger import State
from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.core.processes import Child
from rl.core.rundir import RunDir, name_of
from rl.evaluate.result import EvalResult
from rl.learner.checkpoint import ADAPTER, ADAPTER_CONFIG
from rl.observe.readings import Record
from rl.observe.tracked import AXIS, Table, completions, glossary, questions, scalars

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

    def flush(self) -> None:
        """W&B's service does so by itself, every `FLUSH_S`."""

    def close(self) -> None:
        """Stores the adapter where that was asked for, ends the file, and waits for its upload."""
        steps = self._run.checkpoint_steps()
        if self._config.wandb_adapter and steps and name_of(steps[-1]) not in self._written.adapters:
            folder = self._run.checkpoints / name_of(steps[-1])
            artifact = wandb.Artifact(f"adapter-{run_id(self._run)}", type="model", metadata={AXIS: steps[-1]})
            for name in (ADAPTER, ADAPTER_CONFIG):
                artifact.add_file(str(folder / name))
            self._begun().log_artifact(artifact, aliases=["latest", name_of(steps[-1])])
        if self._log is not None:
            self._log.finish()
        if self._upload is not None:
            self._upload.wait(UPLOAD_S)

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
            self._log = _begin(self._run, self._config, resumes=bool(segments(self._run)))
            if self._live:
                self._upload = _start_upload(self._run, [Path(self._log.dir).parent], "--live")
            if 0 not in self._written.numbers:
                self._log.log({"metrics": _wandb_table(glossary())}, step=0, commit=True)
        return self._log


def _begin(run: RunDir, config: TrainConfig, *, resumes: bool) -> wandb.Run:
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
        id=run_id(run),
        name=run.root.absolute().name,
        group=config.wandb_group,
        tags=[tag.strip() for tag in (config.wandb_tags or "").split(",") if tag.strip()],
        config=config.model_dump(mode="json") | {"sources": run.sources(), "provenance": launch},
        resume="allow" if resumes else None,
        settings=settings,
    )
    files = {path.name: path.read_text() for path in (run.config_file, run.provenance_file)} | {"code.diff": code}
    for name, text in files.items():
        path = Path(log.dir) / name
        path.write_text(text)
        log.save(path, base_path=path.parent, policy="now")
    log.define_metric(AXIS, hidden=True)
    for section in ("progress", "train", "sampler", "time", "publish", "eval"):
        log.define_metric(f"{section}/*", step_metric=AXIS)
    return log


def _wandb_table(table: Table) -> wandb.Table:
    return wandb.Table(columns=[*table.columns], data=table.rows, allow_mixed_types=True)


# ---- the files


def run_id(run: RunDir) -> str:
    """The run's id at W&B, the same for every launch of it."""
    path = run.wandb / "run-id"
    if not path.exists():
        run.wandb.mkdir(exist_ok=True)
        path.write_text(uuid.uuid4().hex[:12])
    return path.read_text()


def segments(run: RunDir) -> list[Path]:
    """The run's `.wandb` files, one for each time that something was added, oldest first."""
    return sorted(run.wandb.glob("offline-run-*/run-*.wandb"))


def unsent(run: RunDir) -> list[Path]:
    """The folders of the files that W&B has not confirmed, oldest first; W&B marks the others by a file of its own."""
    return [path.parent for path in segments(run) if not path.with_name(f"{path.name}.synced").exists()]


def read_back(files: Iterable[Path]) -> Written:
    """What W&B's own reader finds; the unfinished end of a file is left out."""
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


# ---- the upload


def why_not_online(config: TrainConfig) -> str:
    """Why nothing can be uploaded now; empty where it can."""
    if config.wandb == "offline" or os.environ.get("WANDB_MODE") == "offline":
        return "offline, as asked for"
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
    """Uploads what W&B has not confirmed, as it lies. What comes of it is seen by `unsent`."""
    if folders := unsent(run):
        child = _start_upload(run, folders)
        child.wait(UPLOAD_S)
        child.kill()


def _start_upload(run: RunDir, folders: Iterable[Path], *flags: str) -> Child:
    command = [sys.executable, "-m", "wandb", "beta", "sync", *flags, *map(str, folders)]
    return Child("W&B upload", command, run.logs / "wandb.log", env={})


def outcome(run: RunDir, why_not: str) -> str:
    """What the user should know, and what to type where something is not uploaded."""
    if not (folders := unsent(run)):
        return "W&B: everything is uploaded"
    if why_not:
        return f"W&B: {why_not}; wandb sync {' '.join(map(str, folders))}"
    return f"W&B: not everything is uploaded (see {run.logs / 'wandb.log'}); python -m rl.sync {run.root}"
