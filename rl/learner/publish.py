"""Publishing: the adapter goes to the server as a new version, and the server proves that it serves it.

A version is accepted only when (1) the server hashed the bytes that were sent, (2) it matched every target module to a
layer of its model and loaded them, and (3) canary completions sampled by that version have the learner's own
log-probabilities. Until then it serves nobody else; a version that fails is withdrawn, and the run ends rather than
train on samples of an unknown policy.
"""

import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from rl.collect.client import ServerClient
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
"""A served version may differ from the learner's by this many times the noise on the base."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What was compared when a version was accepted, over the canary's tokens."""

    policy: str
    sha256: str
    modules: int
    logprob_gap: float
    """mean |server − learner|"""
    noise: float
    """the same on the base model, measured once"""
    moved: float
    """mean |learner − base|: below the noise the canary cannot tell the adapter from the base"""
    mismatch_kl: float
    """KL(sampler ‖ learner) at the same version, by k3"""
    publish_s: float


class Publisher:
    """Publishes the versions of one policy.

    Args:
        name: the policy's name on the server; new for every launch, so that a server never knows it already.
        prompts: the canary's prompts as tokens.
    """

    def __init__(
        self, client: ServerClient, policy: Policy, name: str, prompts: Sequence[list[int]], temperature: float
    ) -> None:
        self._client, self._policy, self._name = client, policy, name
        self._modules = policy.adapter_modules
        self._prompts = list(prompts)
        self._sampling = Sampling(temperature=temperature, max_tokens=CANARY_TOKENS)
        self._noise: float | None = None

    async def publish(self, version: int) -> Proof:
        """Uploads the policy's adapter as `version` and has it proved and accepted.

        Raises:
            PublishError: the proof failed; the version is not served.
            ServerError: the server is unreachable, or refused the bytes.
        """
        start = time.monotonic()
        if self._noise is None:
            server, _, base = await self._canary(None, None)
            self._noise = _mean_gap(server, base)
        adapter = self._policy.adapter_bytes()
        sha256 = hashlib.sha256(adapter).hexdigest()
        receipt = await self._client.put_adapter(self._name, version, adapter)
        try:
            if receipt.sha256 != sha256:
                raise self._refusal(version, f"it holds bytes with the hash {receipt.sha256[:12]}, not {sha256[:12]}")
            if receipt.modules != self._modules:
                raise self._refusal(version, f"it loaded {receipt.modules} of {self._modules} target modules")
            gap, moved, mismatch_kl = await self._compare(version, self._noise)
        except PublishError:
            with suppress(ServerError):  # the refusal is the news; a candidate that stays serves nobody
                await self._client.remove(self._name, version)
            raise
        await self._client.accept(self._name, version)
        return Proof(
            policy=self._name,
            sha256=sha256,
            modules=self._modules,
            logprob_gap=gap,
            noise=self._noise,
            moved=moved,
            mismatch_kl=mismatch_kl,
            publish_s=time.monotonic() - start,
        )

    async def _compare(self, version: int, noise: float) -> tuple[float, float, float]:
        """The canary of a candidate: (gap, moved, mismatch_kl).

        Raises:
            PublishError: the server's log-probabilities are not the learner's, or are nearer to the base's.
        """
        server, policy, base = await self._canary(self._name, version)
        gap, moved, from_base = _mean_gap(server, policy), _mean_gap(policy, base), _mean_gap(server, base)
        tolerance = min(TOLERANCE[self._policy.dtype], NOISE_MARGIN * noise + 1e-5)
        if not gap <= tolerance:  # also when it is not a number
            looks = "it looks like the base model" if from_base < gap else "it is neither policy nor base"
            raise self._refusal(version, f"its log-probabilities are {gap:.2g} off (allowed {tolerance:.2g}): {looks}")
        if moved > NOISE_MARGIN * noise + 1e-5 and from_base < gap:
            raise self._refusal(version, f"it is nearer to the base ({from_base:.2g}) than to the policy ({gap:.2g})")
        difference = (policy - server).double()  # k3 of 1e-7 is 5e-15, which float32 cannot tell from 0
        return gap, moved, float((difference.expm1() - difference).mean())

    async def _canary(self, name: str | None, version: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Has the server sample by this version; log-probabilities of those tokens by server, learner and base."""
        request = GenerateRequest(
            policy=name, policy_version=version, prompts=self._prompts, n=CANARY_SAMPLES, sampling=self._sampling
        )
        answer = await self._client.generate(request)
        batch = _batch(self._prompts, answer.completions).to(self._policy.device)
        with torch.no_grad():
            policy = self._policy(batch)[batch.mask_BT]
            with self._policy.adapter_off():
                base = self._policy(batch)[batch.mask_BT]
        return batch.sampler_logprobs_BT[batch.mask_BT], policy, base

    def _refusal(self, version: int, reason: str) -> PublishError:
        message = f"the server does not serve version {version} of {self._name} as published: {reason}"
        return PublishError(message, fix="see logs/server.log")


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
