"""Publishing: the adapter goes to every server as a new version, and each server proves that it serves it.

A version is accepted only when every server (1) hashed the bytes that were sent, (2) matched every target module to a
layer of its model and loaded them, and (3) sampled canary completions by that version which have the learner's own
log-probabilities. Until then it serves nobody else; a version that fails is withdrawn everywhere, and the run ends
rather than train on samples of an unknown policy.
"""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from rl.collect.client import ServerClient
from rl.collect.servers import Servers
from rl.core.errors import PublishError, ServerError
from rl.learner.collate import MiniBatch, Row, pad
from rl.learner.policy import Policy
from rollout_server.schema import Completion, GenerateRequest, Sampling

CANARY_TOKENS = 8
CANARY_SAMPLES = 4
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Largest mean |logprob difference| of the canary's tokens between server and learner. What they differ by on the base
model is measured at the first publish, and narrows this further: in float32 it is 1e-6, in bfloat16 some 1e-2."""
NOISE_MARGIN = 4.0
"""A served version may differ from the learner's by this many times the noise on the base, and by `FLOOR`: a version
that differs from the base by less is proved by its bytes and modules alone."""
FLOOR = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""bfloat16's noise is uneven: on some tokens of a few dozen it is many times that of others."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What one server says of the canary's tokens, against the learner."""

    logprob_gap: float
    """mean |server − learner|"""
    noise: float
    """the same on the base model, measured once"""
    moved: float
    """mean |learner − base|: up to `NOISE_MARGIN` × noise + `FLOOR` the base itself would pass the canary"""
    mismatch_kl: float
    """KL(sampler ‖ learner) at the same version, by k3"""


@dataclass(frozen=True, kw_only=True)
class Proof(Comparison):
    """What a version was accepted for; the comparison is with the server that is furthest off."""

    policy: str
    sha256: str
    modules: int
    publish_s: float


class Publisher:
    """Publishes the versions of one policy.

    Args:
        name: the policy's name on the server; new for every launch, so that a server never knows it already.
        prompts: the canary's prompts as tokens.
    """

    def __init__(
        self, servers: Servers, policy: Policy, name: str, prompts: Sequence[list[int]], temperature: float
    ) -> None:
        self._servers, self._policy, self._name = servers, policy, name
        self._modules = policy.adapter_modules
        self._prompts = list(prompts)
        self._sampling = Sampling(temperature=temperature, max_tokens=CANARY_TOKENS)
        self._noise: dict[ServerClient, float] = {}

    async def publish(self, version: int) -> Proof:
        """Uploads the policy's adapter as `version` and has it proved and accepted.

        Raises:
            PublishError: a proof failed; the version is not served.
            ServerError: a server is unreachable, or refused the bytes.
        """
        start = time.monotonic()
        adapter = self._policy.adapter_bytes()
        sha256 = hashlib.sha256(adapter).hexdigest()
        clients = self._servers.clients
        checks = (self._check(client, version, adapter, sha256) for client in clients)
        outcomes = await asyncio.gather(*checks, return_exceptions=True)  # no upload may follow its withdrawal
        if failed := [outcome for outcome in outcomes if isinstance(outcome, BaseException)]:
            alive = [c for c, outcome in zip(clients, outcomes, strict=True) if not isinstance(outcome, ServerError)]
            removals = (client.remove(self._name, version) for client in alive)
            await asyncio.gather(*removals, return_exceptions=True)  # the first failure is the news
            raise failed[0]
        proved = [outcome for outcome in outcomes if isinstance(outcome, Comparison)]
        worst = max(proved, key=lambda comparison: comparison.logprob_gap)
        await self._servers.accept(self._name, version)
        return Proof(
            policy=self._name,
            sha256=sha256,
            modules=self._modules,
            publish_s=time.monotonic() - start,
            **asdict(worst),
        )

    async def _check(self, client: ServerClient, version: int, adapter: bytes, sha256: str) -> Comparison:
        """Uploads a candidate to one server and compares what that serves with the policy.

        Raises:
            PublishError: it holds other bytes, or not all of them, or its log-probabilities are not the learner's.
        """
        receipt = await client.put_adapter(self._name, version, adapter)
        if receipt.sha256 != sha256:
            reason = f"it holds bytes with the hash {receipt.sha256[:12]}, not {sha256[:12]}"
            raise self._refusal(client, version, reason)
        if receipt.modules != self._modules:
            raise self._refusal(client, version, f"it loaded {receipt.modules} of {self._modules} target modules")
        if client not in self._noise:
            server, _, base = await self._canary(client, None, None)
            self._noise[client] = _mean_gap(server, base)
        noise = self._noise[client]
        server, policy, base = await self._canary(client, self._name, version)
        gap, moved, from_base = _mean_gap(server, policy), _mean_gap(policy, base), _mean_gap(server, base)
        audible = NOISE_MARGIN * noise + FLOOR[self._policy.dtype]
        tolerance = min(TOLERANCE[self._policy.dtype], audible)
        if not gap <= tolerance:  # also when it is not a number
            looks = "it looks like the base model" if from_base < gap else "it is neither policy nor base"
            reason = f"its log-probabilities are {gap:.2g} off (allowed {tolerance:.2g}): {looks}"
            raise self._refusal(client, version, reason)
        if moved > audible and from_base < gap:
            reason = f"it is nearer to the base ({from_base:.2g}) than to the policy ({gap:.2g})"
            raise self._refusal(client, version, reason)
        difference = (policy - server).double()  # k3 of 1e-7 is 5e-15, which float32 cannot tell from 0
        mismatch_kl = float((difference.expm1() - difference).mean())
        return Comparison(logprob_gap=gap, noise=noise, moved=moved, mismatch_kl=mismatch_kl)

    async def _canary(
        self, client: ServerClient, name: str | None, version: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Has the server sample by this version; log-probabilities of those tokens by server, learner and base."""
        request = GenerateRequest(
            policy=name, policy_version=version, prompts=self._prompts, n=CANARY_SAMPLES, sampling=self._sampling
        )
        answer = await client.generate(request)
        batch = _batch(self._prompts, answer.completions).to(self._policy.device)
        with torch.no_grad():
            policy = self._policy(batch)[batch.mask_BT]
            with self._policy.adapter_off():
                base = self._policy(batch)[batch.mask_BT]
        return batch.sampler_logprobs_BT[batch.mask_BT], policy, base

    def _refusal(self, client: ServerClient, version: int, reason: str) -> PublishError:
        message = f"the server at {client.url} does not serve version {version} of {self._name} as published: {reason}"
        return PublishError(message, fix="see the server's log in logs/")


def _batch(prompts: Sequence[list[int]], completions: Sequence[Sequence[Completion]]) -> MiniBatch:
    return pad(
        [
            Row(
                prompt_ids=prompt,
                completion_ids=completion.token_ids,
                sampler_logprobs=completion.logprobs,
                advantage=0.0,
                token_weight=0.0,
            )
            for prompt, siblings in zip(prompts, completions, strict=True)
            for completion in siblings
        ]
    )


def _mean_gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().mean())
