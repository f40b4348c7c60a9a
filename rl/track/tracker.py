"""Trackers follow `metrics.jsonl`, the source of truth: live beside a run, or afterwards for what they missed.

Live they are one process, `python -m rl.track RUN`, that lets the run go first. Whatever happens to it, the
run goes on, and `python -m rl.sync RUN` adds what is missing.
"""

import os
import signal
import sys
import time
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
LAST_WORDS_S, LAST_WORDS_SHARE = 2.0, 0.01
"""What the end of a run waits for its tracker: seconds, or a share of the run's time where that is more."""


class Log(Protocol):
    """One tracker's files."""

    def write(self, number: int, record: Record) -> None:
        """Takes line `number` (from 1) of `metrics.jsonl`."""

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
        if last:
            return
        ended.wait(LOOK_S)


def track(run: RunDir, config: TrainConfig, ended: Event, *, live: bool) -> str:
    """Follows a run with the trackers of its configuration; returns what the user should know of it, in one line.

    Args:
        live: upload while the run goes on; else when all is written.

    Raises:
        TallyError: something is not uploaded, though it could be.
    """
    said, logs = [], list[Log]()
    if config.tensorboard:
        from rl.track.tensorboard_log import TensorboardLog

        logs.append(TensorboardLog(run))
        said.append(f"TensorBoard files are in {run.tensorboard}")
    if _with_wandb(config):
        from rl.track import wandb_log

        why_not = wandb_log.why_not_online(config)
        logs.append(wandb_log.WandbLog(run, config, live=live and not why_not))
    if logs:
        follow(run.metrics_file, logs, ended)
    for log in logs:
        log.close()
    if _with_wandb(config):
        if not (live or why_not):
            wandb_log.upload(run)
        said.append(wandb_log.outcome(run, why_not))
    return "; ".join(said) or "no tracker is on"


def _with_wandb(config: TrainConfig) -> bool:
    return config.wandb != "off" and os.environ.get("WANDB_MODE") != "disabled"


def yield_to_others() -> None:
    """Has this process run mostly where the run leaves time."""
    os.nice(NICENESS)
    if os.getsid(0) == os.getpid():  # else the session is a shell's, and everything else in it would wait too
        with suppress(OSError):  # Linux weighs sessions before processes, where it groups by them
            Path("/proc/self/autogroup").write_text(str(NICENESS))


class Tracker:
    """The tracker's process as its run sees it: not needed, and not waited for beyond a share of the run's time."""

    def __init__(self, run: RunDir, config: TrainConfig, env: Mapping[str, str]) -> None:
        self._run, self._config, self._env = run, config, env
        self._child: Child | None = None
        self._dead = self._asked = False
        self.last_words = ""
        """What the user should know of it in the end; empty where there is no tracker."""

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        if _with_wandb(self._config) or self._config.tensorboard:
            command = [sys.executable, "-m", "rl.track", str(self._run.root)]
            self._child = Child("tracker", command, self._run.logs / "tracker.log", self._env)
        return self

    def news(self) -> str:
        """That it died, once; else empty."""
        code = self._child.exit_code if self._child else None
        if self._child is None or not code or self._dead:
            return ""
        self._dead = True
        why = self._child.last_words().partition("\n")[0] if code > 0 else signal.Signals(-code).name
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
        share = LAST_WORDS_SHARE * (time.monotonic() - self._began)
        done = self._child.wait(max(LAST_WORDS_S, share)) == 0
        self._child.kill()
        missed = f"the trackers miss some of it: python -m rl.sync {self._run.root}"
        self.last_words = self._child.last_words() if done else missed
