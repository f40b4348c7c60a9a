"""What the server promises on the wire, with an engine that does as it is told."""

import asyncio

import numpy as np
import pytest

from rollout_server.app import create_app
from rollout_server.engines.scripted import FACTS, ScriptedEngine
from rollout_server.schema import HASH_HEADER, ErrorBody, GenerateResponse, Health, Policies

pytestmark = pytest.mark.anyio


async def generate(client, **request):
    request = {"prompts": [[1, 2]], "sampling": {"max_tokens": 4}} | request
    return await client.post("/v1/generate", json=request)


async def served(client):
    policies = Policies.model_validate((await client.get("/v1/policies")).json())
    return [(receipt.policy, receipt.policy_version, receipt.accepted) for receipt in policies.versions]


def refusal(answer, status, *words):
    """The answer is this error, and its sentences name these things."""
    error = ErrorBody.model_validate(answer.json())
    assert answer.status_code == status, error
    assert error.fix
    for word in words:
        assert word in f"{error.title}: {error.detail}"
    return error


async def test_base_model_gives_n_completions_of_each_prompt(client):
    answer = await generate(client, prompts=[[1, 2], [3], [4, 5, 6]], n=2)

    response = GenerateResponse.model_validate(answer.json())
    assert [len(group) for group in response.completions] == [2, 2, 2]
    completions = [completion for group in response.completions for completion in group]
    assert len({tuple(completion.token_ids) for completion in completions}) == 6
    for completion in completions:
        assert len(completion.token_ids) == len(completion.logprobs) == 4
        assert completion.finish_reason == "length"
        assert completion.policy_version is None


async def test_completion_that_ends_by_itself_says_stop(client_of, tmp_path):
    engine = ScriptedEngine(lambda prompt, adapter, index: [7, 8, 9])
    await engine.start()
    async with client_of(create_app(engine, tmp_path)) as client:
        for max_tokens, tokens, reason in [(2, [7, 8], "length"), (3, [7, 8, 9], "stop"), (4, [7, 8, 9], "stop")]:
            answer = await generate(client, sampling={"max_tokens": max_tokens})
            [[completion]] = GenerateResponse.model_validate(answer.json()).completions
            assert (completion.token_ids, completion.finish_reason) == (tokens, reason)


async def test_candidate_serves_only_those_who_name_it(client, publish, adapter_bytes, hashed):
    await publish(1)
    body = adapter_bytes(seed=2)
    receipt = (await client.put("/v1/policies/run/2", content=body, headers=hashed(body))).json()
    assert receipt == {
        "policy": "run",
        "policy_version": 2,
        "sha256": hashed(body)[HASH_HEADER],
        "modules": len(FACTS.linear_shapes),
        "accepted": False,
    }

    async def version_of(**request):
        return (await generate(client, policy="run", **request)).json()["completions"][0][0]["policy_version"]

    assert await version_of() == 1
    assert await version_of(policy_version=2) == 2
    assert (await client.post("/v1/policies/run/2/accept")).json() == receipt | {"accepted": True}
    assert await version_of() == 2
    assert await version_of(policy_version=1) == 1


async def test_versions_sample_differently(client, publish):
    await publish(1)
    await publish(2)
    answers = [(await generate(client, policy="run", policy_version=version)).json() for version in (1, 2)]
    tokens = [answer["completions"][0][0]["token_ids"] for answer in answers]
    assert tokens[0] != tokens[1]


async def test_newest_few_of_each_policy_stay(client, publish, engine, tmp_path):
    for version in range(1, 6):
        await publish(version)
    await publish(0, policy="other")

    assert await served(client) == [("other", 0, True), *(("run", version, True) for version in (3, 4, 5))]
    assert {adapter.version for adapter in engine.loaded.values()} == {0, 3, 4, 5}
    assert len(list(tmp_path.iterdir())) == 4
    error = refusal(await generate(client, policy="run", policy_version=1), 404, "version 1", "3, 4, 5")
    assert error.title == "unknown version"


async def test_candidates_that_are_never_accepted_do_not_pile_up(client, publish, adapter_bytes, hashed):
    await publish(1)
    for version in range(2, 8):
        body = adapter_bytes(seed=version)
        await client.put(f"/v1/policies/run/{version}", content=body, headers=hashed(body))
    assert await served(client) == [("run", 1, True), ("run", 6, False), ("run", 7, False)]


async def test_running_request_keeps_its_version(client, publish, engine, tmp_path):
    await publish(1)
    engine.gate.clear()
    running = [asyncio.create_task(generate(client, policy="run")) for _ in range(2)]
    while engine.running < 2:
        await asyncio.sleep(0)
    for version in range(2, 6):
        await publish(version)
    assert ("run", 1, True) not in await served(client)
    refusal(await generate(client, policy="run", policy_version=1), 404)
    assert len(list(tmp_path.iterdir())) == 4

    engine.gate.set()
    for answer in await asyncio.gather(*running):
        assert answer.json()["completions"][0][0]["policy_version"] == 1
    assert {adapter.version for adapter in engine.loaded.values()} == {3, 4, 5}
    assert len(list(tmp_path.iterdir())) == 3


async def test_same_bytes_again_change_nothing(client, publish, adapter_bytes, hashed, engine):
    await publish(1)
    body = adapter_bytes(seed=1)
    again = await client.put("/v1/policies/run/1", content=body, headers=hashed(body))
    assert again.json()["accepted"] is True
    assert (await client.post("/v1/policies/run/1/accept")).json()["accepted"] is True
    assert len(engine.loaded) == 1


async def test_version_is_never_replaced(client, publish, adapter_bytes, hashed):
    await publish(1)
    other = adapter_bytes(seed=9)
    answer = await client.put("/v1/policies/run/1", content=other, headers=hashed(other))
    refusal(answer, 409, "version 1", hashed(other)[HASH_HEADER])


async def test_versions_put_at_the_same_time_are_one(client, adapter_bytes, hashed, engine):
    body = adapter_bytes()
    puts = [client.put("/v1/policies/run/1", content=body, headers=hashed(body)) for _ in range(4)]
    assert [answer.status_code for answer in await asyncio.gather(*puts)] == [200] * 4
    assert len(engine.loaded) == 1


async def test_older_version_is_not_accepted(client, publish, adapter_bytes, hashed):
    await publish(5)
    body = adapter_bytes(seed=4)
    await client.put("/v1/policies/run/4", content=body, headers=hashed(body))
    refusal(await client.post("/v1/policies/run/4/accept"), 409, "version 5", "4 is older")


async def test_deleted_version_is_gone(client, publish, engine, tmp_path):
    await publish(1)
    assert (await client.delete("/v1/policies/run/1")).status_code == 204
    assert await served(client) == []
    assert not engine.loaded
    assert not list(tmp_path.iterdir())
    refusal(await client.delete("/v1/policies/run/1"), 404, "none at all")
    refusal(await client.post("/v1/policies/run/1/accept"), 404, "none at all")


async def test_policy_without_accepted_version(client, adapter_bytes, hashed):
    refusal(await generate(client, policy="run"), 404, "run", "none at all")
    body = adapter_bytes()
    await client.put("/v1/policies/run/3", content=body, headers=hashed(body))
    refusal(await generate(client, policy="run"), 409, "candidates are: versions 3")
    refusal(await generate(client, policy="walk"), 404, "walk", "the policies run")


async def test_base_model_has_no_versions(client):
    refusal(await generate(client, policy_version=1), 422, "policy_version is 1")


def flipped(body):
    middle = len(body) - 8
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


@pytest.mark.parametrize("damage", [flipped, lambda body: body[:-1], lambda body: b""])
async def test_damaged_bytes_are_refused(client, adapter_bytes, hashed, damage):
    body = adapter_bytes()
    answer = await client.put("/v1/policies/run/1", content=damage(body), headers=hashed(body))
    refusal(answer, 400, "hash mismatch", hashed(body)[HASH_HEADER])
    assert await served(client) == []


@pytest.mark.parametrize("damage", [lambda body: body[:-1], lambda body: b"", lambda body: b"\x00" * 64])
async def test_wrong_file_with_its_own_hash_is_refused(client, adapter_bytes, hashed, damage):
    body = damage(adapter_bytes())
    refusal(await client.put("/v1/policies/run/1", content=body, headers=hashed(body)), 400, "unreadable adapter")


async def test_file_without_configuration_is_refused(client, adapter_tensors, hashed):
    from safetensors.numpy import save

    body = save(adapter_tensors())
    refusal(await client.put("/v1/policies/run/1", content=body, headers=hashed(body)), 400, "adapter_config")


async def test_hash_is_required(client, adapter_bytes):
    refusal(await client.put("/v1/policies/run/1", content=adapter_bytes()), 422, HASH_HEADER)


Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"


def without(name):
    return lambda tensors: tensors.pop(name)


def infinite(tensors):
    tensors[f"{Q_PROJ}.lora_B.weight"][3, 1] = np.inf


def transposed(tensors):
    tensors[f"{Q_PROJ}.lora_A.weight"] = tensors[f"{Q_PROJ}.lora_A.weight"].T.copy()


def whole_module_missing(tensors):
    del tensors[f"{Q_PROJ}.lora_A.weight"], tensors[f"{Q_PROJ}.lora_B.weight"]


def elsewhere(tensors):
    for side in "AB":
        name = f"{Q_PROJ}.lora_{side}.weight"
        tensors[name.replace("layers.0", "layers.7")] = tensors[name]


def integers(tensors):
    tensors[f"{Q_PROJ}.lora_B.weight"] = np.zeros((8, 2), np.int32)


def foreign(tensors):
    tensors["base_model.model.lm_head.weight"] = np.zeros((8, 2), np.float32)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (without(f"{Q_PROJ}.lora_B.weight"), "lora_A only"),
        (without(f"{Q_PROJ}.lora_A.weight"), "lora_B only"),
        (whole_module_missing, "1 layers that target_modules names have no matrices"),
        (infinite, "not finite"),
        (transposed, "has shape [4, 2]"),
        (elsewhere, "no linear layer model.layers.7"),
        (integers, "is I32"),
        (foreign, "lm_head.weight is not"),
    ],
)
async def test_incomplete_adapter_is_refused(client, adapter_tensors, adapter_bytes, hashed, damage, says):
    tensors = adapter_tensors()
    damage(tensors)
    body = adapter_bytes(tensors=tensors)
    answer = await client.put("/v1/policies/run/1", content=body, headers=hashed(body))
    refusal(answer, 422, "adapter does not fit", says)
    assert await served(client) == []


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"r": 32}, "rank is 32"),
        ({"r": 4}, "rank 4 on this model needs"),
        ({"r": 0}, "r: Input should be greater"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"rank_pattern": {"q_proj": 1}}, "rank_pattern"),
    ],
)
async def test_configuration_that_cannot_be_served_is_refused(client, adapter_bytes, hashed, config, says):
    body = adapter_bytes(**config)
    refusal(await client.put("/v1/policies/run/1", content=body, headers=hashed(body)), 422, says)


async def test_body_larger_than_any_adapter_is_refused(client, hashed):
    body = bytes(2**21)
    refusal(await client.put("/v1/policies/run/1", content=body, headers=hashed(body)), 413, "larger than")


async def test_client_that_leaves_in_an_upload_is_no_defect(app):
    headers = [(HASH_HEADER.lower().encode(), b"0" * 64)]
    scope = {"type": "http", "method": "PUT", "path": "/v1/policies/run/1", "headers": headers, "query_string": b""}
    messages = [{"type": "http.disconnect"}, {"type": "http.request", "body": b"half", "more_body": True}]
    sent = []

    async def receive():
        return messages.pop()

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    assert sent[0]["status"] == 499


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"prompts": [[1], ["a"]]}, "prompts.1.0"),
        ({"prompts": []}, "prompts"),
        ({"prompts": [[1], []]}, "prompts.1 is empty"),
        ({"prompts": [[1], [2, FACTS.vocab_size]]}, "prompts.1 holds a token outside 0 to 255"),
        ({"prompts": [[-1]]}, "prompts.0 holds a token outside"),
        ({"prompts": [[1] * 253]}, "prompts.0 has 253 tokens"),
        ({"sampling": {"max_tokens": 0}}, "sampling.max_tokens"),
        ({"sampling": {"max_tokens": 4, "top_p": 0.9}}, "sampling.top_p"),
        ({"sampling": {"max_tokens": 4, "temperature": 0.001}}, "temperature is 0.001"),
        ({"sampling": {"max_tokens": 4, "stop_token_ids": [999]}}, "stop_token_ids holds a token outside"),
        ({"sampling": {"max_tokens": 4, "temperature": 0}, "n": 2}, "n is 2 at temperature 0"),
        ({"policy": "../etc"}, "policy"),
        ({"n": 0}, "n"),
    ],
)
async def test_wrong_request_says_which_field(client, request_, says):
    refusal(await generate(client, **request_), 422, "invalid request", says)


async def test_longest_request_is_served(client):
    assert (await generate(client, prompts=[[1] * 252])).status_code == 200


async def test_body_that_is_no_json(client):
    answer = await client.post("/v1/generate", content=b"{", headers={"content-type": "application/json"})
    refusal(answer, 422, "JSON")


async def test_unknown_path(client):
    refusal(await client.get("/v1/nowhere"), 404, "no such path", "/v1/nowhere")


async def test_wrong_method(client):
    refusal(await client.get("/v1/generate"), 405, "no such method", "GET /v1/generate")


async def test_loading_server_says_so(client_of, tmp_path):
    engine = ScriptedEngine()
    async with client_of(create_app(engine, tmp_path)) as client:
        health, ready = await client.get("/health"), await client.get("/ready")
        assert (health.status_code, ready.status_code) == (200, 503)
        assert Health.model_validate(ready.json()).status == "loading"
        refusal(await generate(client), 503, "loading")

        await engine.start()
        ready = await client.get("/ready")
        assert (ready.status_code, Health.model_validate(ready.json()).status) == (200, "ready")
        assert (await generate(client)).status_code == 200


async def test_engine_that_dies_fails_all_that_wait(client, publish, engine):
    await publish(1)
    engine.gate.clear()
    running = [asyncio.create_task(generate(client, policy="run")) for _ in range(3)]
    while engine.running < 3:
        await asyncio.sleep(0)
    engine.fail("out of memory")
    for answer in await asyncio.gather(*running):
        refusal(answer, 503, "engine is gone", "out of memory")
    refusal(await generate(client), 503, "out of memory")
    health = Health.model_validate((await client.get("/health")).json())
    assert (health.status, health.detail) == ("failed", "out of memory")
