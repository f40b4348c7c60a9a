"""The rollout servers that the runs of a sweep share: one a model, with room for the adapters of several runs."""

import socket
from collections.abc import Sequence
from typing import Any

from rl.core.config import TrainConfig
from rl.core.machine import gpus
from rl.core.processes import Child, Children
from rl.core.pulse import Listener
from rl.launch.crew import WRONG_INPUT
from rl.launch.placement import SHARED, WHOLE
from rl.launch.server import listen, start_server, url_of
from rl.launch.workers import Accident, Worker
from rl.problems.shapes import adapter_rank
from rl.study.sweepdir import SweepDir

SERVED = ("model", "revision", "trust_remote_code", "random_weights", "dtype", "gpu_memory", "tuning")
"""Runs that agree in these settings share a server. vLLM pads every adapter to the highest rank, and so those of full
fine-tuning have their own."""


def served_by(config: TrainConfig) -> tuple[Any, ...]:
    """What tells the servers of a sweep apart."""
    return tuple(getattr(config, name) for name in SERVED)


class SharedServer:
    """A server that is started again when it dies, on the same address; who uses it waits for it meanwhile.

    Args:
        configs: of all runs that will use it.
        number: among the servers of the sweep; it takes the GPU of that number.
        policies: runs at the same time.
        resume: the command that goes on with the sweep.
    """

    def __init__(
        self,
        sweep: SweepDir,
        configs: Sequence[TrainConfig],
        children: Children,
        *,
        number: int,
        policies: int,
        resume: str,
    ) -> None:
        self.number = number
        self._rank = max(map(adapter_rank, configs))
        self._config, self._policies = configs[0], policies
        self._name, self._gpus = f"server-{number}", gpus()
        self._log = sweep.logs / f"{self._name}.log"
        self._pulse = sweep.scratch / self._name
        self._listener: socket.socket = listen(0)
        self._worker = Worker(
            self._name, self._start, [self._pulse], children, resume=resume, reasons_again=WRONG_INPUT
        )
        self._heard = Listener(self._pulse)
        self._worker.begin()

    @property
    def url(self) -> str:
        return url_of(self._listener)

    @property
    def answers(self) -> bool:
        """Whether it has answered once; it may still load its model."""
        self._heard.look()
        return self._heard.heard

    def fits(self, configs: Sequence[TrainConfig]) -> bool:
        """Whether it can serve the adapters of these."""
        return max(map(adapter_rank, configs)) <= self._rank

    def look(self) -> Accident | None:
        """Starts it again where it died, and says so.

        Raises:
            TallyError: it ended for a reason, or too often.
        """
        return self._worker.look()

    def end(self) -> None:
        self._worker.halt()
        self._listener.close()

    def _start(self) -> Child:
        alone = len(self._gpus) > self.number + 1
        return start_server(
            self._config,
            self._listener,
            self._log,
            {"CUDA_VISIBLE_DEVICES": self._gpus[self.number % len(self._gpus)]} if self._gpus else {},
            gpu_memory=self._config.gpu_memory or (WHOLE if alone else SHARED),
            max_lora_rank=self._rank,
            policies=self._policies,
            name=self._name,
            pulse=self._pulse,
        )


def learner_devices(slot: int, learners: int, servers: int) -> dict[str, str]:
    """The environment of the run in a slot: its learners take the GPUs that no server has, in turn; any of them where
    the servers have all. Empty on CPU."""
    all_ = gpus()
    free = all_[servers:] or all_
    own = dict.fromkeys(free[(slot * learners + rank) % len(free)] for rank in range(learners)) if free else {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(own)} if own else {}
