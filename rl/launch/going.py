"""One run of a sweep while it goes on: a `rl.train` of its own on a shared server."""

import sys
import time
from collections.abc import Iterator
from datetime import datetime

from rl.core import cli
from rl.core.config import TrainConfig
from rl.core.errors import DivergedError
from rl.core.nursery import Nursery
from rl.core.processes import REASONS, Child, Children
from rl.core.rundir import RunDir
from rl.core.stopping import ending
from rl.launch.shared import SharedServer, learner_devices
from rl.observe.console import MetricsTail
from rl.observe.readings import Record
from rl.study.runs import SEED, Status
from rl.study.sweepdir import Entry, SweepDir

TRAIN = (sys.executable, "-m", "rl.train")
STARTS = 3
"""Of a run that ends by an accident each time; `rl.train` itself replaces its workers when they do."""


class Going:
    """A run from its start to its end, or from where it was broken off.

    Args:
        slot: among the runs side by side.
        servers: that the sweep has started, with GPUs of their own.
        group: of W&B, unless the settings name one.
        nursery: of the runs.
    """

    def __init__(
        self,
        sweep: SweepDir,
        entry: Entry,
        config: TrainConfig,
        server: SharedServer,
        children: Children,
        *,
        slot: int,
        servers: int,
        group: str,
        nursery: Nursery,
    ) -> None:
        self.entry, self.config, self.slot = entry, config, slot
        self._run, self._log = RunDir(entry.path), sweep.logs / f"{entry.name}.log"
        self._children, self._nursery = children, nursery
        self._url, self._group = server.url, group
        self._env = {"PYTHONUNBUFFERED": "1", **learner_devices(slot, config.learners, servers)}
        self._starts = 0
        self._stopping = False
        self.resumed = self._run.metrics_file.exists()
        steps = [record["step"] for record in self._run.records() if record["kind"] == "step"] if self.resumed else []
        self.step = max(steps, default=0)
        """The newest that is made."""
        self.train_s = 0.0
        """Of the steps that were made since its start here."""
        self.evaluations: dict[str, Record] = {}
        """The newest since its start here, by set."""
        self.beaten: str | None = None
        """By whom, once it is to end for it."""
        self._began = time.monotonic()
        self._start()

    @property
    def seconds(self) -> float:
        """Since its start here."""
        return time.monotonic() - self._began

    @property
    def progress(self) -> str:
        return f"{self.step} of {self.config.steps} steps are made"

    def news(self) -> Iterator[Record]:
        """What it has logged since the last look.

        Raises:
            UsageError: it cannot be read.
        """
        for record in self._tail.records():
            if record["kind"] == "step":
                self.step = record["step"]
                self.train_s += record["step_s"]
            elif record["kind"] == "eval":
                self.evaluations[record["set"]] = record
            yield record

    def stop(self) -> bool:
        """Has it finish its step, save and end; once, as another Ctrl-C would end it at once. Whether this was it."""
        if self._stopping:
            return False
        self._stopping = True
        self._child.interrupt()
        return True

    def end(self) -> None:
        """Kills it."""
        self._children.end(self._child)

    def outcome(self) -> tuple[Status, str] | None:
        """What has become of it, and why; None while it goes on. After an accident it is started again.

        Raises:
            UsageError: what it has logged cannot be read.
        """
        code = self._child.exit_code
        if code is None:
            return None
        words = self._child.last_words().replace("\n ", ";")
        how = self._child.ending
        ended = ending(self.config, self._run.records()) if code == 0 else None
        self.end()
        if code == 0:
            return Status.DONE, ended.reason if ended and ended.early else ""
        if self.beaten:
            return Status.BEATEN, self.beaten
        if self._stopping:
            return Status.PLANNED, self.progress
        if code in REASONS:
            return (Status.DIVERGED if code == DivergedError.exit_code else Status.FAILED), words
        if self._starts == STARTS:
            return Status.FAILED, f"{how}; see {self._log}"
        self._start()
        return None

    def _start(self) -> None:
        """From its last checkpoint, or from the beginning where it has logged nothing."""
        self._starts += 1
        if self._run.metrics_file.exists():
            what = ["--resume", str(self._run.root)]
        else:
            if self._run.exists:  # killed while it was made
                self._run.root.rename(f"{self._run.root}.{datetime.now():%Y%m%d-%H%M%S}.old")
            settings = {"wandb_group": self._group, **self.entry.settings, SEED: self.entry.seed}
            what = ["--run-dir", str(self._run.root), *cli.as_flags(settings)]
        command = [*TRAIN, "--server-url", self._url, *what]
        self._tail = MetricsTail(self._run.metrics_file)
        self._child = self._children.add(Child(self.entry.name, command, self._log, self._env, nursery=self._nursery))
