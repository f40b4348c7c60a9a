"""Waiting for a database that is away: it restarts, or the network has been cut."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import wraps
from itertools import count
from typing import ParamSpec, TypeVar

from rl.core.errors import LedgerError
from rl.core.log import say

AWAY_S = 120.0
"""For so long a ledger is asked again: a database that has crashed reads its log first, and a standby takes over in a
minute."""
AGAIN_S = 0.25
P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")


_in_passing: ContextVar[bool] = ContextVar("_in_passing", default=False)


class AwayError(LedgerError):
    """The database is away, and nothing of what it was asked to write is done."""


def patient(ask: Callable[P, R]) -> Callable[P, R]:
    """Has a function be called again as long as the database is away. What it writes it writes in one transaction,
    after which it asks for nothing.

    Raises:
        LedgerError: it was away for longer than `AWAY_S`.
    """

    @wraps(ask)
    def asked(*args: P.args, **kwargs: P.kwargs) -> R:
        begin = time.monotonic()
        for attempt in count(1):
            try:
                answer = ask(*args, **kwargs)
                break
            except AwayError as away:
                patience_s = 0.0 if _in_passing.get() else AWAY_S
                if (seconds := time.monotonic() - begin) > patience_s and attempt > 1:
                    fix = "bring the database back, then go on with --resume"
                    raise LedgerError(f"{away}; waited {seconds:.0f} s for it", fix=fix) from None
                if attempt == 1:  # a connection was broken: another one may be had
                    continue
                if attempt == 2:
                    say(f"{away}; waits for it")
                time.sleep(AGAIN_S)
        if attempt > 2:
            say(f"the ledger is back after {time.monotonic() - begin:.1f} s")
        return answer

    return asked


@contextmanager
def in_passing() -> Iterator[None]:
    """For the last words of who leaves: a ledger that is away is not waited for, and does without them."""
    token = _in_passing.set(True)
    try:
        with suppress(LedgerError):
            yield
    finally:
        _in_passing.reset(token)


def patiently(cls: type[C]) -> type[C]:
    """Has every public method of a class be `patient`."""
    for name, method in list(vars(cls).items()):
        if callable(method) and not name.startswith("_"):
            setattr(cls, name, patient(method))
    return cls
