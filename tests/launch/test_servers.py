"""How a server of this machine is started, and started again."""

import asyncio
import sys
import time
from pathlib import Path

import psutil
import pytest

from rl.collect.client import ServerClient
from rl.core.config import TrainConfig
from rl.core.errors import UnavailableError
from rl.core.processes import Child, Children
from rl.launch.server import listen, start_server, url_of
from rl.launch.workers import Worker
from rollout_server.engines.scripted import FATAL_PROMPT
from rollout_server.schema import GenerateRequest, Sampling


def test_a_server_started_by_itself_takes_the_configured_memory(tmp_path: Path) -> None:
    config = TrainConfig()
    for configured, share in [(config, "0.9"), (config.model_copy(update={"gpu_memory": 0.3}), "0.3")]:
        with Children() as children, listen(0) as listener:
            child = children.add(start_server(configured, listener, tmp_path / "server.log", {}))
            command = psutil.Process(child.pid).cmdline()
        assert command[command.index("--gpu-memory") + 1] == share


def test_a_server_whose_engine_dies_is_started_again(tmp_path: Path) -> None:
    async def kill_engine(url: str) -> None:
        async with ServerClient(url) as client:
            await client.wait_ready()
            with pytest.raises(UnavailableError):
                await client.generate(GenerateRequest(prompts=[FATAL_PROMPT], sampling=Sampling(max_tokens=1)))

    with Children() as children, listen(0) as listener:
        fd = listener.fileno()
        command = [sys.executable, "-m", "rollout_server", "--engine", "scripted", "--fd", str(fd)]

        def start() -> Child:
            return Child("server", command, tmp_path / "server.log", {}, pass_fds=[fd])

        worker = Worker("server", start, [], children, resume="go on")
        worker.begin()
        asyncio.run(kill_engine(url_of(listener)))
        while not (accident := worker.look()):
            time.sleep(0.02)
    assert accident.why == "ended with exit code 5: the engine died: a prompt asked for it"
