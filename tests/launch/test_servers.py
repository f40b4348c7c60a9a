"""Several servers used as one, against real vLLM."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from rl.collect.client import ServerClient
from rl.collect.servers import Servers
from rl.core.config import TrainConfig
from rl.core.errors import PublishError
from rl.core.processes import Children
from rl.launch.placement import place
from rl.launch.server import listen, listen_all, start_server, start_servers, url_of
from rl.learner.policy import Policy
from rl.learner.publish import Publisher
from rl.problems.starter import STARTER_MODEL
from rollout_server.schema import AdapterReceipt, GenerateRequest, GenerateResponse, Sampling

pytestmark = pytest.mark.vllm
CONFIG = TrainConfig(servers=2)
PROMPT = [5, 6, 7, 8]


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    logs = tmp_path_factory.mktemp("logs")
    listeners = listen_all(0, CONFIG.servers)
    with Children() as children:
        for child in start_servers(CONFIG, listeners, logs, {}, place([], CONFIG.servers, 1)):
            children.add(child)
        yield [url_of(listener) for listener in listeners]
    assert sorted(path.name for path in logs.iterdir()) == ["server-0.log", "server-1.log"]
    for listener in listeners:
        listener.close()


def moved_policy() -> Policy:
    torch.set_num_threads(1)
    policy = Policy(str(STARTER_MODEL), CONFIG, torch.device("cpu"))
    with torch.no_grad():
        for parameter in policy.trainable:
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    return policy


async def accepted(servers: Servers, policy: str) -> list[list[int]]:
    """The accepted versions of a policy on each server."""
    answers = [await client.policies() for client in servers.clients]
    return [[v.policy_version for v in answer.versions if v.policy == policy and v.accepted] for answer in answers]


def test_a_version_is_proved_by_every_server_and_sampled_by_the_least_busy(urls: list[str]) -> None:
    async def run() -> None:
        async with Servers(urls, Counting) as servers:
            await servers.wait_ready()
            proof = await Publisher(servers, moved_policy(), "both", [PROMPT], CONFIG.temperature).publish(1)
            assert proof.logprob_gap <= 1e-4
            assert await accepted(servers, "both") == [[1], [1]]
            clients = [client for client in servers.clients if isinstance(client, Counting)]
            assert [client.asked for client in clients] == [2, 2]  # of the base and of the policy
            request = GenerateRequest(policy="both", prompts=[PROMPT], n=4, sampling=Sampling(max_tokens=8))
            answers = await asyncio.gather(*(servers.generate(request) for _ in range(6)))
            assert {c.policy_version for answer in answers for c in answer.completions[0]} == {1}
            assert [client.asked for client in clients] == [5, 5]

    asyncio.run(run())


def test_a_version_that_one_server_does_not_serve_is_accepted_by_none(urls: list[str]) -> None:
    def second_serves_the_base(url: str) -> ServerClient:
        return (ServesTheBase if url == urls[1] else ServerClient)(url)

    async def run() -> None:
        async with Servers(urls, second_serves_the_base) as servers:
            await servers.wait_ready()
            with pytest.raises(PublishError, match="looks like the base") as error:
                await Publisher(servers, moved_policy(), "one", [PROMPT], CONFIG.temperature).publish(1)
            assert urls[1] in str(error.value)
            assert await accepted(servers, "one") == [[], []]

    asyncio.run(run())


def test_a_refused_version_is_withdrawn_from_a_server_that_is_slow_to_take_it(urls: list[str]) -> None:
    """The first refuses before the second has got it: it must not come there after its withdrawal."""
    refused = asyncio.Event()

    class Refuses(ServerClient):
        async def put_adapter(self, policy: str, version: int, adapter: bytes) -> AdapterReceipt:
            receipt = await super().put_adapter(policy, version, adapter)
            asyncio.get_running_loop().call_later(0.2, refused.set)
            return receipt.model_copy(update={"modules": 0})

    class Waits(ServerClient):
        async def put_adapter(self, policy: str, version: int, adapter: bytes) -> AdapterReceipt:
            await refused.wait()
            return await super().put_adapter(policy, version, adapter)

    async def run() -> None:
        async with Servers(urls, lambda url: (Refuses if url == urls[0] else Waits)(url)) as servers:
            await servers.wait_ready()
            with pytest.raises(PublishError, match="loaded 0 of"):
                await Publisher(servers, moved_policy(), "late", [PROMPT], CONFIG.temperature).publish(1)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if others:
                await asyncio.wait(others)
            answers = [await client.policies() for client in servers.clients]
            assert not any(v.policy == "late" for answer in answers for v in answer.versions)

    asyncio.run(run())


def test_a_server_started_by_itself_takes_the_configured_memory(tmp_path: Path) -> None:
    for config, share in [(CONFIG, "0.9"), (CONFIG.model_copy(update={"gpu_memory": 0.3}), "0.3")]:
        with Children() as children, listen(0) as listener:
            child = children.add(start_server(config, listener, tmp_path / "server.log", {}))
            command = psutil.Process(child.pid).cmdline()
        assert command[command.index("--gpu-memory") + 1] == share


class Counting(ServerClient):
    asked = 0

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        self.asked += 1
        return await super().generate(request)


class ServesTheBase(ServerClient):
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        return await super().generate(request.model_copy(update={"policy": None, "policy_version": None}))
