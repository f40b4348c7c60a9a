"""Several policies on one server: what a run is given was sampled by its own adapter, whatever the others do."""

import asyncio
import hashlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.collect.client import ServerClient
from rollout_server.engines import Adapter
from rollout_server.engines.scripted import hashed
from rollout_server.schema import GenerateRequest, Sampling
from tests.collect.scripted import adapter, scripted_servers

POLICIES = 4
NAMES = count()
"""Policies of one example are known to no other."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with scripted_servers(1, tmp_path_factory.mktemp("logs")) as (server,):
        yield server.url


class Run:
    """A policy that is published and sampled, as a run does it."""

    def __init__(self, client: ServerClient) -> None:
        self._client = client
        self.policy = f"run-{next(NAMES)}"
        self.sha256: dict[int, str] = {}

    async def publish(self) -> None:
        version = len(self.sha256)
        body = adapter(float(int(self.policy.removeprefix("run-")) + version / 1000))
        receipt = await self._client.put_adapter(self.policy, version, body)
        self.sha256[version] = hashlib.sha256(body).hexdigest()
        assert receipt.sha256 == self.sha256[version]
        await self._client.accept(self.policy, version)

    async def sample(self, prompt: list[int], back: int | None) -> None:
        """Asks for the newest version, or for one some way back; checks whose answer it is."""
        version = None if back is None else max(0, max(self.sha256) - back)
        request = GenerateRequest(
            policy=self.policy,
            policy_version=version,
            prompts=[prompt],
            n=3,
            sampling=Sampling(temperature=1.0, max_tokens=8),
        )
        answer = await self._client.generate(request)
        (siblings,) = answer.completions
        (used,) = {completion.policy_version for completion in siblings}
        assert used is not None
        assert version in (None, used)
        assert answer.adapter_sha256 == self.sha256[used]
        sampler = Adapter(policy=self.policy, version=used, id=0, sha256=self.sha256[used], path=Path())
        assert [c.token_ids for c in siblings] == [hashed(prompt, sampler, index) for index in range(3)]


prompts = st.lists(st.integers(1, 200), min_size=1, max_size=4)
acts = st.tuples(st.integers(0, POLICIES - 1), st.one_of(st.none(), st.tuples(prompts, st.sampled_from([None, 0, 1]))))


@settings(max_examples=60, deadline=None)
@given(rounds=st.lists(st.lists(acts, min_size=1, max_size=12), min_size=1, max_size=4))
def test_no_policy_is_given_what_another_sampled(address: str, rounds: list[list[tuple[int, object]]]) -> None:
    """Each round's requests are in flight together; a policy is published between its own requests, as by a learner."""

    async def act(run: Run, own: list[tuple[list[int], int | None] | None]) -> None:
        for asked in own:
            await (run.publish() if asked is None else run.sample(*asked))

    async def play() -> None:
        async with ServerClient(address) as client:
            await client.wait_ready()
            runs = [Run(client) for _ in range(POLICIES)]
            await asyncio.gather(*(run.publish() for run in runs))
            for acts in rounds:
                await asyncio.gather(
                    *(act(run, [asked for i, asked in acts if i == number]) for number, run in enumerate(runs))
                )
            for run in runs:
                for version in run.sha256:
                    await client.remove(run.policy, version)

    asyncio.run(play())
