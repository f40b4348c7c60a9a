"""A server with the scripted engine that can be killed and started again at the same address, and its adapters."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from rl.core.processes import Child, Children
from rl.launch.server import listen, url_of
from rollout_server.access import KEY
from rollout_server.engines.scripted import FACTS
from rollout_server.schema import CONFIG_KEY


def adapter(value: float = 1.0) -> bytes:
    """One that the scripted engine takes; the value tells adapters apart."""
    tensors = {}
    for module, (outputs, inputs) in FACTS.linear_shapes.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = np.full((2, inputs), value, np.float32)
        tensors[f"base_model.model.{module}.lora_B.weight"] = np.full((outputs, 2), value, np.float32)
    targets = sorted({module.rpartition(".")[2] for module in FACTS.linear_shapes})
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": targets}
    return save(tensors, metadata={CONFIG_KEY: json.dumps(config)})


class ScriptedServer:
    """A process on an address that outlives it, as a supervisor holds it.

    Args:
        key: that it wants.
    """

    def __init__(self, children: Children, log: Path, *, key: str = "") -> None:
        self._children, self._log, self._key = children, log, key
        self._listener = listen(0)
        self.url = url_of(self._listener)
        self.start()

    def start(self) -> None:
        fd = self._listener.fileno()
        command = [sys.executable, "-m", "rollout_server", "--engine", "scripted", "--fd", str(fd)]
        self.process = self._children.add(Child("server", command, self._log, {KEY: self._key}, pass_fds=[fd]))

    def kill(self) -> None:
        self.process.kill()

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def close(self) -> None:
        """Ends it; nothing listens at the address any more."""
        self._listener.close()
        self.kill()


@contextmanager
def scripted_servers(count: int, logs: Path, *, key: str = "") -> Iterator[list[ScriptedServer]]:
    with Children() as children:
        servers = [ScriptedServer(children, logs / f"server-{i}.log", key=key) for i in range(count)]
        yield servers
        for server in servers:
            server.close()
