"""Every way in which a publish can go wrong silently is noticed, named, and keeps its samples out of the ledger.

Each fault is put in between the learner and real vLLM: into the bytes that leave, or into what the second of two
servers does with them.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load, save

from rl.buffer.ledger import Buffer
from rl.collect.client import ServerClient
from rl.collect.servers import Servers
from rl.core.errors import PublishError, ServerError
from rl.core.types import Group
from rl.learner.policy import Policy
from rollout_server.schema import CONFIG_KEY, HASH_HEADER, AdapterReceipt, GenerateRequest, GenerateResponse
from tests.delivery.published import against, held, move, publisher

pytestmark = pytest.mark.vllm
VERSION = 2


class HonestAboutNothing(ServerClient):
    """Samples by something else, and says that it is the version that was asked for."""

    sampled_by: tuple[str | None, int | None] = (None, None)
    sha256: str | None = None

    async def put_adapter(self, policy: str, version: int, adapter: bytes) -> AdapterReceipt:
        self.sha256 = hashlib.sha256(adapter).hexdigest()
        return await super().put_adapter(policy, version, adapter)

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        if request.policy is None:
            return await super().generate(request)
        policy, version = self.sampled_by
        answer = await super().generate(request.model_copy(update={"policy": policy, "policy_version": version}))
        return labelled(answer, request.policy_version, self.sha256)


def labelled(answer: GenerateResponse, version: int | None, sha256: str | None) -> GenerateResponse:
    completions = [
        [c.model_copy(update={"policy_version": version}) for c in siblings] for siblings in answer.completions
    ]
    return GenerateResponse(completions=completions, adapter_sha256=sha256)


class ServesTheBase(HonestAboutNothing): ...


class ServesOlderWeights(HonestAboutNothing):
    sampled_by = ("older", 1)


class AnswersWithTheOldNumber(ServerClient):
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        answer = await super().generate(request)
        return answer if request.policy is None else labelled(answer, VERSION - 1, answer.adapter_sha256)


class AnswersWithTheOldHash(ServerClient):
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        answer = await super().generate(request)
        return answer if request.policy is None else labelled(answer, request.policy_version, "0" * 64)


class IsSkipped(ServerClient):
    """Says that it has got the adapter, and has not."""

    async def put_adapter(self, policy: str, version: int, adapter: bytes) -> AdapterReceipt:
        sha256 = hashlib.sha256(adapter).hexdigest()
        return AdapterReceipt(policy=policy, policy_version=version, sha256=sha256, modules=28, accepted=False)


class LosesTheEnd(ServerClient):
    """The body arrives cut short under the hash of the whole."""

    async def put_adapter(self, policy: str, version: int, adapter: bytes) -> AdapterReceipt:
        headers = {HASH_HEADER: hashlib.sha256(adapter).hexdigest()}
        answer = await self._call("PUT", f"/v1/policies/{policy}/{version}", adapter[:-100], headers)
        return AdapterReceipt.model_validate_json(answer)


class HoldsOtherBytes(ServerClient):
    async def put_adapter(self, policy: str, version: int, adapter: bytes) -> AdapterReceipt:
        receipt = await super().put_adapter(policy, version, adapter)
        return receipt.model_copy(update={"sha256": "0" * 64})


LOST = "model.layers.1.mlp.up_proj"


def as_it_is(policy: Policy) -> bytes:
    return policy.adapter_bytes()


def truncated(policy: Policy) -> bytes:
    return policy.adapter_bytes()[:-100]


def with_another_prefix(policy: Policy) -> bytes:
    """As an adapter is named that was trained under a wrapper."""
    tensors = {
        name.replace("base_model.model.", "base_model.model.module."): tensor
        for name, tensor in load(policy.adapter_bytes()).items()
    }
    return bytes(save(tensors, metadata={CONFIG_KEY: policy.adapter_config()}))


def without_a_module(policy: Policy) -> bytes:
    tensors = {name: tensor for name, tensor in load(policy.adapter_bytes()).items() if LOST not in name}
    return bytes(save(tensors, metadata={CONFIG_KEY: policy.adapter_config()}))


def without_a_module_and_its_name(policy: Policy) -> bytes:
    """In itself it is whole, so that only who knows the policy can tell."""
    tensors = {name: tensor for name, tensor in load(policy.adapter_bytes()).items() if LOST not in name}
    modules = sorted({name.removeprefix("base_model.model.").partition(".lora_")[0] for name in tensors})
    config = json.loads(policy.adapter_config()) | {"target_modules": modules}
    return bytes(save(tensors, metadata={CONFIG_KEY: json.dumps(config)}))


FAULTS = {
    "adapter not applied": (ServesTheBase, as_it_is, "looks like the base model"),
    "wrong module prefix": (ServerClient, with_another_prefix, "no linear layer module.model.layers"),
    "one module missing": (ServerClient, without_a_module, f"no matrices, {LOST} first"),
    "one module missing, whole in itself": (ServerClient, without_a_module_and_its_name, "loaded 27 of 28 target mod"),
    "truncated before it is sent": (ServerClient, truncated, "not one whole safetensors file"),
    "truncated on the way": (LosesTheEnd, as_it_is, "hash mismatch"),
    "other bytes held": (HoldsOtherBytes, as_it_is, "proof of its bytes failed: it holds bytes with the hash 00000000"),
    "one of two servers skipped": (IsSkipped, as_it_is, "does not know the version that it has given a receipt for"),
    "older weights under the new number": (ServesOlderWeights, as_it_is, "neither policy nor base"),
    "the number of another version": (AnswersWithTheOldNumber, as_it_is, "wrong version: .* by version 1"),
    "the hash of another version": (AnswersWithTheOldHash, as_it_is, "wrong version: .* with the hash 000000000000"),
}


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[Buffer]:
    buffer = Buffer(f"sqlite:///{tmp_path}/buffer.db", capacity=8, group_size=2)
    yield buffer
    buffer.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_delivery_is_named_and_nothing_of_it_trains(
    vllm_urls: list[str],
    policy: Policy,
    buffer: Buffer,
    make_group: Callable[..., Group],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    client, bytes_of, message = FAULTS[fault]
    name = fault.replace(" ", "-").replace(",", "")
    older = policy.adapter_bytes()
    move(policy, 0.01, seed=1)
    sent = bytes_of(policy)
    monkeypatch.setattr(policy, "adapter_bytes", lambda: sent)
    entered = []

    def enter(policy: str, version: int, sha256: str) -> None:
        entered.append(version)
        buffer.proved(policy, version, sha256)

    async def use(servers: Servers) -> None:
        await ServerClient.put_adapter(servers.clients[1], "older", 1, older)
        with pytest.raises((ServerError, PublishError), match=message) as error:
            await publisher(servers, policy, name, enter).publish(VERSION)
        if client is not ServerClient:
            assert vllm_urls[1] in str(error.value)
        assert await held(servers, name) == [[], []]

    against(vllm_urls, use, lambda url: (client if url == vllm_urls[1] else ServerClient)(url))
    assert entered == []
    (first, *_) = buffer.issue()
    claims = replace(make_group(first, version=VERSION), policy=name, adapter_sha256=hashlib.sha256(sent).hexdigest())
    with pytest.raises(PublishError):
        buffer.put(claims)
    assert first in buffer.unfinished()
