"""Servers that come, go and freeze while requests run, as processes with a scripted engine and real signals."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from rl.collect import client as client_module
from rl.collect import servers as servers_module
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


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has joined, and who is back, is looked at often."""
    monkeypatch.setattr(servers_module, "FOLLOW_S", 0.05)
    monkeypatch.setattr(servers_module, "AWAY_S", 0.05)


def following(joined: list[str], use: Callable[[Servers], Awaitable[object]]) -> None:
    """Args: joined: the servers that there are; `use` may change it."""

    async def run() -> None:
        async with asyncio.timeout(60), Servers(lambda: list(joined)) as servers:
            await use(servers)

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.02)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("wrong", ["http://host:80port", "http://[::1", "http://127.0.0.1:99999"])
def test_what_is_no_address_hides_no_server_that_joins_later(
    pair: list[ScriptedServer], caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    joined = [wrong]

    async def use(servers: Servers) -> None:
        await until(lambda: wrong in caplog.text)
        joined.append(pair[0].url)
        await servers.wait_ready()
        assert await servers.generate(ASK)
        joined.append(pair[1].url)
        await until(lambda: len(servers.clients) == 2)

    following(joined, use)
    assert caplog.text.count(wrong) == 1


@pytest.mark.usefixtures("often")
def test_who_cannot_learn_of_servers_any_more_does_not_go_on() -> None:
    def broken() -> list[str]:
        raise ValueError("a defect")

    async def run() -> None:
        async with asyncio.timeout(60), Servers(broken) as servers:
            await servers.wait_ready()

    with pytest.raises(ExceptionGroup) as told:
        asyncio.run(run())
    assert told.group_contains(ValueError, match="a defect")


@pytest.mark.usefixtures("often")
def test_a_server_that_has_left_is_not_asked_any_more(pair: list[ScriptedServer]) -> None:
    joined = [server.url for server in pair]

    async def use(servers: Servers) -> None:
        await until(lambda: servers.there == 2)
        one = servers.clients[0]
        pair[0].close()
        await asyncio.gather(*(servers.generate(ASK) for _ in range(4)))
        assert servers.there == 1
        joined.remove(pair[0].url)
        await until(lambda: len(servers.clients) == 1 and one.closed)
        await until(lambda: len(asyncio.all_tasks()) == 2)  # this one, and what asks for the servers
        with pytest.raises(UnavailableError, match="is asked no more"):
            await one.health()
        assert await servers.generate(ASK)

    following(joined, use)


@pytest.mark.usefixtures("often")
def test_a_server_that_has_left_ends_what_it_has_under_way(pair: list[ScriptedServer]) -> None:
    joined = [pair[0].url]

    async def use(servers: Servers) -> None:
        await until(lambda: servers.there == 1)
        one = servers.clients[0]
        pair[0].freeze()
        under_way = asyncio.create_task(servers.generate(ASK))
        joined[:] = [pair[1].url]
        await until(lambda: servers.there == 1 and servers.clients[0].url == pair[1].url)
        assert await servers.generate(ASK)
        assert not one.closed
        pair[0].thaw()
        assert await under_way
        await until(lambda: one.closed)

    following(joined, use)


@pytest.mark.usefixtures("often")
def test_a_server_that_joins_with_another_key_is_left_out(
    pair: list[ScriptedServer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with scripted_servers(1, tmp_path, key="another") as (locked,):
        joined = [locked.url, pair[0].url]

        async def use(servers: Servers) -> None:
            await servers.wait_ready()
            await asyncio.gather(*(servers.generate(ASK) for _ in range(8)))
            await until(lambda: locked.url in caplog.text)
            assert servers.there == 1

        following(joined, use)
    assert caplog.text.count("a key is needed") == 1


@pytest.mark.usefixtures("often")
def test_what_joins_and_is_no_rollout_server_is_left_out(
    pair: list[ScriptedServer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as web:
            other = f"http://127.0.0.1:{web.sockets[0].getsockname()[1]}"
            async with asyncio.timeout(60), Servers(lambda: [other, pair[0].url]) as servers:
                await servers.wait_ready()
                await asyncio.gather(*(servers.generate(ASK) for _ in range(8)))
                await until(lambda: other in caplog.text)
                assert servers.there == 1

    asyncio.run(run())
