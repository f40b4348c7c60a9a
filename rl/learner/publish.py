"""Publishing: the adapter goes to every server as a new version, and each server proves that it serves it.

A version is accepted by servers that (1) hashed the bytes that were sent, (2) matched every target module to a layer
of their model and loaded them, and (3) sampled canary completions by that version, under its number and hash, which
have the learner's own log-probabilities. Until then it serves nobody else; what was proved is entered in the ledger
before it is accepted. A version that fails is withdrawn everywhere, and the run ends rather than train on samples of
an unknown policy.

A server that is away is no failure: it is left out, and gets the newest version once it is back.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor

from rl.collect.client import ServerClient
from rl.collect.servers import AWAY_LIMIT_S, AWAY_S, Servers
from rl.core.errors import DivergedError, PublishError, ServerError, UnavailableError, UnknownVersionError
from rl.learner.collate import MiniBatch, Row, pack
from rl.learner.loss import mismatch_kl
from rl.learner.policy import Policy
from rl.learner.turnstile import Turnstile
from rollout_server.schema import AdapterReceipt, Completion, GenerateRequest, Sampling

LAUNCH = re.compile(r"(?P<run>.+)-(?P<launch>\d+)")
"""A policy's name: `run-<hex>-<n>` of the n-th learner that a supervisor has started."""
LOOK_LIMIT_S = 2.0
"""What a server gets to say what it holds; a later answer is read at the next look."""
CANARY_TOKENS = 4
"""Of each completion: the learner waits for so many of the engine's steps."""
CANARY_SAMPLES = 2
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


@dataclass(frozen=True, kw_only=True)
class _Version:
    number: int
    adapter: bytes
    sha256: str


class Publisher:
    """Publishes the versions of one policy.

    Args:
        name: the policy's name on the servers; new for every launch, so that a server never knows it already.
        prompts: the canary's prompts as tokens.
        enter: called with (policy, version, sha256) once a version is proved, and before it is accepted.
        turnstile: of the policy, where a thread trains it meanwhile. Until a version is published it stays that one.
    """

    def __init__(
        self,
        servers: Servers,
        policy: Policy,
        name: str,
        prompts: Sequence[list[int]],
        temperature: float,
        *,
        enter: Callable[[str, int, str], None],
        turnstile: Turnstile | None = None,
    ) -> None:
        self._servers, self._policy, self._name, self._enter = servers, policy, name, enter
        self._turnstile = turnstile or Turnstile()
        self._modules = policy.adapter_modules
        self._prompts = list(prompts)
        self._sampling = Sampling(temperature=temperature, max_tokens=CANARY_TOKENS)
        self._noise: dict[ServerClient, float] = {}
        self._looks: dict[ServerClient, asyncio.Task[list[AdapterReceipt] | None]] = {}
        self._newest: _Version | None = None

    async def publish(self, version: int) -> Proof:
        """Uploads the policy's adapter as `version` and has it proved and accepted by every server that is there, and
        by one at least.

        Raises:
            DivergedError: the policy's log-probabilities are not finite, which would end a server that samples by it.
            PublishError: a proof failed; the version is not served.
            ServerError: a server refused the bytes, or none was there for `AWAY_LIMIT_S`.
        """
        start = time.monotonic()
        await self._turnstile.use(partial(self._check_finite, version))
        adapter = self._policy.adapter_bytes()
        self._newest = _Version(number=version, adapter=adapter, sha256=hashlib.sha256(adapter).hexdigest())
        while not (proved := await self._deliver(self._newest, await self._look())):
            if time.monotonic() - start > AWAY_LIMIT_S:
                raise ServerError(f"no rollout server was there for version {version} in {AWAY_LIMIT_S:.0f} s")
            await asyncio.sleep(AWAY_S)
        worst = max(proved, key=lambda comparison: comparison.logprob_gap)
        return Proof(
            policy=self._name,
            sha256=self._newest.sha256,
            modules=self._modules,
            publish_s=time.monotonic() - start,
            **asdict(worst),
        )

    async def heal(self) -> None:
        """Servers that have come back get the newest version, too, once they have proved it. To be called between two
        publishes, while the policy is that version.

        Raises:
            PublishError: a proof failed; that server does not serve the version.
            ServerError: a server refused the bytes.
        """
        if newest := self._newest:
            held = await self._look()
            await self._deliver(newest, {client: held[client] for client in held if not self._serves(held[client])})

    def _check_finite(self, version: int) -> None:
        """On the canary's prompts, as the learner itself computes them."""
        halves = [(prompt[:1], prompt[1:]) for prompt in self._prompts]
        batch = pack([_row(first, rest, [0.0] * len(rest)) for first, rest in halves]).to(self._policy.device)
        with torch.no_grad():
            logprobs = self._policy(batch)[batch.mask_BT]
        if not logprobs.isfinite().all():
            message = f"the policy's log-probabilities are not finite at version {version}: it has diverged"
            raise DivergedError(message, fix="lower --lr in a new run")

    def _serves(self, held: Sequence[AdapterReceipt]) -> bool:
        """Whether a server that holds these has accepted the newest version."""
        assert self._newest
        newest = (self._name, self._newest.number, self._newest.sha256)
        return any((v.policy, v.policy_version, v.sha256) == newest and v.accepted for v in held)

    async def _look(self) -> dict[ServerClient, list[AdapterReceipt]]:
        """What each server holds, without those that are away, load their model, or want another key."""
        new = [client for client in self._servers.clients if client not in self._looks]
        self._looks |= {client: asyncio.create_task(self._held(client)) for client in new}
        if new:
            await asyncio.wait([self._looks[client] for client in new], timeout=LOOK_LIMIT_S)
        answers = {
            client: self._looks.pop(client).result() for client in list(self._looks) if self._looks[client].done()
        }
        return {client: held for client, held in answers.items() if held is not None}

    async def _held(self, client: ServerClient) -> list[AdapterReceipt] | None:
        """None where the server is away, does not serve yet, or refuses us."""
        try:
            ready = (await client.health()).status == "ready"
            return (await client.policies()).versions if ready else None
        except ServerError as error:
            if not isinstance(error, UnavailableError):
                self._servers.pass_over(client, error)
            return None

    async def _deliver(
        self, version: _Version, held: Mapping[ServerClient, Sequence[AdapterReceipt]]
    ) -> list[Comparison]:
        """Has these servers prove the version, and accept it where no proof failed.

        Returns:
            The comparisons with those that have accepted it; the others went away meanwhile.

        Raises:
            PublishError: a proof failed; the version is withdrawn from all of these servers.
            ServerError: a server refused the bytes; likewise.
        """
        checks = (self._prove(client, version, receipts) for client, receipts in held.items())
        outcomes = await asyncio.gather(*checks, return_exceptions=True)  # no upload may follow its withdrawal
        proved = {c: o for c, o in zip(held, outcomes, strict=True) if isinstance(o, Comparison)}
        failed = [o for o in outcomes if isinstance(o, BaseException) and not isinstance(o, UnavailableError)]
        if failed:
            there = [c for c, o in zip(held, outcomes, strict=True) if not isinstance(o, UnavailableError)]
            removals = (client.remove(self._name, version.number) for client in there)
            await asyncio.gather(*removals, return_exceptions=True)  # the failure is the news
            raise next((error for error in failed if isinstance(error, PublishError)), failed[0])
        if proved:
            self._enter(self._name, version.number, version.sha256)
        accepted = [await self._accept(client, version) for client in proved]
        return [comparison for comparison, here in zip(proved.values(), accepted, strict=True) if here]

    async def _accept(self, client: ServerClient, version: _Version) -> bool:
        try:
            await client.accept(self._name, version.number)
        except UnavailableError:
            return False
        return True

    async def _prove(self, client: ServerClient, version: _Version, held: Sequence[AdapterReceipt]) -> Comparison:
        """Uploads a candidate to one server and compares what that serves with the policy.

        Raises:
            PublishError: it holds other bytes, or not all of them, or its log-probabilities are not the learner's.
        """
        for old in held:
            if self._is_outlived(old.policy):
                await client.remove(old.policy, old.policy_version)
        for _ in range(2):  # it may have been started again between upload and canary, but not twice
            receipt = await client.put_adapter(self._name, version.number, version.adapter)
            if receipt.sha256 != version.sha256:
                reason = f"it holds bytes with the hash {receipt.sha256[:12]}, not {version.sha256[:12]}"
                raise self._refusal(client, version, "bytes", reason)
            if receipt.modules != self._modules:
                reason = f"it loaded {receipt.modules} of {self._modules} target modules"
                raise self._refusal(client, version, "modules", reason)
            with suppress(UnknownVersionError):
                return await self._compare(client, version)
        reason = "it does not know the version that it has given a receipt for"
        raise self._refusal(client, version, "log-probabilities", reason)

    async def _compare(self, client: ServerClient, version: _Version) -> Comparison:
        """The third part of the proof."""
        if client not in self._noise:
            server, _, base = await self._canary(client, None)
            self._noise[client] = _mean_gap(server, base)
        noise = self._noise[client]
        server, policy, base = await self._canary(client, version)
        gap, moved, from_base = _mean_gap(server, policy), _mean_gap(policy, base), _mean_gap(server, base)
        audible = NOISE_MARGIN * noise + FLOOR[self._policy.dtype]
        tolerance = min(TOLERANCE[self._policy.dtype], audible)
        if not gap <= tolerance:  # also when it is not a number
            looks = "it looks like the base model" if from_base < gap else "it is neither policy nor base"
            reason = f"its log-probabilities are {gap:.2g} off (allowed {tolerance:.2g}): {looks}"
            raise self._refusal(client, version, "log-probabilities", reason)
        if moved > audible and from_base < gap:
            reason = f"it is nearer to the base ({from_base:.2g}) than to the policy ({gap:.2g})"
            raise self._refusal(client, version, "log-probabilities", reason)
        kl = mismatch_kl(policy, server, torch.ones_like(policy, dtype=torch.bool))
        return Comparison(logprob_gap=gap, noise=noise, moved=moved, mismatch_kl=float(kl.mean()))

    async def _canary(self, client: ServerClient, version: _Version | None) -> tuple[Tensor, Tensor, Tensor]:
        """Has the server sample by this version (None: the base); log-probabilities of those tokens by server, learner
        and base."""
        request = GenerateRequest(
            policy=self._name if version else None,
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
            raise self._refusal(client, version, "log-probabilities", reason)
        batch = _batch(self._prompts, answer.completions).to(self._policy.device)
        policy, base = await self._turnstile.use(partial(self._logprobs, batch))
        return batch.sampler_logprobs_BT[batch.mask_BT], policy, base

    @torch.no_grad()
    def _logprobs(self, batch: MiniBatch) -> tuple[Tensor, Tensor]:
        """By learner and base."""
        policy = self._policy(batch)[batch.mask_BT]
        with self._policy.adapter_off():
            return policy, self._policy(batch)[batch.mask_BT]

    def _is_outlived(self, policy: str) -> bool:
        """Whether a policy is of an earlier learner of this supervisor."""
        own, other = LAUNCH.fullmatch(self._name), LAUNCH.fullmatch(policy)
        if own is None or other is None or own["run"] != other["run"]:
            return False
        return int(other["launch"]) < int(own["launch"])

    def _refusal(self, client: ServerClient, version: _Version, part: str, reason: str) -> PublishError:
        """Args: part: of the proof."""
        message = (
            f"the server at {client.url} does not serve version {version.number} of {self._name} as published; "
            f"the proof of its {part} failed: {reason}"
        )
        return PublishError(message, fix="see the server's log in logs/")


def _batch(prompts: Sequence[list[int]], completions: Sequence[Sequence[Completion]]) -> MiniBatch:
    return pack(
        [_row(p, c.token_ids, c.logprobs) for p, siblings in zip(prompts, completions, strict=True) for c in siblings]
    )


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
