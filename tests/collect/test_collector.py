"""The collector against a real server process with a scripted engine: it keeps the buffer full, and no fuller."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from rl.buffer.ledger import OCCUPYING, Buffer, State
from rl.collect.client import ServerClient
from rl.collect.collector import collect
from rl.core.config import TrainConfig
from rl.core.errors import ServerError
from rl.launch.server import listen, url_of
from rl.problems.prompt import Prompter
from rl.problems.starter import STARTER_MODEL
from rollout_server.engines.scripted import FACTS
from rollout_server.schema import CONFIG_KEY, GenerateRequest, Sampling

CONFIG = TrainConfig(buffer=64, batch=32)


def adapter() -> bytes:
    tensors = {}
    for module, (outputs, inputs) in FACTS.linear_shapes.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = np.ones((2, inputs), np.float32)
        tensors[f"base_model.model.{module}.lora_B.weight"] = np.ones((outputs, 2), np.float32)
    targets = sorted({module.rpartition(".")[2] for module in FACTS.linear_shapes})
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": targets}
    return save(tensors, metadata={CONFIG_KEY: json.dumps(config)})


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[Buffer]:
    buffer = Buffer(f"sqlite:///{tmp_path}/buffer.db", capacity=CONFIG.buffer, group_size=CONFIG.group_size)
    yield buffer
    buffer.close()


def with_server(url: str, use: Callable[[ServerClient], Awaitable[None]]) -> None:
    async def run() -> None:
        async with ServerClient(url) as client:
            await client.wait_ready(60)
            await use(client)

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


def test_it_samples_what_was_left_unfinished_and_then_every_free_slot(url: str, buffer: Buffer) -> None:
    left = buffer.issue()  # by a collector that died before it put them
    assert left == list(range(1, 9))
    prompter = Prompter(str(STARTER_MODEL), CONFIG)

    async def use(client: ServerClient) -> None:
        await client.put_adapter("p", 3, adapter())
        await client.accept("p", 3)
        task = asyncio.create_task(collect(CONFIG, buffer, client, prompter, policy="p"))
        # what the script says is no answer, so every group is without signal and frees its slot for another
        await until(lambda: buffer.counts()[State.NO_SIGNAL] >= 40)
        counts = buffer.counts()
        assert sum(counts[state] for state in OCCUPYING) <= CONFIG.buffer // CONFIG.group_size
        assert set(left).isdisjoint(buffer.unfinished())
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with_server(url, use)
    (group,) = buffer.load([1])
    assert len(group.samples) == CONFIG.group_size
    assert {s.rollout.policy_version for s in group.samples} == {3}
    assert all(len(s.rollout.token_ids) == len(s.rollout.sampler_logprobs) for s in group.samples)
    assert {s.verdict.reason for s in group.samples} <= {"no answer found", "truncated before an answer"}


def test_a_policy_that_is_not_accepted_is_refused_and_says_so(url: str, buffer: Buffer) -> None:
    async def use(client: ServerClient) -> None:
        await client.put_adapter("p", 0, adapter())
        with pytest.raises(ExceptionGroup) as group:
            await collect(CONFIG, buffer, client, Prompter(str(STARTER_MODEL), CONFIG), policy="p")
        assert group.group_contains(ServerError, match="no accepted version")

    with_server(url, use)
    assert len(buffer.unfinished()) == CONFIG.buffer // CONFIG.group_size


def test_the_client_says_what_the_server_refused_and_how_to_mend_it(url: str) -> None:
    sampling = Sampling(max_tokens=4)

    async def use(client: ServerClient) -> None:
        with pytest.raises(ServerError, match="hash") as error:
            await client._call(
                "PUT", "/v1/policies/p/0", adapter(), {"X-Adapter-SHA256": hashlib.sha256(b"").hexdigest()}
            )
        assert error.value.fix
        with pytest.raises(ServerError, match="404"):
            await client.generate(GenerateRequest(policy="unknown", prompts=[[1]], sampling=sampling))
        answer = await client.generate(GenerateRequest(prompts=[[1], [2]], n=3, sampling=sampling))
        assert [len(siblings) for siblings in answer.completions] == [3, 3]

    with_server(url, use)


def test_a_server_that_is_not_there_is_an_error_at_once() -> None:
    with listen(0) as listener:
        nobody = url_of(listener)

    async def run() -> None:
        async with ServerClient(nobody) as client:
            with pytest.raises(ServerError, match="no answer from the rollout server"):
                await client.health()

    asyncio.run(run())
