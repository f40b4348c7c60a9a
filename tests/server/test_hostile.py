"""Adapters that were made to do harm: each is refused, leaves nothing behind, and the server goes on."""

import hashlib

import pytest

from rollout_server.engines.scripted import FACTS
from rollout_server.schema import HASH_HEADER, ErrorBody
from tests.server.hostile import Corpus

CORPUS = Corpus(FACTS.linear_shapes)
REFUSED = dict(CORPUS.refused())
PATH = "/v1/policies/run/1"


def headers(body):
    return {HASH_HEADER: hashlib.sha256(body).hexdigest()}


@pytest.mark.anyio
@pytest.mark.parametrize("name", REFUSED)
async def test_body_is_refused_and_the_server_goes_on(client, engine, tmp_path, name):
    body = REFUSED[name]
    answer = await client.put(PATH, content=body, headers=headers(body))
    assert answer.status_code in (400, 413, 422), answer.text
    assert ErrorBody.model_validate(answer.json()).fix
    assert len(answer.text) < 2000
    assert (await client.get("/v1/policies")).json() == {"versions": []}
    assert not engine.loaded
    assert not list(tmp_path.iterdir())
    sound = CORPUS.sound()
    assert (await client.put(PATH, content=sound, headers=headers(sound))).status_code == 200
    request = {"policy": "run", "policy_version": 1, "prompts": [[1]], "sampling": {"max_tokens": 4}}
    assert (await client.post("/v1/generate", json=request)).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize(
    "policy",
    [
        "..",
        ".",
        "%2e%2e",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e%2f%2e%2e%2fx",
        "a%2fb",
        "a%5cb",
        "a%00b",
        "-rf",
        ".hidden",
        "a%0ab",
        "%F0%9F%98%80",
        "%D1%80un",
        "a" * 101,
        "a" * 10_000,
        "%ff",
        "run;rm",
        "$(id)",
        "*",
        "run%20",
        "{policy}",
    ],
)
async def test_policy_cannot_be_called_so(client, tmp_path, policy):
    body = CORPUS.sound()
    for method, path in [("PUT", ""), ("POST", "/accept"), ("DELETE", "")]:
        answer = await client.request(method, f"/v1/policies/{policy}/1{path}", content=body, headers=headers(body))
        assert answer.status_code in (404, 405, 422), answer.text
        assert ErrorBody.model_validate(answer.json())
    assert not list(tmp_path.iterdir())


@pytest.mark.anyio
@pytest.mark.parametrize(
    "version", ["-1", "1.5", "1e3", "0x1", "½", "", "99999999999999999999", "9" * 5000, "NaN", "１"]
)
async def test_version_is_a_number(client, version):
    body = CORPUS.sound()
    answer = await client.put(f"/v1/policies/run/{version}", content=body, headers=headers(body))
    assert answer.status_code in (404, 422) or (version, answer.json()["policy_version"]) == ("１", 1)


@pytest.mark.anyio
@pytest.mark.parametrize("sent", ["", "0" * 63, "g" * 64, "0" * 10_000, "../" * 20, "٠" * 32])
async def test_hash_is_one(client, sent):
    answer = await client.put(PATH, content=CORPUS.sound(), headers={HASH_HEADER.encode(): sent.encode()})
    assert answer.status_code == 422
    assert HASH_HEADER.lower() in answer.text.lower()


@pytest.mark.anyio
async def test_engine_reads_what_was_checked_and_no_more(client, engine):
    body = CORPUS.file(
        CORPUS.tensors,
        base_model_name_or_path="../../etc",
        auto_mapping={"parent_library": "os"},
        vllm_lora_scaling_factor=1e9,
        runtime_config={"ephemeral": True},
        target_modules=["q_proj", "up_proj", "../../x"],
    )
    assert (await client.put(PATH, content=body, headers=headers(body))).status_code == 200
    [adapter] = engine.loaded.values()
    assert (adapter.path / "adapter_model.safetensors").read_bytes() == body
    text = (adapter.path / "adapter_config.json").read_text()
    assert not any(word in text for word in ("etc", "auto_mapping", "vllm", "ephemeral"))


@pytest.mark.anyio
async def test_adapter_as_large_as_a_trained_one_can_be_is_taken(client):
    tensors = {name: (d, s, _ones(s).tobytes()) for name, (d, s, _) in CORPUS.tensors.items()}
    body = CORPUS.file(tensors, lora_alpha=512)
    assert (await client.put(PATH, content=body, headers=headers(body))).status_code == 200


def _ones(shape):
    import numpy as np

    return np.ones(shape, np.float32)


@pytest.mark.anyio
async def test_policies_that_nobody_asks_for_make_room(client, publish, engine, tmp_path):
    await publish(1, policy="asked-for")
    for number in range(40):
        await publish(1, policy=f"run-{number}")
        answer = await client.post(
            "/v1/generate", json={"policy": "asked-for", "prompts": [[1]], "sampling": {"max_tokens": 1}}
        )
        assert answer.status_code == 200
    served = {receipt["policy"] for receipt in (await client.get("/v1/policies")).json()["versions"]}
    assert served == {"asked-for", *(f"run-{number}" for number in range(9, 40))}
    assert len(engine.loaded) == len(list(tmp_path.iterdir())) == len(served) == 32


@pytest.mark.anyio
async def test_version_that_is_deleted_while_its_idle_policy_makes_room(client, publish, engine, monkeypatch):
    for version in (1, 2):
        await publish(version, policy="idle")
    for number in range(31):
        await publish(1, policy=f"run-{number}")
    remove, deleted = engine.remove_adapter, []

    async def meanwhile(adapter):
        await remove(adapter)
        if adapter.version == 1:
            deleted.append((await client.delete("/v1/policies/idle/2")).status_code)

    monkeypatch.setattr(engine, "remove_adapter", meanwhile)
    await publish(1, policy="one-more")
    assert deleted == [204]
    served = {receipt["policy"] for receipt in (await client.get("/v1/policies")).json()["versions"]}
    assert served == {"one-more", *(f"run-{number}" for number in range(31))}
    assert len(engine.loaded) == 32


@pytest.mark.anyio
async def test_full_disk_is_told(client, engine, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rollout_server.adapter_file.AdapterFile.write", full)
    body = CORPUS.sound()
    answer = await client.put(PATH, content=body, headers=headers(body))
    assert (answer.status_code, engine.loaded) == (507, {})
    assert "No space left" in answer.json()["detail"]
