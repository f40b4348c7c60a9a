"""A version is what the learner's policy is, on every server, before it is sampled from. Against real vLLM."""

import asyncio

import pytest
import torch

from rl.collect.client import ServerClient
from rl.collect.servers import Servers
from rl.core.errors import DivergedError, PublishError
from rl.learner.collate import Row, pack
from rl.learner.policy import Policy
from rl.problems.starter import STARTER_MODEL
from rollout_server.schema import AdapterReceipt, GenerateRequest, GenerateResponse, Sampling
from tests.delivery.published import CONFIG, PROMPTS, against, held, publisher

pytestmark = pytest.mark.vllm


def test_server_and_learner_agree_on_the_newest_adapter_and_differ_from_the_base(
    vllm_urls: list[str], policy: Policy
) -> None:
    async def use(servers: Servers) -> None:
        proof = await publisher(servers, policy, "agree").publish(1)
        assert proof.logprob_gap <= 1e-4
        assert proof.moved > 0.01
        assert abs(proof.mismatch_kl) < 1e-6
        sampling = Sampling(temperature=CONFIG.temperature, max_tokens=24)
        answer = await servers.generate(GenerateRequest(policy="agree", prompts=PROMPTS, n=8, sampling=sampling))
        assert answer.adapter_sha256 == proof.sha256
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
                    batch = pack([row])
                    gaps.append((policy(batch) - batch.sampler_logprobs_BT).abs().max())
                    with policy.adapter_off():
                        base_gaps.append((policy(batch) - batch.sampler_logprobs_BT).abs().mean())
        assert max(gaps) <= 1e-3
        assert sum(base_gaps) / len(base_gaps) > 0.01

    against(vllm_urls, use)


def test_the_first_version_is_the_base(vllm_urls: list[str]) -> None:
    policy = Policy(str(STARTER_MODEL), CONFIG, torch.device("cpu"))

    async def use(servers: Servers) -> None:
        proof = await publisher(servers, policy, "first").publish(0)
        assert proof.moved == 0.0
        assert proof.logprob_gap <= 1e-4

    against(vllm_urls, use)


class Counting(ServerClient):
    asked = 0

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        self.asked += 1
        return await super().generate(request)


def test_a_version_is_proved_by_every_server_then_entered_then_sampled_by_the_least_busy(
    vllm_urls: list[str], policy: Policy
) -> None:
    async def use(servers: Servers) -> None:
        entered = []
        proof = await publisher(servers, policy, "both", lambda *proved: entered.append(proved)).publish(1)
        assert entered == [("both", 1, proof.sha256)]
        assert await held(servers, "both", accepted=True) == [[1], [1]]
        clients = [client for client in servers.clients if isinstance(client, Counting)]
        assert [client.asked for client in clients] == [2, 2]  # of the base and of the policy
        request = GenerateRequest(policy="both", prompts=[PROMPTS[0]], n=4, sampling=Sampling(max_tokens=8))
        answers = await asyncio.gather(*(servers.generate(request) for _ in range(6)))
        assert {c.policy_version for answer in answers for c in answer.completions[0]} == {1}
        assert [client.asked for client in clients] == [5, 5]

    against(vllm_urls, use, Counting)


def test_a_refused_version_is_withdrawn_from_a_server_that_is_slow_to_take_it(
    vllm_urls: list[str], policy: Policy
) -> None:
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

    async def use(servers: Servers) -> None:
        with pytest.raises(PublishError, match="loaded 0 of"):
            await publisher(servers, policy, "late").publish(1)
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
        assert await held(servers, "late") == [[], []]

    against(vllm_urls, use, lambda url: (Refuses if url == vllm_urls[0] else Waits)(url))


def test_a_policy_that_overflows_is_refused_before_it_can_end_a_server(vllm_urls: list[str], policy: Policy) -> None:
    """Its NaNs would stay in the server's cache, and every server that is started again would get it."""
    with torch.no_grad():
        for parameter in policy.trainable:
            parameter.fill_(3e38)  # finite; its products are not

    async def use(servers: Servers) -> None:
        with pytest.raises(DivergedError, match="not finite at version 1"):
            await publisher(servers, policy, "overflows").publish(1)
        assert await held(servers, "overflows") == [[], []]
        assert (await servers.wait_ready()).status == "ready"

    against(vllm_urls, use)
