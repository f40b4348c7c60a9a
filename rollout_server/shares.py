"""How much of the server one kind of its clients may hold at a time: load costs them time, and never the server.

The run's own wire and the guests on OpenAI's paths have a share each. A request beyond the share is refused before its
body is read, and told when to come again; those within it are sampled in the order in which they came, of the run's
own the shortest first.
"""

import asyncio
import math
from bisect import insort
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from time import monotonic

from rollout_server.errors import ApiError

_RECENT = 64
"""Ends of requests whose rate says when there is room again."""
_LONGEST_RETRY_S = 60
"""What is estimated beyond it is a guess."""


@dataclass(eq=False, slots=True)
class _Turn:
    completions: int
    length: int
    adapter: int | None
    come: asyncio.Event = field(default_factory=asyncio.Event)


class Share:
    """Counts what its clients hold.

    Args:
        name: of its clients, or what they ask.
        requests: that are here at a time, sampled or waiting for it.
        body_bytes: of the bodies of these.
        completions: says how many are sampled at a time. A request for more of them is sampled alone.
        adapters: says how many are sampled by at a time.
        patience_s: how long a request may wait for its turn; None is to its end.
    """

    def __init__(
        self,
        name: str,
        *,
        requests: int,
        body_bytes: float = math.inf,
        completions: Callable[[], float] = lambda: math.inf,
        adapters: Callable[[], float] = lambda: math.inf,
        patience_s: float | None = None,
    ) -> None:
        self.name = name
        self.here = 0
        """requests"""
        self.sampling = 0
        """completions of requests that are sampled"""
        self._early = 0
        self._requests, self._body_bytes, self._completions = requests, body_bytes, completions
        self._adapters, self._patience_s = adapters, patience_s
        self._held_bytes = 0
        self._turns: list[_Turn] = []
        self._sampled_s, self._counted = 0.0, monotonic()
        self._users: Counter[int] = Counter()
        """Requests that are sampled, by their adapter."""
        self._ends = deque([monotonic()], maxlen=_RECENT)
        """When requests ended, the oldest first. The first one may be when a request came here, and was alone."""

    @property
    def waiting(self) -> int:
        """Completions whose turn has not come."""
        return sum(turn.completions for turn in self._turns)

    @property
    def sampled_s(self) -> float:
        """Seconds in which something was sampled; in the others nothing was asked for."""
        return self._sampled_s + (monotonic() - self._counted if self.sampling else 0.0)

    @contextmanager
    def enter(self) -> Iterator[Callable[[int], None]]:
        """A request is here; what this gives is to be called with the size of each piece of its body.

        Raises:
            ApiError: 429 when there is no room for the request, or the piece.
        """
        if self.here >= self._requests:
            raise self._full(f"{self.here} {self.name} requests are here, as many as may be")
        if not self.here:
            self._ends = deque([monotonic()], maxlen=_RECENT)
        self.here += 1
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if self._held_bytes + size > self._body_bytes:
                raise self._full(
                    f"the {self.name} requests that are here have {self._held_bytes} bytes, and {size} more came"
                )
            held += size
            self._held_bytes += size

        try:
            yield hold
        finally:
            self.here -= 1
            self._held_bytes -= held
            self._ends.append(monotonic())

    @asynccontextmanager
    async def turn(self, completions: int, *, length: int = 0, adapter: int | None = None) -> AsyncIterator[None]:
        """Waits until so many may be sampled by this adapter; before those who wait for longer completions.

        Raises:
            ApiError: 429 where that takes too long.
        """
        turn = _Turn(completions, length, adapter)
        insort(self._turns, turn, key=lambda other: other.length)
        try:
            self._call()
            await self._come(turn)
            yield
        finally:
            if turn.come.is_set():
                self._count(turn, -1)
            else:
                self._turns.remove(turn)
            self._call()

    def ended_early(self, completions: int) -> None:
        """So many of those that are sampled have ended, though their requests have not: others may take their place."""
        self._early = completions
        self._call()

    def _call(self) -> None:
        """Those whose turn it is, and none of them before one that stands before it."""
        while self._turns and self._fits(self._turns[0]):
            turn = self._turns.pop(0)
            self._count(turn, 1)
            turn.come.set()

    def _fits(self, turn: _Turn) -> bool:
        if not self.sampling:
            return True
        adapters = {adapter for adapter in (*self._users, turn.adapter) if adapter is not None}
        completions = self.sampling - self._early + turn.completions
        return completions <= self._completions() and len(adapters) <= self._adapters()

    def _count(self, turn: _Turn, by: int) -> None:
        self._sampled_s, self._counted = self.sampled_s, monotonic()
        self.sampling += by * turn.completions
        if turn.adapter is not None:
            self._users[turn.adapter] += by
            self._users += Counter()  # drops those that nobody uses

    async def _come(self, turn: _Turn) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                await turn.come.wait()
        except TimeoutError:
            raise self._full(f"no turn came in {self._patience_s:.0f} s") from None

    def _full(self, detail: str) -> ApiError:
        """With the time after which those who are here now are gone, at the rate at which others went. While none has
        gone, that is as long again as it has taken."""
        elapsed, ended = monotonic() - self._ends[0], len(self._ends) - 1
        seconds = elapsed * self.here / ended if ended else elapsed
        retry_after_s = min(max(math.ceil(seconds), 1), _LONGEST_RETRY_S)
        fix = f"Ask again in {retry_after_s} s, as Retry-After says."
        return ApiError(429, "too many requests", detail, fix=fix, retry_after_s=retry_after_s)
