"""What the client of a server says when it is refused, or not answered."""

import asyncio

import pytest

from rl.collect.client import ServerClient
from rl.core.errors import ServerError, UnavailableError, UnknownVersionError
from rl.launch.server import listen, url_of
from rollout_server.schema import HASH_HEADER, GenerateRequest, Sampling
from tests.collect.scripted import adapter

SAMPLING = Sampling(max_tokens=4)


def test_what_the_server_refused_and_how_to_mend_it(url: str) -> None:
    async def run() -> None:
        async with ServerClient(url) as client:
            await client.wait_ready()
            with pytest.raises(ServerError, match="hash") as error:
                await client._call("PUT", "/v1/policies/p/0", adapter(), {HASH_HEADER: "0" * 64})
            assert error.value.fix
            assert not isinstance(error.value, UnavailableError)
            with pytest.raises(UnknownVersionError, match="404"):
                await client.generate(GenerateRequest(policy="unknown", prompts=[[1]], sampling=SAMPLING))
            answer = await client.generate(GenerateRequest(prompts=[[1], [2]], n=3, sampling=SAMPLING))
            assert [len(siblings) for siblings in answer.completions] == [3, 3]

    asyncio.run(run())


def test_a_server_that_is_not_there_is_an_error_at_once() -> None:
    with listen(0) as listener:
        nobody = url_of(listener)

    async def run() -> None:
        async with ServerClient(nobody) as client:
            with pytest.raises(UnavailableError, match="no answer from the rollout server"):
                await client.health()

    asyncio.run(run())
