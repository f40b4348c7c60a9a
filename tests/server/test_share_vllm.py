"""The run's own requests against vLLM whose every place guests would take."""

from concurrent.futures import ThreadPoolExecutor
from random import Random
from threading import Event

import pytest

from rl.problems.starter import STARTER_MODEL
from tests.server.hostile import Corpus

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

VERSIONS = (1, 2, 3)


@pytest.fixture(scope="module")
def client(ready_server, hashed):
    """Of a server of two adapters at a time, which serves three versions."""
    from rollout_server.engines.vllm_load import Options, _linear_shapes

    shapes = _linear_shapes(Options(model=str(STARTER_MODEL)))
    body = Corpus({name: shape for name, shape in shapes.items() if "layers" in name}).sound()
    options = ["--model", str(STARTER_MODEL), "--cpu-cache", "0.1", "--max-loras", "2"]
    with ready_server(*options) as (_, client):
        for version in VERSIONS:
            answer = client.put(f"/v1/policies/run/{version}", content=body, headers=hashed(body))
            assert answer.status_code == 200, answer.text
        yield client


def test_guests_on_other_adapters_do_not_starve_the_run(client):
    """vLLM samples by two adapters at a time, and goes on with those that it has while somebody asks for them."""
    done, busy = Event(), {version: Event() for version in (1, 2)}
    statuses = []

    def guest(version, number):
        draw = Random(number)  # of one length they would end together
        while not done.is_set():
            body = {"model": f"run@{version}", "prompt": "1+1=", "n": 2, "max_tokens": draw.randrange(20, 120)}
            statuses.append(client.post("/v1/completions", json=body | {"ignore_eos": True}).status_code)
            busy[version].set()

    with ThreadPoolExecutor(32) as pool:
        guests = [pool.submit(guest, version, number) for version in (1, 2) for number in range(16)]
        try:
            for event in busy.values():
                assert event.wait(200)
            for _ in range(5):
                request = {"policy": "run", "policy_version": 3, "prompts": [[5, 6, 7]] * 4, "n": 8}
                answer = client.post("/v1/generate", json=request | {"sampling": {"max_tokens": 30}})
                assert answer.status_code == 200
        finally:
            done.set()
    assert [guest.result() for guest in guests] == [None] * 32
    assert set(statuses) == {200}
