"""The collector against a real server process with a scripted engine: it keeps the buffer full, and no fuller."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rl.buffer.ledger import Buffer
from rl.buffer.tables import OCCUPYING, State
from rl.collect import collector
from rl.collect.client import ServerClient
from rl.collect.collector import ATTEMPTS, collect
from rl.collect.servers import Servers
from rl.core.config import TrainConfig
from rl.core.errors import DivergedError, PublishError, ServerError, TallyError
from rl.core.types import Group
from rl.problems.prompt import Prompter
from rl.problems.starter import STARTER_MODEL
from rollout_server.schema import GenerateRequest, GenerateResponse
from tests.collect.scripted import adapter, scripted_servers
from tests.conftest import SHA256

CONFIG = TrainConfig(buffer=64, batch=32)


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[Buffer]:
    buffer = Buffer(f"sqlite:///{tmp_path}/buffer.db", capacity=CONFIG.buffer, group_size=CONFIG.group_size)
    yield buffer
    buffer.close()


def with_servers(url: str, use: Callable[[Servers], Awaitable[None]], **options: float) -> None:
    async def run() -> None:
        async with asyncio.timeout(120), Servers([url], **options) as servers:
            await servers.clients[0].wait_ready()
            await use(servers)

    asyncio.run(run())


async def serve(client: ServerClient, version: int = 3) -> str:
    """Has the server accept a version of the policy; the hash of its adapter."""
    receipt = await client.put_adapter("p", version, adapter())
    await client.accept("p", version)
    return receipt.sha256


async def collecting(buffer: Buffer, servers: Servers, done: Callable[[], bool]) -> None:
    """Collects until something is so."""
    prompter = Prompter(str(STARTER_MODEL), CONFIG)
    task = asyncio.create_task(collect(CONFIG, buffer, servers, prompter, policy="p"))
    while not done() and not task.done():
        await asyncio.sleep(0.02)
    if task.done():
        await task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_it_samples_what_was_left_unfinished_and_then_every_free_slot(url: str, buffer: Buffer) -> None:
    left = buffer.issue()  # by a collector that died before it put them
    assert left == list(range(1, 9))

    async def use(servers: Servers) -> None:
        buffer.proved("p", 3, await serve(servers.clients[0]))
        # what the script says is no answer, so every group is without signal and frees its slot for another
        await collecting(buffer, servers, lambda: buffer.counts()[State.NO_SIGNAL] >= 40)
        counts = buffer.counts()
        assert sum(counts[state] for state in OCCUPYING) <= CONFIG.buffer // CONFIG.group_size
        assert set(left).isdisjoint(buffer.unfinished())

    with_servers(url, use)
    (group,) = buffer.load([1])
    assert group.adapter_sha256 == hashlib.sha256(adapter()).hexdigest()
    assert len(group.samples) == CONFIG.group_size
    assert {s.rollout.policy_version for s in group.samples} == {3}
    assert all(len(s.rollout.token_ids) == len(s.rollout.sampler_logprobs) for s in group.samples)
    assert {s.verdict.reason for s in group.samples} <= {"no answer found", "truncated before an answer"}


def test_a_policy_that_is_never_accepted_ends_the_collector_with_the_reason(url: str, buffer: Buffer) -> None:
    async def use(servers: Servers) -> None:
        await servers.clients[0].put_adapter("p", 0, adapter())
        with pytest.raises(ExceptionGroup) as group:
            await collecting(buffer, servers, lambda: False)
        assert group.group_contains(ServerError, match="no accepted version")

    with_servers(url, use, away_limit_s=0)
    assert len(buffer.unfinished()) == CONFIG.buffer // CONFIG.group_size


@pytest.mark.parametrize(("version", "kind"), [(3, DivergedError), (0, TallyError)])
def test_groups_that_are_all_tied_end_the_collector(
    url: str, buffer: Buffer, monkeypatch: pytest.MonkeyPatch, version: int, kind: type[TallyError]
) -> None:
    """A policy that collapsed would be sampled for ever, and never make a step again."""
    monkeypatch.setattr(collector, "TIED_LIMIT", 24)

    async def use(servers: Servers) -> None:
        buffer.proved("p", version, await serve(servers.clients[0], version))
        with pytest.raises(ExceptionGroup) as group:
            await collecting(buffer, servers, lambda: False)
        assert group.group_contains(kind, match=r"the last 24 groups had no signal.* 0\.00 on average")
        assert group.group_contains(DivergedError) == (kind is DivergedError)

    with_servers(url, use)
    assert buffer.counts()[State.NO_SIGNAL] >= 24


def test_samples_of_what_was_not_proved_are_sampled_again_and_then_end_the_collector(url: str, buffer: Buffer) -> None:
    class Counting(ServerClient):
        asked = 0

        async def generate(self, request: GenerateRequest) -> GenerateResponse:
            Counting.asked += 1
            return await super().generate(request)

    async def run() -> None:
        async with Servers([url], Counting) as servers:
            await servers.wait_ready()
            await serve(servers.clients[0])
            buffer.proved("p", 3, "ab" * 32)
            with pytest.raises(ExceptionGroup) as group:
                await collecting(buffer, servers, lambda: False)
            assert group.group_contains(PublishError)

    asyncio.run(run())
    assert Counting.asked >= ATTEMPTS
    assert buffer.counts()[State.ISSUED] == CONFIG.buffer // CONFIG.group_size


class Watched(Buffer):
    """A ledger that a learner writes into while the collector looks."""

    def __init__(self, url: str, *, refusals: int = 0, learns: bool = False) -> None:
        super().__init__(url, capacity=CONFIG.buffer, group_size=CONFIG.group_size)
        self.refusals, self.learns = refusals, learns
        self.began_after: list[int] | None = None

    def put(self, group: Group) -> State:
        if self.refusals:
            self.refusals -= 1
            raise PublishError("its proof is not entered")
        return super().put(group)

    def recorded_steps(self) -> list[int]:
        left = super().recorded_steps()
        if self.learns and left:
            self.trained([group.id for group in self.lease(4, policy_version=left[0] - 1, max_staleness=1)])
        return left

    def issue(self) -> list[int]:
        if self.began_after is None:
            self.began_after = super().recorded_steps()
        return super().issue()


def test_a_group_that_is_refused_once_is_sampled_again(url: str, buffer: Buffer, tmp_path: Path) -> None:
    async def use(servers: Servers) -> None:
        buffer.proved("p", 3, await serve(servers.clients[0]))
        with closing(Watched(f"sqlite:///{tmp_path}/buffer.db", refusals=ATTEMPTS - 1)) as watched:
            await collecting(watched, servers, lambda: buffer.counts()[State.NO_SIGNAL] >= 16)
            assert watched.refusals == 0
        assert set(range(1, 9)).isdisjoint(buffer.unfinished())

    with_servers(url, use)


def test_nothing_is_sampled_before_what_was_trained_is_trained_again(
    url: str, buffer: Buffer, tmp_path: Path, make_group: Callable[..., Group]
) -> None:
    buffer.proved("p", 0, SHA256)
    for i in buffer.issue():
        buffer.put(make_group(i))
    for step in (1, 2):
        buffer.trained([group.id for group in buffer.lease(4, policy_version=step - 1, max_staleness=1)])
    buffer.rewind(0)
    assert buffer.recorded_steps() == [1, 2]

    async def use(servers: Servers) -> None:
        await serve(servers.clients[0])
        with closing(Watched(f"sqlite:///{tmp_path}/buffer.db", learns=True)) as watched:
            await collecting(watched, servers, lambda: watched.began_after is not None)
            assert watched.began_after == []

    with_servers(url, use)


def test_a_step_that_is_not_trained_again_is_not_waited_for_for_ever(
    url: str, buffer: Buffer, make_group: Callable[..., Group], monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer.proved("p", 0, SHA256)
    for i in buffer.issue():
        buffer.put(make_group(i))
    buffer.trained([group.id for group in buffer.lease(4, policy_version=0, max_staleness=1)])
    buffer.rewind(0)
    monkeypatch.setattr(collector, "REPLAY_LIMIT_S", 0.1)

    async def use(servers: Servers) -> None:
        with pytest.raises(TallyError, match="step 1 was not trained again"):
            await collecting(buffer, servers, lambda: False)

    with_servers(url, use)


def test_groups_in_flight_survive_the_loss_of_the_server(tmp_path: Path, buffer: Buffer) -> None:
    def stored() -> int:
        return buffer.counts()[State.NO_SIGNAL]

    with scripted_servers(1, tmp_path) as (server,):

        async def use(servers: Servers) -> None:
            buffer.proved("p", 3, await serve(servers.clients[0]))
            task = asyncio.create_task(collecting(buffer, servers, lambda: stored() >= 200))
            while stored() < 20:
                await asyncio.sleep(0.01)
            server.kill()
            server.start()
            await servers.wait_ready()
            await serve(servers.clients[0])
            await task

        with_servers(server.url, use)
    lost = set(range(1, 200 - CONFIG.buffer // CONFIG.group_size)) & set(buffer.unfinished())
    assert not lost
