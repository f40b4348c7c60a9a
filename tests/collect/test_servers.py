"""Servers that come, go and freeze while requests run, as processes with a scripted engine and real signals."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from rl.collect import client as client_module
from rl.collect.client import ServerClient
from rl.collect.servers import Servers
from rl.core.errors import ServerError, UnavailableError, UnknownVersionError
from rollout_server.schema import GenerateRequest, Sampling
from tests.collect.scripted import ScriptedServer, adapter, scripted_servers

PROMPT = [1, 2, 3]
ASK = GenerateRequest(prompts=[PROMPT], n=2, sampling=Sampling(max_tokens=4))


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[ScriptedServer]]:
    with scripted_servers(2, tmp_path) as servers:
        yield servers


@pytest.fixture
def shorten_silence(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on a frozen server is given up after a second, not after twenty."""

    def shorten() -> None:
        monkeypatch.setattr(client_module, "SILENCE_LIMIT_S", 1.0)
        monkeypatch.setattr(client_module, "PULSE_S", 0.1)

    return shorten


def against(pair: list[ScriptedServer], use: Callable[[Servers], Awaitable[object]], **options: float) -> None:
    async def run() -> None:
        async with asyncio.timeout(120), Servers([server.url for server in pair], **options) as servers:
            await asyncio.gather(*(client.wait_ready() for client in servers.clients))
            await use(servers)

    asyncio.run(run())


@pytest.mark.parametrize("fault", [ScriptedServer.kill, ScriptedServer.freeze])
def test_requests_go_to_the_server_that_is_left(
    pair: list[ScriptedServer], shorten_silence: Callable[[], None], fault: Callable[[ScriptedServer], None]
) -> None:
    async def use(servers: Servers) -> None:
        shorten_silence()
        fault(pair[0])
        answers = await asyncio.gather(*(servers.generate(ASK) for _ in range(8)))
        assert len(answers) == 8

    against(pair, use)


def test_a_request_that_runs_on_a_server_that_freezes_is_answered_by_the_other(
    pair: list[ScriptedServer], shorten_silence: Callable[[], None]
) -> None:
    asked = []

    class Freezing(ServerClient):
        async def generate(self, request):  # type: ignore[no-untyped-def]
            asked.append(self.url)
            if self.url == pair[0].url:
                pair[0].freeze()
            return await super().generate(request)

    async def run() -> None:
        async with asyncio.timeout(60), Servers([server.url for server in pair], Freezing) as servers:
            await asyncio.gather(*(client.wait_ready() for client in servers.clients))
            shorten_silence()
            await servers.generate(ASK)

    asyncio.run(run())
    assert asked == [pair[0].url, pair[1].url]


def test_requests_wait_for_a_server_that_is_started_again(
    pair: list[ScriptedServer], shorten_silence: Callable[[], None]
) -> None:
    async def use(servers: Servers) -> None:
        shorten_silence()
        for server in pair:
            server.kill()
        waiting = asyncio.gather(*(servers.generate(ASK) for _ in range(4)))
        await asyncio.sleep(0)
        pair[1].start()
        assert len(await waiting) == 4

    against(pair, use)


def test_without_any_server_the_reasons_are_said(pair: list[ScriptedServer]) -> None:
    async def use(servers: Servers) -> None:
        for server in pair:
            server.close()
        with pytest.raises(ServerError, match="no rollout server has served for 2 s") as error:
            await servers.generate(ASK)
        assert not isinstance(error.value, UnavailableError)
        assert all(server.url in str(error.value) for server in pair)

    against(pair, use, away_limit_s=2.0)


def test_a_refusal_is_not_asked_of_another_server(pair: list[ScriptedServer]) -> None:
    async def use(servers: Servers) -> None:
        with pytest.raises(ServerError, match="422") as error:
            await servers.generate(ASK.model_copy(update={"prompts": [[100_000]]}))
        assert not isinstance(error.value, UnavailableError)

    against(pair, use)


def test_a_server_without_the_policy_is_passed_over(pair: list[ScriptedServer]) -> None:
    """As one that was started again, until the learner has healed it."""
    ask = ASK.model_copy(update={"policy": "p"})

    async def use(servers: Servers) -> None:
        healthy = servers.clients[1]
        await healthy.put_adapter("p", 3, adapter())
        with pytest.raises(UnknownVersionError, match="no accepted version"):
            await healthy.generate(ask)
        await healthy.accept("p", 3)
        with pytest.raises(UnknownVersionError, match="unknown policy"):
            await servers.clients[0].generate(ask)
        answers = await asyncio.gather(*(servers.generate(ask) for _ in range(6)))
        assert {c.policy_version for answer in answers for c in answer.completions[0]} == {3}

    against(pair, use)


def test_a_pinned_adapter_reaches_a_server_that_was_started_again(pair: list[ScriptedServer]) -> None:
    ask = ASK.model_copy(update={"policy": "e", "policy_version": 7})

    async def use(servers: Servers) -> None:
        servers.pin("e", 7, adapter())
        for _ in range(2):
            answers = await asyncio.gather(*(servers.generate(ask) for _ in range(4)))
            assert {c.policy_version for answer in answers for c in answer.completions[0]} == {7}
            for server in pair:
                server.kill()
                server.start()
        await servers.generate(ask)
        await servers.unpin("e", 7)
        held = await asyncio.gather(*(client.policies() for client in servers.clients))
        assert [answer.versions for answer in held] == [[], []]

    against(pair, use)
