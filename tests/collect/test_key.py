"""A server with a key, and those who ask it with the same one, another, or none."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rl.collect.client import ServerClient
from rl.core.errors import ServerError, UnavailableError, UsageError
from rl.core.processes import Child, Children
from rl.launch.server import check_servers, listen, url_of
from rollout_server.access import KEY, KEY_FILE
from rollout_server.schema import GenerateRequest, Sampling
from tests.collect.scripted import adapter

SECRET = "a-key-of-letters"


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[str]:
    """The address of a server that wants a key."""
    with Children() as children, listen(0) as listener:
        fd = listener.fileno()
        command = [sys.executable, "-m", "rollout_server", "--engine", "scripted", "--fd", str(fd)]
        children.add(Child("server", command, tmp_path / "server.log", {KEY: SECRET}, pass_fds=[fd]))
        yield url_of(listener)


def test_who_has_the_key_is_served(locked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with ServerClient(locked) as client:
            await client.wait_ready()
            await client.put_adapter("p", 1, adapter())
            await client.accept("p", 1)
            request = GenerateRequest(policy="p", prompts=[[1]], sampling=Sampling(max_tokens=4))
            assert (await client.generate(request)).completions[0][0].policy_version == 1

    monkeypatch.setenv(KEY, SECRET)
    check_servers([locked])
    asyncio.run(run())


@pytest.mark.parametrize("key", ["", "another"])
def test_who_has_not_is_told_before_a_run_begins(locked: str, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    async def run() -> None:
        async with ServerClient(locked) as client:
            assert (await client.health()).wire_schema
            with pytest.raises(ServerError, match="a key is needed") as caught:
                await client.wait_ready()
            assert not isinstance(caught.value, UnavailableError)

    monkeypatch.setenv(KEY, key)
    asyncio.run(run())
    with pytest.raises(UsageError, match="a key is needed") as caught:
        check_servers([locked])
    assert KEY in caught.value.fix


def test_key_that_cannot_be_read_is_wrong_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setenv(KEY_FILE, str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="nowhere"):
        ServerClient("http://127.0.0.1:1")
