"""Waiting that ends: every wait has a limit and says what it waits for."""

import time
from collections.abc import Iterator

from rl.core.errors import TallyError


def poll(what: str, *, every_s: float, limit_s: float) -> Iterator[None]:
    """Yields every `every_s` seconds until the caller leaves the loop.

    Raises:
        TallyError: after `limit_s` seconds, naming `what` was waited for.
    """
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        yield
        time.sleep(every_s)
    raise TallyError(f"waited {limit_s:.0f} s for {what}")
