"""Trackers follow `metrics.jsonl`, the source of truth: live beside a run, or afterwards for what they missed.

Live they are one process, `python -m rl.observe RUN`, that lets the run go first. Whatever happens to it, the
run goes on, and `python -m rl.sync RUN` adds what is missing.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Protocol, Self

from rl.core.config import TrainConfig
from rl.core.processes import Child
from rl.core.rundir import RunDir, key_of
from rl.observe.console import MetricsTail
from rl.observe.readings import Record

LOOK_S = 0.5
NICENESS = 5
"""A third of a share: where the run wants every core it goes first, and trackers still keep up."""
LAST_WORDS_S = 2.0
"""What the end of a run waits for its tracker."""


class Log(Protocol):
    """One tracker's files."""

    def write(self, number: int, record: Record) -> None:
        """Takes line `number` (from 1) of `metrics.jsonl`."""

    def flush(self) -> None: ...

    def close(self) -> None: ...


def follow(path: Path, logs: Sequence[Log], ended: Event) -> None:
    """Hands every record on, until `ended` says that no more will come.

    A record that another takes the place of, as in the catch-up on a resumed run, is left out.
    """
    tail, seen = MetricsTail(path, start=0), 0
    while True:
        last = ended.is_set()  # before the look, so that the last look sees all
        new = list(enumerate(tail.records(), start=seen + 1))
        seen += len(new)
        newest = {key_of(record): number for number, record in new}
        for log in logs:
            for number, record in new:
                if newest[key_of(record)] == number:
                    log.write(number, record)
            log.flush()
        if last:
            return
        ended.wait(LOOK_S)


def track(run: RunDir, config: TrainConfig, ended: Event, *, live: bool) -> str:
    """Follows a run with the trackers of its configuration; returns what the user should know of it, in one line.

    Args:
        live: upload while the run goes on; else when all is written.
    """
    said, logs = [], list[Log]()
    if config.tensorboard:
        from rl.observe.tensorboard_log import TensorboardLog

        logs.append(TensorboardLog(run))
        said.append(f"TensorBoard files are in {run.tensorboard}")
    with_wandb = config.wandb != "off" and os.environ.get("WANDB_MODE") != "disabled"
    if with_wandb:
        from rl.observe import wandb_log

        why_not = wandb_log.why_not_online(config)
        logs.append(wandb_log.WandbLog(run, config, live=live and not why_not))
    if logs:
        follow(run.metrics_file, logs, ended)
    for log in logs:
        log.close()
    if with_wandb:
        if not (live or why_not):
            wandb_log.upload(run)
        said.append(wandb_log.outcome(run, why_not))
    return "; ".join(said) or "no tracker is on"


def yield_to_others() -> None:
    """Has this process and its children run mostly where the run leaves time."""
    os.nice(NICENESS)
    with suppress(OSError):  # Linux weighs sessions first, where it groups by them, and this process has one of its own
        Path("/proc/self/autogroup").write_text(str(NICENESS))


class Tracker:
    """The tracker's process as its run sees it: never needed, and never waited for beyond `LAST_WORDS_S`.

    Leaving the context ends it.
    """

    def __init__(self, run: RunDir, config: TrainConfig, env: Mapping[str, str]) -> None:
        self._run, self._dead, self._asked = run, False, False
        self._child: Child | None = None
        if config.wandb != "off" or config.tensorboard:
            command = [sys.executable, "-m", "rl.observe", str(run.root)]
            self._child = Child("tracker", command, run.logs / "tracker.log", env)
        self.last_words = ""
        """What the user should know of it in the end; empty where there is no tracker."""

    def __enter__(self) -> Self:
        return self

    def news(self) -> str:
        """That it died, once; else empty."""
        code = self._child.exit_code if self._child else None
        if self._child is None or not code or self._dead:
            return ""
        self._dead = True
        why = self._child.last_words() if code > 0 else signal.Signals(-code).name
        return f"the tracker ended ({why}); the run goes on without it"

    def finish(self) -> None:
        """Asks it to write what is left, and to end: all records are there."""
        if self._child is not None and not self._asked:  # a second signal would kill it while Python shuts down
            self._asked = True
            self._child.terminate()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is None:
            return
        self.finish()
        done = self._child.wait(LAST_WORDS_S) == 0
        self._child.kill()
        missed = f"the trackers miss some of it: python -m rl.sync {self._run.root}"
        self.last_words = self._child.last_words() if done else missed
