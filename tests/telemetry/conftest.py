"""What the tests of this room share: patience, free ports, and what answers on them."""

import random
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress

import pytest

from rl.core.errors import UsageError
from rl.core.telemetry import Ports

LIMIT_S = 120.0


@pytest.fixture
def until() -> Callable[..., None]:
    def wait(condition: Callable[[], object], limit_s: float = LIMIT_S) -> None:
        end = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < end, f"waited {limit_s} s"
            time.sleep(0.05)

    return wait


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def free_ports(learners: int = 1) -> int:
    """The first of a run's, all of which are free now; below those that the kernel gives away."""
    while True:
        first = random.randrange(20_000, 30_000)
        with suppress(UsageError):
            Ports("127.0.0.1", first).check(learners)
            return first


def ask(port: int, path: str, key: str | None = None) -> tuple[int, str]:
    """(status, body); status 0 while nobody listens."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)) as said:
            return said.status, said.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()
    except OSError:
        return 0, ""
