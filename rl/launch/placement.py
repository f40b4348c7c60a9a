"""Which GPU each server and each learner gets."""

from collections.abc import Sequence
from dataclasses import dataclass

from rl.core.errors import UsageError

WHOLE, SHARED = 0.9, 0.45
"""Share of a GPU's memory that its server takes: where it is alone, and where a learner has the rest."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The devices of servers and learners as `CUDA_VISIBLE_DEVICES` names them; both are empty on CPU, and the servers'
    also where the run starts none."""

    servers: Sequence[str]
    learners: Sequence[str]
    gpu_memory: float | None

    def memory(self, server: int) -> float:
        """Share of its GPU's memory that a server takes."""
        alone = not self.servers or self.servers[server] not in self.learners
        return self.gpu_memory or (WHOLE if alone else SHARED)

    def server_env(self, server: int) -> dict[str, str]:
        return {"CUDA_VISIBLE_DEVICES": self.servers[server]} if self.servers else {}

    def learner_env(self) -> dict[str, str]:
        """Of all learners: each takes the device that its local rank counts to."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.learners)} if self.learners else {}

    def __str__(self) -> str:
        """Example: `server 0: cuda 0 (90 %); learner 0: cuda 1`."""
        if not self.servers and not self.learners:
            return "servers and learners: CPU"
        servers = [f"server {i}: cuda {gpu} ({100 * self.memory(i):.0f} %)" for i, gpu in enumerate(self.servers)]
        learners = [f"learner {i}: cuda {gpu}" for i, gpu in enumerate(self.learners)]
        return "; ".join([*servers, *learners])


def place(gpus: Sequence[str], servers: int, learners: int, gpu_memory: float | None = None) -> Placement:
    """Servers take GPUs from the front and learners from the back, so that they meet only where there are too few.

    Args:
        gpus: as `CUDA_VISIBLE_DEVICES` names them; none is CPU, which all share.
        servers: that the run starts: 0 for a replay, or where others have started them.
        gpu_memory: share of a GPU's memory for its server, in place of the default.

    Raises:
        UsageError: two servers, or two learners, would have to share a GPU.
    """
    if not gpus:
        return Placement(servers=[], learners=[], gpu_memory=gpu_memory)
    if max(servers, learners) > len(gpus):
        wanted = f"{servers} servers and {learners} learners"
        fix = f"--servers {min(servers, len(gpus))} --learners {min(learners, len(gpus))} fits; a GPU takes one of each"
        raise UsageError(f"{wanted} do not fit on {len(gpus)} GPU{'s' * (len(gpus) > 1)}", fix=fix)
    return Placement(servers=gpus[:servers], learners=gpus[len(gpus) - learners :], gpu_memory=gpu_memory)
