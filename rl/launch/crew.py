"""The workers of a run, and who is started again with whom.

Servers and the evaluator are each replaced alone. Another learner starts from the newest commit, with the ledger put
back to it, and publishes under another name, so that no server has a version of that name before; the collector,
which has policies sampled by their names, is started again with it.
"""

import os
import socket
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from rl.core import metrics
from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.core.nursery import LIBRARY_ENV, Nursery
from rl.core.processes import Child, Children
from rl.core.pulse import pulse_file
from rl.core.rundir import RunDir
from rl.core.telemetry import NO_PORTS, Ports
from rl.launch.placement import Placement
from rl.launch.server import start_server, url_of
from rl.launch.workers import Accident, Worker

if TYPE_CHECKING:  # it needs a database, and whoever asks for help does not
    from rl.launch.elsewhere import Elsewhere, LearnerElsewhere

PRELOAD = (
    "rl.collect.__main__",
    "rl.evaluate.__main__",
    "rl.learner.__main__",
    "rl.launch.ranks",
    "transformers.models.auto.tokenization_auto",
)
"""What the workers import, for their nursery."""
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
WRONG_INPUT = (UsageError.exit_code,)
"""What ends a run when a server has to be started again: one that could load may find its memory still taken."""


def environment(run: RunDir) -> dict[str, str]:
    """Of every process of a run, beside its own."""
    return {
        **{name: os.environ.get(name, value) for name, value in LIBRARY_ENV.items()},
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(run.scratch.absolute()),
    }


def start_role(
    name: str,
    words: Sequence[str],
    run: RunDir,
    policy: str,
    devices: Mapping[str, str],
    nursery: Nursery | None,
    flags: Sequence[str] = (),
) -> Child:
    """A process that works for a run, beside the servers.

    Args:
        words: what follows `python -m`, but for what every process of a run is told.
        policy: its name on the servers.
    """
    command = [sys.executable, "-m", *words, str(run.root), *flags, "--policy", policy]
    return Child(name, command, run.logs / f"{name}.log", {**environment(run), **devices}, nursery=nursery)


class Crew:
    """The workers of a run: servers, collector, evaluator and learner, or the learner alone for a replay.

    Args:
        listeners: the servers that are started answer on them, and those that take their place.
        server_urls: of servers that somebody else has started, and starts again; `listeners` is empty then.
        children: where all processes are among.
        nursery: of all but the servers, which have libraries and threads of their own.
        go_back: puts the ledger back to the newest commit; called before another learner is started.
        resume: the command that goes on with the run.
        elsewhere: those that are on other machines, if the run has any.
        ports: where the processes answer who watches them.
    """

    def __init__(
        self,
        run: RunDir,
        config: TrainConfig,
        placement: Placement,
        *,
        listeners: Sequence[socket.socket],
        server_urls: Sequence[str],
        children: Children,
        nursery: Nursery,
        go_back: Callable[[], object],
        resume: str,
        elsewhere: "Elsewhere | None" = None,
        ports: Ports = NO_PORTS,
    ) -> None:
        self._run, self._config, self._placement, self._go_back = run, config, placement, go_back
        self._nursery, self._elsewhere, self._ports = nursery, elsewhere, ports
        self._urls = [*server_urls, *map(url_of, listeners)]
        self._name = f"run-{uuid.uuid4().hex[:12]}"  # a server that outlives a launch must not know the next one's
        self._learners_started = 0
        worker = partial(Worker, children=children, resume=resume)
        away = elsewhere.roles if elsewhere else ()
        ranks = [] if "learner" in away else [pulse_file(run, f"learner-{rank}") for rank in range(config.learners)]
        self._learner = worker("learner", self._start_learner, ranks, may_finish=True)
        self._with_learner: list[Worker] = []
        self._alone: list[Worker] = []
        if config.replay is None and "collector" not in away:
            self._with_learner = [worker("collector", self._start_collector, [pulse_file(run, "collector")])]
        for i, listener in enumerate(listeners):
            name = "server" if len(listeners) == 1 else f"server-{i}"
            start = partial(self._start_server, i, name, listener)
            pulses = [pulse_file(run, name)]
            self._alone.append(worker(name, start, pulses, reasons_again=WRONG_INPUT))
        if config.replay is None and "evaluator" not in away:
            self._alone.append(worker("evaluator", self._start_evaluator, [pulse_file(run, "evaluator")]))

    def start(self) -> None:
        """Starts all of them at once; each waits for what it needs."""
        for worker in (*self._alone, self._learner):
            worker.begin()

    @property
    def done(self) -> bool:
        """Whether the learner has done its work."""
        return self._learner.finished

    def look(self) -> Iterator[Accident]:
        """Replaces who has to be replaced, and says why.

        Raises:
            TallyError: a worker ended for a reason, or too often.
        """
        if self.done:  # nobody samples what will not be trained on, or would be missed
            for other in self._with_learner:
                other.halt()
            if self._elsewhere:
                self._elsewhere.end_launch()
        if self._elsewhere:
            yield from self._elsewhere.accidents()
        for worker in (*self._alone, *self._with_learner, self._learner):
            metrics.WORKER_UP.labels(worker.name).set(worker.runs)
            if accident := worker.look():
                if worker is self._learner:
                    for other in self._with_learner:
                        other.halt()
                yield accident

    @property
    def _policy(self) -> str:
        return f"{self._name}-{self._learners_started}"

    def _start_learner(self) -> "Child | LearnerElsewhere":
        if self._learners_started:
            self._go_back()
        self._learners_started += 1
        for other in self._with_learner:
            other.begin()
        if self._elsewhere and (learner := self._elsewhere.begin_launch(self._policy)):
            return learner
        command = ["rl.launch.ranks", str(self._config.learners)]
        return self._start("learner", command, self._policy, self._placement.learner_env())

    def _start_collector(self) -> Child:
        return self._start("collector", ["rl.collect"], self._policy, NO_GPU)

    def _start_evaluator(self) -> Child:
        return self._start("evaluator", ["rl.evaluate"], f"{self._name}-eval", NO_GPU)

    def _start(self, name: str, command: Sequence[str], policy: str, devices: Mapping[str, str]) -> Child:
        flags = [*(f"--server-url={url}" for url in self._urls), *self._ports.flags(name)]
        return start_role(name, command, self._run, policy, devices, self._nursery, flags)

    def _start_server(self, number: int, name: str, listener: socket.socket) -> Child:
        return start_server(
            self._config,
            listener,
            self._run.logs / f"{name}.log",
            {**environment(self._run), **self._placement.server_env(number)},
            gpu_memory=self._placement.memory(number),
            name=name,
            pulse=pulse_file(self._run, name),
            watched=self._ports.first is not None,
        )
