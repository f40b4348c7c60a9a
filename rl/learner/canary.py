"""The canary: what a server samples by a version has the learner's own log-probabilities."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from rl.collect.client import ServerClient
from rl.core.errors import DivergedError, PublishError, UnavailableError
from rl.learner.collate import MiniBatch, Row, pack
from rl.learner.loss import mismatch_kl
from rl.learner.policy import Policy
from rl.learner.turnstile import Turnstile
from rollout_server.schema import GenerateRequest, Sampling

CANARY_PROMPTS = 8
CANARY_SAMPLES = 2
CANARY_TOKENS = 4
"""Of each completion: the learner waits for so many of the engine's steps."""
CANARY_LIMIT_S = 300.0
"""A server whose engine hangs is left out."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Largest mean |logprob difference| of the canary's tokens between server and learner. What they differ by on the base
model is measured at the first publish, and narrows this further: in float32 it is 1e-6, in bfloat16 some 1e-2."""
NOISE_MARGIN = 4.0
"""A served version may differ from the learner's by this many times the noise on the base, and by `FLOOR`: a version
that differs from the base by less is proved by its bytes and modules alone."""
FLOOR = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""bfloat16's noise is uneven: on some tokens of a few dozen it is many times that of others."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """One that is published."""

    policy: str
    number: int
    adapter: bytes

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.adapter).hexdigest()

    def refusal(self, url: str, part: str, reason: str) -> PublishError:
        """Args: part: of the proof that failed."""
        message = (
            f"the server at {url} does not serve version {self.number} of {self.policy} as published; "
            f"the proof of its {part} failed: {reason}"
        )
        return PublishError(message, fix="see the server's log in logs/")


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


class Canary:
    """
    Args:
        prompts: as tokens.
        turnstile: of the policy.
    """

    def __init__(self, policy: Policy, prompts: Sequence[list[int]], temperature: float, turnstile: Turnstile) -> None:
        self._policy, self._prompts, self._turnstile = policy, list(prompts), turnstile
        self._sampling = Sampling(temperature=temperature, max_tokens=CANARY_TOKENS)
        self._noise: dict[ServerClient, float] = {}

    async def check_finite(self, version: int) -> None:
        """On the canary's prompts, as the learner itself computes them.

        Raises:
            DivergedError: the policy's log-probabilities are not finite, which would end a server that samples by it.
        """
        halves = [(prompt[:1], prompt[1:]) for prompt in self._prompts]
        batch = self._pack([_row(first, rest, [0.0] * len(rest)) for first, rest in halves])
        logprobs = await self._turnstile.use(partial(self._logprobs, batch))
        if not logprobs.isfinite().all():
            message = f"the policy's log-probabilities are not finite at version {version}: it has diverged"
            raise DivergedError(message, fix="lower --lr in a new run")

    async def compare(self, client: ServerClient, version: Version) -> Comparison:
        """Samples by the version, and compares what the server says of those tokens with the learner.

        Raises:
            PublishError: they are not of the learner's policy, or under another version's number or hash.
            UnavailableError: the server is away, or samples nothing in `CANARY_LIMIT_S`.
        """
        if client not in self._noise:
            server, _, base = await self._sample(client, None)
            self._noise[client] = _mean_gap(server, base)
        noise = self._noise[client]
        server, policy, base = await self._sample(client, version)
        gap, moved, from_base = _mean_gap(server, policy), _mean_gap(policy, base), _mean_gap(server, base)
        audible = NOISE_MARGIN * noise + FLOOR[self._policy.dtype]
        tolerance = min(TOLERANCE[self._policy.dtype], audible)
        if not gap <= tolerance:  # also when it is not a number
            looks = "it looks like the base model" if from_base < gap else "it is neither policy nor base"
            reason = f"its log-probabilities are {gap:.2g} off (allowed {tolerance:.2g}): {looks}"
            raise version.refusal(client.url, "log-probabilities", reason)
        if moved > audible and from_base < gap:
            reason = f"it is nearer to the base ({from_base:.2g}) than to the policy ({gap:.2g})"
            raise version.refusal(client.url, "log-probabilities", reason)
        kl = mismatch_kl(policy, server, torch.ones_like(policy, dtype=torch.bool))
        return Comparison(logprob_gap=gap, noise=noise, moved=moved, mismatch_kl=float(kl.mean()))

    async def _sample(self, client: ServerClient, version: Version | None) -> tuple[Tensor, Tensor, Tensor]:
        """Has the server sample by this version (None: the base); log-probabilities of those tokens by server, learner
        and base."""
        request = GenerateRequest(
            policy=version.policy if version else None,
            policy_version=version.number if version else None,
            prompts=self._prompts,
            n=CANARY_SAMPLES,
            sampling=self._sampling,
        )
        try:
            async with asyncio.timeout(CANARY_LIMIT_S):
                answer = await client.generate(request)
        except TimeoutError:
            message = f"the server at {client.url} sampled no canary in {CANARY_LIMIT_S:.0f} s"
            raise UnavailableError(message) from None
        numbers = {c.policy_version for siblings in answer.completions for c in siblings}
        if version and (numbers, answer.adapter_sha256) != ({version.number}, version.sha256):
            served = f"{', '.join(map(str, numbers))} with the hash {(answer.adapter_sha256 or 'of no adapter')[:12]}"
            reason = f"it is served under the wrong version: the canary was sampled by version {served}"
            raise version.refusal(client.url, "log-probabilities", reason)
        pairs = zip(self._prompts, answer.completions, strict=True)
        rows = [_row(prompt, c.token_ids, c.logprobs) for prompt, siblings in pairs for c in siblings]
        batch = self._pack(rows)
        policy, base = await self._turnstile.use(partial(self._of_both, batch))
        return batch.sampler_logprobs_BT[batch.mask_BT], policy, base

    def _pack(self, rows: Sequence[Row]) -> MiniBatch:
        return pack(rows).to(self._policy.device)

    @torch.no_grad()
    def _logprobs(self, batch: MiniBatch) -> Tensor:
        logprobs_BT: Tensor = self._policy(batch)
        return logprobs_BT[batch.mask_BT]

    def _of_both(self, batch: MiniBatch) -> tuple[Tensor, Tensor]:
        """By learner and base."""
        policy = self._logprobs(batch)
        with self._policy.adapter_off():
            return policy, self._logprobs(batch)


def _row(prompt_ids: list[int], completion_ids: list[int], sampler_logprobs: list[float]) -> Row:
    return Row(
        prompt_ids=prompt_ids,
        completion_ids=completion_ids,
        sampler_logprobs=sampler_logprobs,
        advantage=0.0,
        token_weight=0.0,
    )


def _mean_gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().mean())
