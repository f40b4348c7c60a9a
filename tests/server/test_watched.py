"""What the server tells of itself: /health and /ready are true, /metrics counts what was done and what was refused."""

import asyncio
import os

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rl.collect.client import ServerClient
from rollout_server import __main__ as server
from rollout_server.app import create_app
from rollout_server.engines import STILL_S
from rollout_server.engines.scripted import ScriptedEngine
from rollout_server.schema import GenerateRequest, Health, Sampling

WIRE = {"prompts": [[1, 2], [3]], "n": 2, "sampling": {"max_tokens": 4}}
GUEST = {"model": "scripted", "prompt": ["abc", "d"], "max_tokens": 4}


@pytest.fixture
def health(client):
    """The statuses of /health and /ready, and what they say."""

    async def health():
        answers = [await client.get(path) for path in ("/health", "/ready")]
        assert answers[0].json() == answers[1].json()
        return [answer.status_code for answer in answers], Health.model_validate(answers[0].json())

    return health


@pytest.fixture
def measured(client):
    """The values of our metrics by name and labels."""

    async def measured():
        text = (await client.get("/metrics")).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {
            (sample.name.removeprefix("tally_server_"), *sample.labels.values()): sample.value
            for sample in samples
            if sample.name.startswith("tally_server_")
        }

    return measured


@pytest.fixture
def counted(measured):
    """Counts anew: what has been added since it was made."""

    async def start():
        before = await measured()

        async def since(*key):
            return (await measured()).get(key, 0) - before.get(key, 0)

        return since

    return start


@pytest.mark.anyio
async def test_health_and_ready_follow_the_engine(client_of, tmp_path):
    engine = ScriptedEngine()
    async with client_of(create_app(engine, tmp_path, served_name="a name")) as client:

        async def statuses():
            answers = [await client.get(path) for path in ("/health", "/ready")]
            said = Health.model_validate(answers[0].json())
            return *(answer.status_code for answer in answers), said.status, said.model, said.max_model_len

        assert await statuses() == (200, 503, "loading", "a name", None)
        await engine.start()
        assert await statuses() == (200, 200, "ready", "a name", 256)
        engine.fail("out of memory")
        assert await statuses() == (503, 503, "failed", "a name", None)


@pytest.mark.anyio
async def test_engine_that_takes_no_step_is_not_healthy_until_it_does(engine, health, measured):
    engine.silent_s = STILL_S + 1
    codes, said = await health()
    assert (codes, said.status) == ([503, 503], "failed")
    assert f"{STILL_S + 1:.0f} s" in said.detail
    assert (await measured())["ready",] == 0
    engine.silent_s = STILL_S
    assert (await health())[0] == [200, 200]
    assert (await measured())["ready",] == 1


@pytest.mark.anyio
async def test_clients_are_told_that_the_engine_has_failed(app, engine, listening_with):
    engine.fail("out of memory")
    async with listening_with(app) as url, ServerClient(url) as own:
        assert (await own.health()).detail == "out of memory"


@pytest.mark.anyio
async def test_what_was_sampled_is_counted_by_whose_it_is(client, counted):
    since = await counted()
    assert (await client.post("/v1/generate", json=WIRE)).status_code == 200
    for stream in (False, True):
        assert (await client.post("/v1/completions", json=GUEST | {"stream": stream})).status_code == 200
    for by, completions, prompt_tokens, completion_tokens in [("wire", 4, 3, 16), ("guest", 4, 8, 16)]:
        assert await since("completions_total", by) == completions
        assert await since("prompt_tokens_total", by) == prompt_tokens
        assert await since("completion_tokens_total", by) == completion_tokens
    assert await since("requests_total", "/v1/generate", "200") == 1
    assert await since("requests_total", "/v1/completions", "200") == 2


@pytest.mark.anyio
async def test_requests_are_counted_by_their_path_as_declared_and_refusals_by_their_reason(client, counted):
    since = await counted()
    for number in range(3):
        assert (await client.delete(f"/v1/policies/p{number}/7")).status_code == 404
        assert (await client.get(f"/nowhere/{number}")).status_code == 404
    assert (await client.post("/v1/generate", json={})).status_code == 422
    assert await since("requests_total", "/v1/policies/{policy}/{version}", "404") == 3
    assert await since("requests_total", "unknown", "404") == 3
    assert await since("refused_total", "unknown version") == 3
    assert await since("refused_total", "no such path") == 3
    assert await since("refused_total", "invalid request") == 1


@pytest.mark.anyio
async def test_defect_is_counted(engine, client_of, app, counted, monkeypatch):
    async def broken(*_):
        raise RuntimeError

    since = await counted()
    monkeypatch.setattr(engine, "generate", broken)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        assert (await client.post("/v1/generate", json=WIRE)).status_code == 500
    assert await since("requests_total", "/v1/generate", "500") == 1
    assert await since("refused_total", "defect of the server") == 1


@pytest.mark.anyio
async def test_what_is_under_way_shows(client, engine, publish, measured, counted):
    since = await counted()
    await publish(1)
    await publish(2)
    assert await since("adapter_load_seconds_count") == 2
    engine.gate.clear()
    tasks = [asyncio.create_task(client.post("/v1/generate", json=WIRE)) for _ in range(3)]
    tasks += [asyncio.create_task(client.post("/v1/completions", json=GUEST | {"n": 50})) for _ in range(2)]
    while (values := await measured())["completions_waiting", "guest"] != 100:
        await asyncio.sleep(0)
    assert values["adapters",] == 2
    assert (values["requests_here", "wire"], values["requests_here", "guest"]) == (3, 2)
    assert (values["completions_sampling", "wire"], values["completions_sampling", "guest"]) == (12, 100)
    assert values["completions_waiting", "wire"] == 0
    engine.gate.set()
    assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}
    values = await measured()
    assert {values[name, by] for name in ("requests_here", "completions_sampling") for by in ("wire", "guest")} == {0}


@pytest.mark.anyio
async def test_pulse_beats_while_the_engine_does(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_BEAT_SECONDS", 0)
    engine.silent_s = STILL_S + 1
    beating = asyncio.create_task(server._beat(tmp_path / "pulse", engine))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not (tmp_path / "pulse").exists()
    engine.silent_s = 0.0
    while not (tmp_path / "pulse").exists():
        await asyncio.sleep(0)
    beating.cancel()


@pytest.fixture
async def vllm(engine_of):
    """vLLM in its process, and that."""
    from rl.problems.starter import STARTER_MODEL
    from rollout_server.engines.vllm import VllmEngine
    from rollout_server.engines.vllm_load import Options

    engine = VllmEngine(Options(model=str(STARTER_MODEL), cpu_cache=0.1))
    assert engine.silent_s == 0
    await engine.start()
    yield engine, engine_of(os.getpid())
    engine.close()
    await engine.join()


@pytest.mark.vllm
@pytest.mark.anyio
async def test_silence_of_vllm_is_that_of_its_process(vllm):
    engine, process = vllm
    request = GenerateRequest(prompts=[[1, 2]], n=4, sampling=Sampling(max_tokens=200))
    await engine.generate(request, None)
    assert engine.silent_s == 0
    process.suspend()
    sampling = asyncio.create_task(engine.generate(request, None))
    silences = [await asyncio.sleep(0.01, engine.silent_s) for _ in range(4)]
    sampling.cancel()  # the client has waited long enough
    silences += [await asyncio.sleep(0.01, engine.silent_s) for _ in range(4)]
    assert silences[1:] == sorted(set(silences[1:])), "ever longer"
    process.resume()
    while engine.silent_s:
        await asyncio.sleep(0.001)
    await engine.generate(request, None)
