"""Servers that were away get the newest version again, and prove it before they may produce. Real processes, real
signals; the engine samples by peft."""

import asyncio
from pathlib import Path

import pytest

from rl.collect.client import SILENCE_LIMIT_S, ServerClient
from rl.collect.servers import Servers
from rl.core.errors import PublishError, ServerError, UnknownVersionError
from rl.launch.server import listen, url_of
from rl.learner import publish
from rl.learner.policy import Policy
from rl.learner.publish import Publisher
from rollout_server.schema import GenerateRequest, GenerateResponse, Sampling
from tests.collect.scripted import ScriptedServer, scripted_servers
from tests.delivery.conftest import PeftServer
from tests.delivery.published import PROMPTS, against, held, move, publisher, wait_ready


async def heal(published: Publisher, servers: Servers, policy: str, *, until: int) -> None:
    """Heals, as the learner does, until every server has accepted this version."""
    while not all(until in versions for versions in await held(servers, policy, accepted=True)):
        await published.heal()
        await asyncio.sleep(0.05)


def test_a_server_that_is_started_again_proves_the_newest_version_before_it_serves_it(
    pair: list[PeftServer], policy: Policy
) -> None:
    entered: list[tuple[str, int, str]] = []

    async def use(servers: Servers) -> None:
        published = publisher(servers, policy, "again", lambda *proved: entered.append(proved))
        first = await published.publish(1)
        pair[0].kill()
        move(policy, 0.01)
        second = await published.publish(2)  # without the first server
        assert entered == [("again", 1, first.sha256), ("again", 2, second.sha256)]
        pair[0].start()
        await wait_ready(servers.clients[0])
        newest = GenerateRequest(policy="again", prompts=PROMPTS[:1], n=2, sampling=Sampling(max_tokens=4))
        with pytest.raises(UnknownVersionError):
            await servers.clients[0].generate(newest)
        await heal(published, servers, "again", until=2)
        answer = await servers.clients[0].generate(newest)
        assert answer.adapter_sha256 == second.sha256

    against([server.url for server in pair], use)


def test_healing_asks_for_nothing_but_what_is_held_while_all_is_well(pair: list[PeftServer], policy: Policy) -> None:
    asked: list[tuple[str, str]] = []

    class Listening(ServerClient):
        async def _request(self, method, path, *content, limit_s):  # type: ignore[no-untyped-def]
            asked.append((method, path))
            return await super()._request(method, path, *content, limit_s=limit_s)

    async def use(servers: Servers) -> None:
        published = publisher(servers, policy, "well")
        await published.heal()  # before the first publish there is nothing to heal
        await published.publish(1)
        asked.clear()
        await published.heal()
        assert sorted(asked) == sorted(2 * [("GET", "/health"), ("GET", "/v1/policies")])

    against([server.url for server in pair], use, Listening)


def test_a_frozen_server_holds_up_neither_publishing_nor_healing(pair: list[PeftServer], policy: Policy) -> None:
    async def use(servers: Servers) -> None:
        published = publisher(servers, policy, "frozen")
        await published.publish(1)
        pair[1].freeze()
        async with asyncio.timeout(SILENCE_LIMIT_S / 2):  # before the silence of the frozen one is noticed
            await published.publish(2)
            await published.heal()
        async with Servers([pair[0].url]) as awake:
            assert await held(awake, "frozen", accepted=True) == [[1, 2]]
        pair[1].thaw()
        await heal(published, servers, "frozen", until=2)

    against([server.url for server in pair], use)


def test_a_server_that_comes_back_with_another_policy_is_refused(pair: list[PeftServer], policy: Policy) -> None:
    class ForgetsTheAdapter(ServerClient):
        restarted = False

        async def generate(self, request: GenerateRequest) -> GenerateResponse:
            if not self.restarted or request.policy is None:
                return await super().generate(request)
            base = await super().generate(request.model_copy(update={"policy": None, "policy_version": None}))
            said = [[c.model_copy(update={"policy_version": 1}) for c in siblings] for siblings in base.completions]
            return GenerateResponse(completions=said, adapter_sha256=proofs[0].sha256)

    proofs = []

    async def use(servers: Servers) -> None:
        published = publisher(servers, policy, "other")
        proofs.append(await published.publish(1))
        pair[1].kill()
        pair[1].start()
        await wait_ready(servers.clients[1])
        ForgetsTheAdapter.restarted = True
        with pytest.raises(PublishError, match="looks like the base model"):
            await heal(published, servers, "other", until=1)
        assert await held(servers, "other") == [[1], []]

    against(
        [server.url for server in pair],
        use,
        lambda url: (ForgetsTheAdapter if url == pair[1].url else ServerClient)(url),
    )


def test_a_publish_waits_for_a_server_when_there_is_none(pair: list[PeftServer], policy: Policy) -> None:
    async def use(servers: Servers) -> None:
        for server in pair:
            server.kill()
        publishing = asyncio.create_task(publisher(servers, policy, "waits").publish(1))
        await asyncio.sleep(0)
        pair[0].start()
        assert (await publishing).logprob_gap <= 1e-5

    against([server.url for server in pair], use)


def test_a_publish_without_any_server_ends_with_the_reason(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "AWAY_LIMIT_S", 0.0)
    with listen(0) as listener:
        nobody = url_of(listener)

    async def run() -> None:
        async with Servers([nobody]) as servers:
            with pytest.raises(ServerError, match="no rollout server was there for version 1"):
                await publisher(servers, policy, "none").publish(1)

    asyncio.run(run())


def test_a_server_that_wants_another_key_is_left_out_with_a_word(
    pair: list[PeftServer], policy: Policy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run(locked: ScriptedServer) -> None:
        async with Servers([pair[0].url, locked.url]) as servers:
            await wait_ready(servers.clients[0])
            while (await servers.clients[1].health()).status != "ready":
                await asyncio.sleep(0.05)
            published = publisher(servers, policy, "keyless")
            for version in (1, 2):
                await published.publish(version)
                await published.heal()
            assert servers.there == 1

    with scripted_servers(1, tmp_path, key="another") as (locked,):
        asyncio.run(run(locked))
        assert f"the server at {locked.url} is away" in caplog.text
    assert caplog.text.count("a key is needed") == 1


def test_a_server_of_an_earlier_launch_forgets_its_policies(pair: list[PeftServer], policy: Policy) -> None:
    async def use(servers: Servers) -> None:
        adapter = policy.adapter_bytes()
        others = ["run-ab12-0", "run-ab12-1", "run-ff00-0", "eval-1"]
        for name in others:
            await servers.clients[0].put_adapter(name, 5, adapter)
        await publisher(servers, policy, "run-ab12-1").publish(6)
        names = {v.policy for v in (await servers.clients[0].policies()).versions}
        assert names & {*others} == {"run-ab12-1", "run-ff00-0", "eval-1"}

    against([server.url for server in pair], use)
