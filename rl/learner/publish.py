"""Publishing: the adapter goes to every server as a new version, and each server proves that it serves it.

A version is accepted by servers that (1) hashed the bytes that were sent, (2) matched every target module to a layer
of their model and loaded them, and (3) sampled canary completions by that version, under its number and hash, which
have the learner's own log-probabilities. Until then it serves nobody else; what was proved is entered in the ledger
before it is accepted. A version that fails is withdrawn everywhere, and the run ends rather than train on samples of
an unknown policy.

A server that is away is no failure: it is left out, and gets the newest version once it is back.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from rl.collect.client import ServerClient
from rl.collect.servers import AWAY_LIMIT_S, AWAY_S, Servers
from rl.core.errors import PublishError, ServerError, UnavailableError, UnknownVersionError
from rl.learner.canary import Canary, Comparison, Version
from rl.learner.policy import Policy
from rl.learner.turnstile import Turnstile
from rollout_server.schema import AdapterReceipt

LAUNCH = re.compile(r"(?P<run>.+)-(?P<launch>\d+)")
"""A policy's name: `run-<hex>-<n>` of the n-th learner that a supervisor has started."""
LOOK_LIMIT_S = 2.0
"""What a server gets to say what it holds; a later answer is read at the next look."""


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
        self._modules = policy.adapter_modules
        self._canary = Canary(policy, prompts, temperature, turnstile or Turnstile())
        self._looks: dict[ServerClient, asyncio.Task[list[AdapterReceipt] | None]] = {}
        self._newest: Version | None = None

    async def publish(self, version: int) -> Proof:
        """Uploads the policy's adapter as `version` and has it proved and accepted by every server that is there, and
        by one at least.

        Raises:
            DivergedError: the policy's log-probabilities are not finite, which would end a server that samples by it.
            PublishError: a proof failed; the version is not served.
            ServerError: a server refused the bytes, or none was there for `AWAY_LIMIT_S`.
        """
        start = time.monotonic()
        await self._canary.check_finite(version)
        adapter = self._policy.adapter_bytes()
        self._newest = Version(policy=self._name, number=version, adapter=adapter)
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
        self, version: Version, held: Mapping[ServerClient, Sequence[AdapterReceipt]]
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

    async def _accept(self, client: ServerClient, version: Version) -> bool:
        try:
            await client.accept(self._name, version.number)
        except UnavailableError:
            return False
        return True

    async def _prove(self, client: ServerClient, version: Version, held: Sequence[AdapterReceipt]) -> Comparison:
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
                raise version.refusal(client.url, "bytes", reason)
            if receipt.modules != self._modules:
                reason = f"it loaded {receipt.modules} of {self._modules} target modules"
                raise version.refusal(client.url, "modules", reason)
            with suppress(UnknownVersionError):
                return await self._canary.compare(client, version)
        reason = "it does not know the version that it has given a receipt for"
        raise version.refusal(client.url, "log-probabilities", reason)

    def _is_outlived(self, policy: str) -> bool:
        """Whether a policy is of an earlier learner of this supervisor."""
        own, other = LAUNCH.fullmatch(self._name), LAUNCH.fullmatch(policy)
        if own is None or other is None or own["run"] != other["run"]:
            return False
        return int(other["launch"]) < int(own["launch"])
