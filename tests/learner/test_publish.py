"""The served policy is the learner's, and a version that is not is refused. Against real vLLM."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
import torch

from rl.collect.client import ServerClient
from rl.collect.servers import Servers
from rl.core.config import TrainConfig
from rl.core.errors import PublishError, ServerError
from rl.core.processes import Children
from rl.launch.server import listen, start_server, url_of
from rl.learner.collate import Row, pad
from rl.learner.policy import Policy
from rl.learner.publish import Publisher
from rl.problems.prompt import Prompter
from rl.problems.sources import load_problems
from rl.problems.starter import STARTER_MODEL
from rollout_server.schema import AdapterReceipt, GenerateRequest, GenerateResponse, Sampling

pytestmark = pytest.mark.vllm
CONFIG = TrainConfig(temperature=0.8)
PROMPTS = [
    Prompter(str(STARTER_MODEL), TrainConfig()).prompt_ids(problem)
    for problem in load_problems(TrainConfig(), "heldout")[:2]
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("server") / "server.log"
    with Children() as children:
        with listen(0) as listener:
            children.add(start_server(CONFIG, listener, log, {}))
            address = url_of(listener)
        yield address


@pytest.fixture
def policy() -> Policy:
    """A policy whose adapter has moved away from the base."""
    torch.set_num_threads(1)
    policy = Policy(str(STARTER_MODEL), CONFIG, torch.device("cpu"))
    with torch.no_grad():
        for parameter in policy.trainable:
            parameter.add_(torch.randn(parameter.shape) * 0.02)
    return policy


def against(url: str, use: Callable[[Servers], Awaitable[object]], client: type[ServerClient] = ServerClient) -> None:
    async def run() -> None:
        async with Servers([url], client) as servers:
            await servers.wait_ready()
            await use(servers)

    asyncio.run(run())


def test_server_and_learner_agree_on_the_newest_adapter_and_differ_from_the_base(url: str, policy: Policy) -> None:
    async def use(servers: Servers) -> None:
        proof = await Publisher(servers, policy, "agree", PROMPTS, CONFIG.temperature).publish(1)
        assert proof.logprob_gap <= 1e-4
        assert proof.moved > 0.01
        assert abs(proof.mismatch_kl) < 1e-6
        sampling = Sampling(temperature=CONFIG.temperature, max_tokens=24)
        answer = await servers.generate(GenerateRequest(policy="agree", prompts=PROMPTS, n=8, sampling=sampling))
        gaps, base_gaps = [], []
        for prompt, siblings in zip(PROMPTS, answer.completions, strict=True):
            for c in siblings:
                assert c.policy_version == 1
                row = Row(
                    prompt_ids=prompt,
                    completion_ids=c.token_ids,
                    sampler_logprobs=c.logprobs,
                    advantage=0,
                    token_weight=0,
                )
                with torch.no_grad():
                    batch = pad([row])
                    gaps.append((policy(batch) - batch.sampler_logprobs_BT).abs().max())
                    with policy.adapter_off():
                        base_gaps.append((policy(batch) - batch.sampler_logprobs_BT).abs().mean())
        assert max(gaps) <= 1e-3
        assert sum(base_gaps) / len(base_gaps) > 0.01

    against(url, use)


def test_the_first_version_is_the_base(url: str) -> None:
    policy = Policy(str(STARTER_MODEL), CONFIG, torch.device("cpu"))

    async def use(servers: Servers) -> None:
        proof = await Publisher(servers, policy, "first", PROMPTS, CONFIG.temperature).publish(0)
        assert proof.moved == 0.0
        assert proof.logprob_gap <= 1e-4

    against(url, use)


class ServesTheBase(ServerClient):
    """The adapter never reaches the sampler, and nobody says so: the commonest failure in the field."""

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        answer = await super().generate(request.model_copy(update={"policy": None, "policy_version": None}))
        return answer


class KeepsOtherBytes(ServerClient):
    async def put_adapter(self, policy: str, version: int, adapter: bytes) -> AdapterReceipt:
        receipt = await super().put_adapter(policy, version, adapter)
        return receipt.model_copy(update={"sha256": "0" * 64})


class LoadsInPart(ServerClient):
    async def put_adapter(self, policy: str, version: int, adapter: bytes) -> AdapterReceipt:
        receipt = await super().put_adapter(policy, version, adapter)
        return receipt.model_copy(update={"modules": receipt.modules - 1})


class ServesAnOlderVersion(ServerClient):
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        return await super().generate(request.model_copy(update={"policy": "older", "policy_version": 1}))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (ServesTheBase, "looks like the base"),
        (KeepsOtherBytes, "holds bytes with the hash 000000000000"),
        (LoadsInPart, "loaded 27 of 28 target modules"),
        (ServesAnOlderVersion, "neither policy nor base"),
    ],
)
def test_a_version_that_is_not_served_as_published_is_refused(
    url: str, policy: Policy, fault: type[ServerClient], reason: str
) -> None:
    name = fault.__name__

    async def use(servers: Servers) -> None:
        (client,) = servers.clients
        if fault is ServesAnOlderVersion:
            adapter = policy.adapter_bytes()
            with torch.no_grad():
                for parameter in policy.trainable:
                    parameter.mul_(0.8)
            await ServerClient.put_adapter(client, "older", 1, policy.adapter_bytes())
            policy.load_adapter(adapter)
        with pytest.raises(PublishError, match=reason):
            await Publisher(servers, policy, name, PROMPTS, CONFIG.temperature).publish(1)
        assert not any(v.policy == name for v in (await client.policies()).versions)
        with pytest.raises(ServerError):
            await ServerClient.generate(
                client, GenerateRequest(policy=name, prompts=PROMPTS, n=1, sampling=Sampling(max_tokens=2))
            )

    against(url, use, fault)
