"""More than the server can do at a time: what waits, what is refused, and that the run's own wire goes on."""

import asyncio
import tracemalloc
from contextlib import asynccontextmanager

import pytest
from starlette.responses import JSONResponse, Response

from rl.collect.client import PULSE_S, ServerClient
from rl.collect.servers import Servers
from rollout_server import app as app_module
from rollout_server import door, shares
from rollout_server.app import create_app
from rollout_server.engines.scripted import ScriptedEngine
from rollout_server.errors import ApiError
from rollout_server.limits import LARGEST_BODY, MOST_COMPLETIONS
from rollout_server.schema import HASH_HEADER, ErrorBody, GenerateRequest, Sampling
from rollout_server.shares import Share

pytestmark = pytest.mark.anyio

WIRE = {"prompts": [[1, 2]], "sampling": {"max_tokens": 4}}
GUEST = {"model": "scripted", "prompt": "a"}
JSON = {"content-type": "application/json"}


@pytest.fixture
def app(engine, tmp_path):
    return create_app(engine, tmp_path, guests=4)


@pytest.fixture
def wire(client):
    return lambda **fields: client.post("/v1/generate", json=WIRE | fields)


@pytest.fixture
def guest(client):
    return lambda **fields: client.post("/v1/completions", json=GUEST | fields)


@pytest.fixture
def held(engine):
    """Starts requests that the engine holds until `engine.gate` is set, and waits until it has them."""

    @asynccontextmanager
    async def held(*requests, running=None):
        engine.gate.clear()
        before = engine.running
        tasks = [asyncio.create_task(request) for request in requests]
        while engine.running - before < (len(requests) if running is None else running):
            await asyncio.sleep(0)
        yield tasks
        engine.gate.set()
        await asyncio.gather(*tasks)

    return held


def retry_after(answer):
    assert answer.status_code == 429, answer.text
    seconds = int(answer.headers["retry-after"])
    assert 1 <= seconds <= 60
    return seconds


async def test_guests_beyond_their_share_are_told_when_to_come_again(held, guest, wire):
    async with held(*(guest() for _ in range(4))) as waiting:
        for stream in (False, True):
            answer = await guest(stream=stream)
            retry_after(answer)
            error = answer.json()["error"]
            assert error["code"] == "rate_limit_exceeded"
            assert "4 guest requests" in error["message"]
        own = asyncio.create_task(wire())
    assert (await own).status_code == 200
    assert {task.result().status_code for task in waiting} == {200}
    assert (await guest()).status_code == 200


async def test_wire_beyond_its_share_is_told_in_its_own_body(client_of, engine, tmp_path, monkeypatch, held):
    monkeypatch.setattr(app_module, "wire_share", lambda _: Share("wire", requests=2))
    async with client_of(create_app(engine, tmp_path)) as client:
        async with held(*(client.post("/v1/generate", json=WIRE) for _ in range(2))):
            answer = await client.post("/v1/generate", json=WIRE)
            retry_after(answer)
            assert "2 wire requests" in ErrorBody.model_validate(answer.json()).detail
            assert (await client.get("/v1/policies")).status_code == 200
        assert (await client.post("/v1/generate", json=WIRE)).status_code == 200


async def test_run_of_a_large_buffer_and_its_evaluation_fit(held, wire, engine):
    groups, questions, at_a_time = 4096 // 8, 16, 13 * engine.facts.max_num_seqs // 10 // 8
    async with held(*(wire(n=8) for _ in range(groups + questions)), running=at_a_time) as tasks:
        assert engine.running == at_a_time
    assert {task.result().status_code for task in tasks} == {200}


async def test_who_waits_is_sampled_by_the_newest_version_of_the_turn_unless_one_was_named(
    client_of, tmp_path, adapter_bytes, hashed, monkeypatch
):
    monkeypatch.setattr(app_module, "wire_share", lambda _: Share("wire", requests=9, completions=lambda: 1))
    engine = ScriptedEngine()
    await engine.start()
    async with client_of(create_app(engine, tmp_path)) as client:

        async def publish(version):
            body = adapter_bytes(seed=version)
            await client.put(f"/v1/policies/run/{version}", content=body, headers=hashed(body))
            await client.post(f"/v1/policies/run/{version}/accept")

        async def sampled_by(**fields):
            answer = await client.post("/v1/generate", json=WIRE | {"policy": "run"} | fields)
            return answer.json()["completions"][0][0]["policy_version"]

        await publish(1)
        engine.gate.clear()
        asked = [asyncio.create_task(sampled_by(**fields)) for fields in ({}, {}, {"policy_version": 1})]
        while not engine.running:
            await asyncio.sleep(0)
        await publish(2)
        engine.gate.set()
        assert await asyncio.gather(*asked) == [1, 2, 1]


async def test_shorter_completions_come_before_longer_ones_that_wait():
    share = Share("them", requests=9, completions=lambda: 1)
    came, end = [], asyncio.Event()

    async def ask(length):
        async with share.turn(1, length=length):
            came.append(length)
            await end.wait()

    tasks = [asyncio.create_task(ask(length)) for length in (32, 33, 31, 4, 31)]
    await asyncio.sleep(0)
    assert came == [32]
    end.set()
    await asyncio.gather(*tasks)
    assert came == [32, 4, 31, 31, 33]


async def test_completions_are_sampled_in_the_order_in_which_they_were_asked_for():
    share = Share("them", requests=9, completions=lambda: 10)
    came = []

    async def ask(name, completions, until):
        async with share.turn(completions):
            came.append(name)
            await until.wait()

    first, later = asyncio.Event(), asyncio.Event()
    tasks = [asyncio.create_task(ask(n, c, e)) for n, c, e in [(0, 6, first), (1, 4, later)]]
    tasks += [asyncio.create_task(ask(name, completions, later)) for name, completions in [(2, 5), (3, 1), (4, 99)]]
    await asyncio.sleep(0)
    assert (came, share.sampling, share.waiting) == ([0, 1], 10, 105)
    first.set()
    await tasks[0]
    await asyncio.sleep(0)
    assert (came, share.sampling, share.waiting) == ([0, 1, 2, 3], 10, 99)
    later.set()
    await asyncio.gather(*tasks)
    assert (came, share.sampling, share.waiting) == ([0, 1, 2, 3, 4], 0, 0)


async def test_places_of_completions_that_have_ended_are_free_before_their_request_ends():
    share = Share("them", requests=9, completions=lambda: 8)
    came, end = [], asyncio.Event()

    async def ask(completions):
        async with share.turn(completions):
            came.append(completions)
            await end.wait()

    tasks = [asyncio.create_task(ask(completions)) for completions in (8, 4, 1)]
    for ended, expected in ((0, [8]), (3, [8]), (4, [8, 4]), (5, [8, 4, 1])):
        share.ended_early(ended)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert came == expected
    end.set()
    await asyncio.gather(*tasks)


async def test_one_who_leaves_the_line_lets_the_next_one_through():
    share = Share("them", requests=9, completions=lambda: 4)
    held = [asyncio.create_task(wait_in(share, completions)) for completions in (3, 4, 1)]
    await asyncio.sleep(0)
    assert (share.sampling, share.waiting) == (3, 5)
    held[1].cancel()
    await asyncio.wait({held[1]})
    assert (share.sampling, share.waiting) == (4, 0)
    for task in held:
        task.cancel()
    await asyncio.wait(held)
    assert (share.sampling, share.waiting) == (0, 0)


async def wait_in(share, completions, adapter=None):
    async with share.turn(completions, adapter=adapter):
        await asyncio.Event().wait()


async def test_adapters_are_a_few_at_a_time():
    share = Share("them", requests=9, completions=lambda: 10, adapters=lambda: 1)
    held = [asyncio.create_task(wait_in(share, 1, adapter)) for adapter in (7, None, 7, 8, 8, None)]
    await asyncio.sleep(0)
    assert (share.sampling, share.waiting) == (3, 3)
    held[0].cancel()
    await asyncio.wait({held[0]})
    assert (share.sampling, share.waiting) == (2, 3)
    held[2].cancel()
    await asyncio.wait({held[2]})
    assert (share.sampling, share.waiting) == (4, 0)
    for task in held:
        task.cancel()
    await asyncio.wait(held)
    assert (share.sampling, share.waiting) == (0, 0)


async def test_turn_that_does_not_come_is_a_refusal():
    share = Share("them", requests=9, completions=lambda: 1, patience_s=0.01)
    async with share.turn(1):
        with pytest.raises(ApiError) as caught:
            async with share.turn(1):
                pass
    assert (caught.value.status, caught.value.retry_after_s) == (429, 1)
    assert (share.sampling, share.waiting) == (0, 0)


async def test_time_to_come_again_is_what_those_who_are_here_take(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(shares, "monotonic", lambda: now)
    share = Share("them", requests=10)

    def told():
        with pytest.raises(ApiError) as caught, share.enter():
            pass
        return caught.value.retry_after_s

    places = [share.enter() for _ in range(15)]
    for place in places[:10]:
        place.__enter__()
    assert told() == 1
    now += 7.5
    assert told() == 8  # none has ended yet: as long again
    for gone, come in zip(places[:5], places[10:], strict=True):
        gone.__exit__(None, None, None)
        come.__enter__()
    now += 2.5
    assert told() == 20  # five ended in ten seconds, and ten are here
    now += 1000
    assert told() == 60


async def test_client_that_goes_away_frees_its_place(engine, app, client, guest, held):
    async with held(guest(), guest(), guest()):
        leaving = asyncio.create_task(guest())
        while engine.running < 4:
            await asyncio.sleep(0)
        retry_after(await guest())
        leaving.cancel()
        await asyncio.wait({leaving})
        coming = asyncio.create_task(guest())
        while engine.running < 4:
            await asyncio.sleep(0)
    assert (await coming).status_code == 200


async def pieces(*sent):
    for piece in sent:
        yield piece


@pytest.mark.parametrize("path", ["/v1/generate", "/v1/completions", "/v1/chat/completions"])
async def test_body_beyond_the_limit_is_refused_whether_it_says_its_length_or_not(client, path):
    body = b'{"model": "' + b"a" * LARGEST_BODY
    for content in (body, pieces(*[b"a" * 2**20] * 9)):
        answer = await client.post(path, content=content, headers=JSON)
        assert answer.status_code == 413
        assert str(LARGEST_BODY) in answer.text


async def test_bodies_that_are_too_many_bytes_together_are_told_to_come_again(client, engine, held, monkeypatch):
    monkeypatch.setattr(door, "LARGEST_BODY", 2**30)
    for path in ("/v1/generate", "/v1/completions"):
        answer = await client.post(path, content=pieces(b" " * 2**26, b"{}"), headers=JSON)
        retry_after(answer)
        assert (await client.post(path, json={})).status_code in (400, 422)


@pytest.mark.parametrize("path", ["/v1/generate", "/v1/completions", "/v1/policies/run/1"])
async def test_body_that_does_not_come_is_not_waited_for(client, monkeypatch, path, engine):
    monkeypatch.setattr(door, "BODY_LIMIT_S", 0.05)
    monkeypatch.setattr(app_module, "UPLOAD_LIMIT_S", 0.05)

    async def endless():
        yield b"{"
        await asyncio.Event().wait()

    method = "PUT" if "policies" in path else "POST"
    answer = await client.request(method, path, content=endless(), headers=JSON | {HASH_HEADER: "0" * 64})
    assert answer.status_code == 408
    assert "1 bytes of the body came" in answer.text


async def test_uploads_beyond_a_few_at_a_time_are_told_to_come_again(client, adapter_bytes, hashed):
    body, begun, go = adapter_bytes(), asyncio.Semaphore(0), asyncio.Event()

    async def slowly():
        yield body[:100]
        begun.release()
        await go.wait()
        yield body[100:]

    def put(number, content):
        return client.put(f"/v1/policies/run/{number}", content=content, headers=hashed(body))

    uploads = [asyncio.create_task(put(number, slowly())) for number in range(4)]
    for _ in uploads:
        await begun.acquire()
    retry_after(await put(4, body))
    go.set()
    assert [answer.status_code for answer in await asyncio.gather(*uploads)] == [200] * 4
    assert (await put(4, body)).status_code == 200


@pytest.mark.parametrize(("path", "body"), [("/v1/generate", WIRE), ("/v1/completions", GUEST)])
async def test_request_that_takes_for_ever_ends(client, engine, monkeypatch, path, body):
    monkeypatch.setattr(door, "REQUEST_LIMIT_S", 0.05)
    engine.gate.clear()
    answer = await client.post(path, json=body)
    assert answer.status_code == 504
    assert engine.running == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/generate", WIRE | {"prompts": [[1]] * 1024, "n": 5}),
        ("/v1/completions", GUEST | {"prompt": ["a"] * 33, "n": 128}),
    ],
)
async def test_one_request_has_so_many_completions_at_the_most(client, path, body):
    answer = await client.post(path, json=body)
    assert answer.status_code in (400, 422)
    assert str(MOST_COMPLETIONS) in answer.text


def bomb(path, body):
    return pytest.param(path, body, id=f"{path} {body[:24].decode()}")


MANY = 10**5


@pytest.mark.parametrize(
    ("path", "body"),
    [
        bomb("/v1/generate", b'{"prompts": [[' + b'"a",' * MANY + b'1]], "sampling": {"max_tokens": 1}}'),
        bomb("/v1/generate", b'{"prompts": [' + b'"a",' * MANY + b'1], "sampling": {"max_tokens": 1}}'),
        bomb("/v1/generate", b"{" + b",".join(b'"%d":1' % i for i in range(MANY)) + b"}"),
        bomb("/v1/generate", b'{"sampling": {"stop_token_ids": [' + b'"a",' * MANY + b"1]}}"),
        bomb("/v1/generate", b'{"prompts":' + b"[" * MANY + b"]" * MANY + b"}"),
        bomb("/v1/generate", b'{"prompts": [[' + b"9" * MANY + b"]]}"),
        bomb("/v1/generate", b'{"' + b"a" * MANY + b'": 1}'),
        bomb("/v1/completions", b'{"prompt": "a", "model": "' + b"a" * MANY + b'"}'),
        bomb("/v1/completions", b'{"model": "scripted", "prompt": [' + b"{}," * MANY + b"1]}"),
        bomb("/v1/completions", b'{"model": "scripted", "prompt": "a", "stop": [' + b"1," * MANY + b"1]}"),
        bomb("/v1/chat/completions", b'{"model": "scripted", "messages": [' + b"1," * MANY + b"1]}"),
        bomb(
            "/v1/chat/completions",
            b'{"model": "scripted", "messages": [{"role": "user", "content": [' + b"1," * MANY + b"1]}]}",
        ),
    ],
)
async def test_wrong_body_costs_little_more_than_its_bytes(client, path, body):
    tracemalloc.start()
    answer = await client.post(path, content=body, headers=JSON)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.status_code in (400, 404, 422)
    assert len(answer.content) < 2000
    assert peak < 60 * len(body) + 2**22


async def test_client_of_a_full_server_waits_as_long_as_it_says(tmp_path, listening_with, monkeypatch):
    """Whose requests are neither lost nor counted as failures."""
    monkeypatch.setattr(app_module, "wire_share", lambda _: Share("wire", requests=1))
    engine = ScriptedEngine()
    await engine.start()
    app = create_app(engine, tmp_path)
    told = []

    async def watched(scope, receive, send):
        async def sending(message):
            if message["type"] == "http.response.start" and scope["path"] == "/v1/generate":
                told.append((message["status"], dict(message["headers"]).get(b"retry-after")))
                if len([status for status, _ in told if status == 429]) == 3:
                    engine.gate.set()
            await send(message)

        await app(scope, receive, sending)

    engine.gate.clear()
    request = GenerateRequest(prompts=[[1, 2]], n=2, sampling=Sampling(max_tokens=4))
    async with listening_with(watched) as url, Servers([url], away_limit_s=0) as servers:
        answers = await asyncio.gather(*(servers.generate(request) for _ in range(3)))
    assert len(answers) == 3
    assert [status for status, _ in told].count(200) == 3
    refused = [seconds for status, seconds in told if status == 429]
    assert len(refused) >= 3
    assert None not in refused


@pytest.mark.parametrize(("said", "seconds"), [({"retry-after": "0"}, 0), ({}, 1), ({"retry-after": "Sun, 1"}, 1)])
async def test_client_that_is_not_told_when_asks_after_a_second(said, seconds, listening_with, monkeypatch):
    waits, sleep = [], asyncio.sleep

    async def sleep_unless_full(wait_s):
        if wait_s in (PULSE_S, 0.1):  # the other thing that this client does, and what uvicorn does
            return await sleep(wait_s)
        waits.append(wait_s)

    answers = [Response(status_code=429, headers=said), JSONResponse({"versions": []})]

    async def full_at_first(scope, receive, send):
        await answers.pop(0)(scope, receive, send)

    async with listening_with(full_at_first) as url, ServerClient(url) as client:
        monkeypatch.setattr("rl.collect.client.asyncio.sleep", sleep_unless_full)
        assert (await client.policies()).versions == []
    assert waits == [seconds]


async def test_defect_tells_its_number_and_nothing_else(app, client_of, engine, monkeypatch):
    secret = "a detail of the inside"

    async def broken(*_):
        raise RuntimeError(secret)

    monkeypatch.setattr(engine, "generate", broken)
    raised = []

    async def watched(scope, receive, send):
        try:
            await app(scope, receive, send)
        except RuntimeError as error:  # which uvicorn logs
            raised.append(error)

    async with client_of(watched) as client:
        answer = await client.post("/v1/generate", json=WIRE)
    assert answer.status_code == 500
    assert secret not in answer.text
    assert "RuntimeError" not in answer.text
    [number] = [word.strip(".") for word in ErrorBody.model_validate(answer.json()).detail.split()][-1:]
    assert number in raised[0].__notes__[0]
