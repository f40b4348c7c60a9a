"""Adapters that were made to do harm, against real vLLM: its engine outlives all of them."""

import hashlib
import math

import numpy as np
import pytest

from rl.problems.starter import STARTER_MODEL
from rollout_server.schema import HASH_HEADER, GenerateResponse
from tests.server.hostile import Corpus

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def corpus():
    from rollout_server.engines.vllm_load import Options, _linear_shapes

    shapes = _linear_shapes(Options(model=str(STARTER_MODEL)))
    shapes = {module: shape for module, shape in shapes.items() if "layers" in module}
    return Corpus(shapes)


@pytest.fixture(scope="module")
def client(ready_server):
    with ready_server("--model", str(STARTER_MODEL), "--cpu-cache", "0.1") as (_, client):
        yield client


@pytest.fixture(scope="module")
def put(client):
    def put(number, body):
        headers = {HASH_HEADER: hashlib.sha256(body).hexdigest()}
        return client.put(f"/v1/policies/run/{number}", content=body, headers=headers)

    return put


@pytest.fixture(scope="module")
def sample(client):
    def sample(**policy):
        request = {"prompts": [[5, 6, 7]] * 4, "n": 8, "sampling": {"max_tokens": 20}} | policy
        answer = client.post("/v1/generate", json=request)
        assert answer.status_code == 200, answer.text
        completions = GenerateResponse.model_validate(answer.json()).completions
        return [logprob for siblings in completions for one in siblings for logprob in one.logprobs]

    return sample


def test_all_of_them_are_refused_and_the_engine_goes_on(client, put, sample, corpus):
    for number, (name, body) in enumerate(corpus.refused()):
        answer = put(number, body)
        assert answer.status_code in (400, 413, 422), (name, answer.text)
        assert client.get("/ready").status_code == 200, name
    assert client.get("/v1/policies").json() == {"versions": []}
    assert all(map(math.isfinite, sample()))


@pytest.mark.parametrize(
    ("number", "a", "b", "alpha"),
    [(1, 9e5, 1e-3, 2), (2, 1e-3, 9e5, 2), (3, 900, 900, 2), (4, 1, 1, 1e6), (5, 0, 0, 1e6)],
)
def test_largest_adapter_that_is_taken_makes_no_nan(put, sample, corpus, number, a, b, alpha):
    """Norms of both matrices, and a scale, as far as may be: it says nonsense, and harms nobody else."""
    draw = np.random.default_rng(0)
    tensors = {}
    for name, (dtype, shape, _) in corpus.tensors.items():
        values = draw.normal(size=shape)
        norm = a if "lora_A" in name else b
        tensors[name] = (dtype, shape, (norm * values / np.linalg.norm(values)).astype(np.float32).tobytes())
    answer = put(number, corpus.file(tensors, lora_alpha=alpha))
    assert answer.status_code == 200, answer.text
    for _ in range(3):
        assert all(map(math.isfinite, sample(policy="run", policy_version=number)))
        assert all(map(math.isfinite, sample()))
