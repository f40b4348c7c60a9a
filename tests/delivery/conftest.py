"""Servers to deliver to: two of vLLM for the whole room, and as many of peft as a test wants to kill."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rl.core.processes import Child, Children
from rl.launch.server import listen_all, start_server, url_of
from rl.learner.policy import Policy
from rl.problems.starter import STARTER_MODEL
from tests.delivery.published import CONFIG, move


@pytest.fixture(scope="package")
def vllm_urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Of two servers; they may still be loading."""
    logs = tmp_path_factory.mktemp("logs")
    listeners = listen_all(0, 2)
    with Children() as children:
        for i, listener in enumerate(listeners):
            children.add(start_server(CONFIG, listener, logs / f"server-{i}.log", {}))
        yield [url_of(listener) for listener in listeners]
    for listener in listeners:
        listener.close()


class PeftServer:
    """A process on an address that outlives it, as a supervisor holds it."""

    def __init__(self, children: Children, listener: socket.socket, log: Path) -> None:
        self._children, self._listener, self._log = children, listener, log
        self.url = url_of(listener)
        self.start()

    def start(self) -> None:
        fd = self._listener.fileno()
        command = [sys.executable, "-m", "tests.delivery.peft_server", str(fd)]
        self.process = self._children.add(Child("server", command, self._log, {}, pass_fds=[fd]))

    def kill(self) -> None:
        self.process.kill()

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)


@pytest.fixture(scope="package")
def peft_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[PeftServer]]:
    log = tmp_path_factory.mktemp("peft") / "server.log"
    listeners = listen_all(0, 2)
    with Children() as children:
        servers = [PeftServer(children, listener, log) for listener in listeners]
        yield servers
        for server in servers:
            server.kill()
    for listener in listeners:
        listener.close()


@pytest.fixture
def pair(peft_servers: list[PeftServer]) -> Iterator[list[PeftServer]]:
    """Two servers to kill, freeze and start again; both run, or are about to."""
    for server in peft_servers:
        if server.process.exit_code is not None:
            server.start()
    yield peft_servers
    for server in peft_servers:
        if server.process.exit_code is None:
            server.thaw()


@pytest.fixture
def policy() -> Policy:
    """A policy whose adapter has moved away from the base."""
    torch.set_num_threads(1)
    policy = Policy(str(STARTER_MODEL), CONFIG, torch.device("cpu"))
    move(policy, 0.02)
    return policy
