"""Several policies on one server: what a run is given was sampled by its own adapter, whatever the others do."""

import asyncio
import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout_server.app import create_app
from rollout_server.engines import Adapter
from rollout_server.engines.scripted import ScriptedEngine, hashed
from rollout_server.schema import HASH_HEADER, GenerateRequest, GenerateResponse, Sampling
from tests.collect.scripted import adapter

POLICIES = 4
KEEP = 2
"""Versions of a policy that stay served: older ones are dropped while requests by them are in flight."""
SIBLINGS = 3

Asked = tuple[int, list[int], bool]
"""(which policy, prompt, whether the newest version is named in the request)"""


class Run:
    """A policy that is published and sampled, as a run does it."""

    def __init__(self, http: httpx.AsyncClient, number: int) -> None:
        self._http, self._number = http, number
        self.policy = f"run-{number}"
        self.sha256: list[str] = []
        """Of each version."""

    async def publish(self) -> None:
        version = len(self.sha256)
        body = adapter(self._number + version / 1000)
        sha256 = hashlib.sha256(body).hexdigest()
        path = f"/v1/policies/{self.policy}/{version}"
        answer = await self._http.put(path, content=body, headers={HASH_HEADER: sha256})
        assert answer.is_success, answer.text
        self.sha256.append(sha256)
        assert (await self._http.post(f"{path}/accept")).is_success

    async def sample(self, prompt: list[int], named: bool) -> None:
        """Asks for the version that is the newest now, and checks whose answer it is."""
        version = len(self.sha256) - 1
        request = GenerateRequest(
            policy=self.policy,
            policy_version=version if named else None,
            prompts=[prompt],
            n=SIBLINGS,
            sampling=Sampling(temperature=1.0, max_tokens=8),
        )
        answer = await self._http.post("/v1/generate", json=request.model_dump())
        assert answer.is_success, answer.text
        given = GenerateResponse.model_validate_json(answer.content)
        (siblings,) = given.completions
        assert [completion.policy_version for completion in siblings] == [version] * SIBLINGS
        assert given.adapter_sha256 == self.sha256[version]
        own = Adapter(policy=self.policy, version=version, id=0, sha256=self.sha256[version], path=Path())
        assert [completion.token_ids for completion in siblings] == [hashed(prompt, own, i) for i in range(SIBLINGS)]


async def play(rounds: list[tuple[list[Asked], list[int]]], folder: Path) -> None:
    engine = ScriptedEngine()
    await engine.start()
    transport = httpx.ASGITransport(create_app(engine, folder, keep=KEEP))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as http:
        runs = [Run(http, number) for number in range(POLICIES)]
        await asyncio.gather(*(run.publish() for run in runs))
        for asked, published in rounds:
            engine.gate.clear()
            in_flight = [asyncio.create_task(runs[number].sample(prompt, named)) for number, prompt, named in asked]
            while engine.running < len(in_flight) and not any(task.done() for task in in_flight):
                await asyncio.sleep(0)
            for number in published:
                await runs[number].publish()
            engine.gate.set()
            await asyncio.gather(*in_flight)


asked = st.tuples(st.integers(0, POLICIES - 1), st.lists(st.integers(1, 200), min_size=1, max_size=3), st.booleans())
rounds = st.tuples(st.lists(asked, min_size=1, max_size=12), st.lists(st.integers(0, POLICIES - 1), max_size=8))


@settings(max_examples=60, deadline=None)
@given(st.lists(rounds, min_size=1, max_size=4))
def test_no_policy_is_given_what_another_sampled(rounds: list[tuple[list[Asked], list[int]]]) -> None:
    """All requests of a round are in flight together, while new versions are published and old ones dropped."""
    with TemporaryDirectory() as folder:
        asyncio.run(play(rounds, Path(folder)))
