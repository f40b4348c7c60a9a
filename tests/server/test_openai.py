"""OpenAI's API by OpenAI's own client, with an engine that does as it is told: its tokens are characters."""

import asyncio
import json
import threading
from dataclasses import replace

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rollout_server.app import create_app
from rollout_server.engines import scripted
from rollout_server.engines.scripted import ScriptedEngine, logprob
from rollout_server.openai_schema import LONGEST_TEXT

pytestmark = pytest.mark.anyio

BASE = "scripted"
CHAT = [{"role": "user", "content": "hi"}]


def says(prompt, adapter, index):
    """A completion that names what it is from."""
    return list(f"{bytes(prompt).decode()}|{adapter.version if adapter else 'base'}|{index}".encode())


@pytest.fixture
async def engine():
    engine = ScriptedEngine(says)
    await engine.start()
    return engine


@pytest.fixture
def ai(client):
    """OpenAI's client, that asks once; client is what it speaks HTTP with."""
    return openai.AsyncOpenAI(base_url="http://server/v1", api_key="none", http_client=client, max_retries=0)


async def test_models_are_the_base_and_every_version(ai, publish):
    assert [card.id async for card in ai.models.list()] == [BASE]
    await publish(1)
    await publish(2)
    await publish(0, policy="other")
    await publish(3, accept=False)
    assert [card.id async for card in ai.models.list()] == [
        BASE, "other@0", "run@1", "run@2", "run@3", "other", "run",
    ]  # fmt: skip
    assert (await ai.models.retrieve("run")).root == "run@2"
    assert (await ai.models.retrieve("run@1")).parent == BASE


async def test_served_name_may_be_that_of_the_hub(client_of, engine, tmp_path):
    async with client_of(create_app(engine, tmp_path, served_name="Org/Model-1B")) as client:
        ai = openai.AsyncOpenAI(base_url="http://server/v1", api_key="none", http_client=client)
        assert (await ai.models.retrieve("Org/Model-1B")).id == "Org/Model-1B"
        assert (await ai.completions.create(model="Org/Model-1B", prompt="a")).choices[0].text == "a|base|0"


async def test_model_names_the_policy_and_its_version(ai, publish):
    await publish(1)
    await publish(2)
    await publish(3, accept=False)
    for model, version in [(BASE, "base"), ("run", 2), ("run@1", 1), ("run@3", 3)]:
        answer = await ai.completions.create(model=model, prompt="a")
        assert answer.choices[0].text == f"a|{version}|0"
        assert answer.model == (BASE if model == BASE else f"run@{version}")


@pytest.mark.parametrize("model", ["walk", "run@2", "run@", "run@x", "run@-1", "@1", "", "Scripted"])
async def test_unknown_model_is_a_404_that_names_those_there_are(ai, publish, model):
    await publish(1)
    with pytest.raises(openai.NotFoundError) as caught:
        await ai.completions.create(model=model, prompt="a")
    assert caught.value.code == "model_not_found"
    assert "scripted, run@1, run" in caught.value.message


async def test_policy_without_accepted_version_has_no_name_of_its_own(ai, publish):
    await publish(1, accept=False)
    with pytest.raises(openai.NotFoundError, match="run@1"):
        await ai.completions.create(model="run", prompt="a")


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("ab", ["ab"]),
        (["ab", "c"], ["ab", "c"]),
        ([97, 98], ["ab"]),
        ([[97, 98], [99]], ["ab", "c"]),
    ],
)
async def test_prompts_of_texts_and_of_tokens(ai, prompt, texts):
    answer = await ai.completions.create(model=BASE, prompt=prompt, n=2)
    expected = [f"{text}|base|{index}" for text in texts for index in range(2)]
    assert [choice.text for choice in answer.choices] == expected
    assert [choice.index for choice in answer.choices] == list(range(len(expected)))
    assert all(choice.finish_reason == "stop" for choice in answer.choices)
    assert answer.usage.prompt_tokens == sum(map(len, texts))
    assert answer.usage.completion_tokens == sum(map(len, expected))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_completion_has_sixteen_tokens_unless_said_and_a_chat_what_there_is_room_for(client_of, tmp_path):
    engine = ScriptedEngine(lambda *_: [97] * 1000)
    await engine.start()
    async with client_of(create_app(engine, tmp_path)) as client:
        ai = openai.AsyncOpenAI(base_url="http://server/v1", api_key="none", http_client=client)
        completion = await ai.completions.create(model=BASE, prompt="abc")
        chat = await ai.chat.completions.create(model=BASE, messages=CHAT)
        limited = await ai.chat.completions.create(model=BASE, messages=CHAT, max_completion_tokens=5)
    assert completion.usage.completion_tokens == 16
    assert chat.usage.completion_tokens == scripted.FACTS.max_model_len - len("hi\n")
    assert limited.usage.completion_tokens == 5
    assert {answer.choices[0].finish_reason for answer in (completion, chat, limited)} == {"length"}


async def test_chat_is_rendered_by_the_models_template(ai, publish):
    await publish(1)
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "o"}]
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": parts}]
    answer = await ai.chat.completions.create(model="run", messages=messages, max_tokens=20)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == "s\nho\n|1|0"
    assert answer.object == "chat.completion"


async def test_stream_of_a_chat(ai):
    stream = await ai.chat.completions.create(
        model=BASE, messages=CHAT, n=2, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    for index in range(2):
        choices = [chunk.choices[0] for chunk in chunks if chunk.choices and chunk.choices[0].index == index]
        assert [choice.delta.role for choice in choices] == ["assistant"] + [None] * (len(choices) - 1)
        assert "".join(choice.delta.content for choice in choices) == f"hi\n|base|{index}"
        assert len(choices) > 3
        assert [choice.finish_reason for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert not chunks[-1].choices
    assert chunks[-1].usage.completion_tokens == 2 * len("hi\n|base|0")


async def test_stream_of_completions_with_echo_and_logprobs_is_what_comes_in_one_piece(ai):
    asked = {"model": BASE, "prompt": ["ab", "c"], "logprobs": 1, "echo": True}
    whole = await ai.completions.create(**asked)
    texts, tokens, offsets, likeliest = (dict.fromkeys(range(2)) for _ in range(4))
    for kept, empty in [(texts, ""), (tokens, []), (offsets, []), (likeliest, [])]:
        kept |= dict.fromkeys(kept, empty)
    async for chunk in await ai.completions.create(**asked, stream=True):
        [choice] = chunk.choices
        texts[choice.index] += choice.text
        tokens[choice.index] = tokens[choice.index] + choice.logprobs.tokens
        offsets[choice.index] = offsets[choice.index] + choice.logprobs.text_offset
        likeliest[choice.index] = likeliest[choice.index] + choice.logprobs.top_logprobs
    for choice in whole.choices:
        assert choice.text == texts[choice.index]
        assert choice.logprobs.tokens == tokens[choice.index] == list(choice.text)
        assert choice.logprobs.text_offset == offsets[choice.index] == list(range(len(choice.text)))
        assert choice.logprobs.top_logprobs == likeliest[choice.index]


async def test_stream_ends_with_done(client):
    request = {"model": BASE, "prompt": "a", "stream": True}
    answer = await client.post("/v1/completions", json=request)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert json.loads(events[0].removeprefix("data: "))["object"] == "text_completion"


async def test_prompt_alone_is_scored(ai):
    answer = await ai.completions.create(model=BASE, prompt="abc", max_tokens=0, echo=True, logprobs=0)
    [choice] = answer.choices
    assert choice.text == "abc"
    assert choice.logprobs.token_logprobs == [logprob(ord(letter)) for letter in "abc"]
    assert answer.usage.completion_tokens == 0


async def test_logprobs_of_a_chat(ai):
    answer = await ai.chat.completions.create(model=BASE, messages=CHAT, logprobs=True, top_logprobs=1, max_tokens=2)
    content = answer.choices[0].logprobs.content
    assert [(token.token, token.bytes, token.logprob) for token in content] == [
        (letter, [ord(letter)], logprob(ord(letter))) for letter in "hi"
    ]
    assert [token.top_logprobs[0].logprob for token in content] == [logprob(ord(letter)) for letter in "hi"]
    assert (await ai.chat.completions.create(model=BASE, messages=CHAT)).choices[0].logprobs is None


class Slow(scripted.CharacterTokenizer):
    """Takes until it is told to end, at the most 10 seconds."""

    def __init__(self):
        self.begun, self.end, self.was_told = threading.Event(), threading.Event(), False

    def encode(self, text, *, add_special_tokens):
        self.begun.set()
        self.was_told = self.end.wait(10)
        return super().encode(text, add_special_tokens=add_special_tokens)


async def test_long_text_holds_nobody_up(ai, client, monkeypatch):
    slow = Slow()
    monkeypatch.setattr(scripted, "FACTS", replace(scripted.FACTS, tokenizer=lambda: slow))
    asking = asyncio.create_task(ai.completions.create(model=BASE, prompt="a"))
    await asyncio.to_thread(slow.begun.wait, 10)
    assert (await client.post("/v1/generate", json={"prompts": [[1]], "sampling": {"max_tokens": 1}})).is_success
    slow.end.set()
    assert (await asking).choices[0].text == "a|base|0"
    assert slow.was_told


async def test_nulls_and_user_change_nothing(client):
    request = {"model": BASE, "prompt": "a", "user": "me", "suffix": None, "logit_bias": None, "seed": None}
    answer = await client.post("/v1/completions", json=request)
    assert answer.json()["choices"][0]["text"] == "a|base|0"


@pytest.mark.parametrize(
    ("wrong", "param", "words"),
    [
        ({"best_of": 3}, "best_of", "leave it out"),
        ({"temperature": 3}, "temperature", "2"),
        ({"temperature": 0, "n": 2}, None, "n is 2 at temperature 0"),
        ({"temperature": 0.001}, None, "at least 0.01"),
        ({"seed": 5}, None, "seed is 5"),
        ({"prompt": []}, "prompt", "at least 1"),
        ({"prompt": ["a", [1]]}, "prompt", "valid"),
        ({"prompt": ""}, None, "empty"),
        ({"prompt": [97, 999]}, None, "outside 0 to 255"),
        ({"prompt": "a" * 300}, None, "300 tokens"),
        ({"prompt": "a" * 256, "max_tokens": 0}, None, "256 tokens"),
        ({"prompt": "a" * (LONGEST_TEXT + 1)}, "prompt", "at most 4194304 characters"),
        ({"prompt": "\ud800"}, "prompt", "unicode string"),
        ({"model": "\ud800"}, "model", "unicode string"),
        ({"max_tokens": -1}, "max_tokens", "0"),
        ({"max_tokens": 1000}, None, "256"),
        ({"logprobs": 21}, "logprobs", "20"),
        ({"stop": [""]}, "stop", "at least 1"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_wrong_parameter_is_a_400_in_openais_body(client, wrong, param, words, stream):
    request = {"model": BASE, "prompt": "a", "stream": stream} | wrong
    body = json.dumps(request)  # which can say a half surrogate; httpx cannot
    answer = await client.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"tools": []}, "tools"),
        ({"messages": []}, "messages"),
        ({"top_logprobs": 2}, "top_logprobs needs logprobs"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "text"),
    ],
)
async def test_chat_that_is_not_served(ai, wrong, words):
    with pytest.raises(openai.BadRequestError, match=words):
        await ai.chat.completions.create(**{"model": BASE, "messages": CHAT, "extra_body": wrong})


async def test_seed_has_no_part_in_a_greedy_completion(ai):
    assert (await ai.completions.create(model=BASE, prompt="a", temperature=0, seed=5)).choices[0].text == "a|base|0"


class Template(scripted.CharacterTokenizer):
    def apply_chat_template(self, conversation, **_):
        from jinja2 import TemplateError

        raise TemplateError("roles must alternate")


class NoTemplate(scripted.CharacterTokenizer):
    chat_template = None


@pytest.mark.parametrize(
    ("tokenizer", "says"),
    [(None, "no tokenizer"), (NoTemplate, "no chat template"), (Template, "roles must alternate")],
)
async def test_model_that_cannot_chat(ai, monkeypatch, tokenizer, says):
    monkeypatch.setattr(scripted, "FACTS", replace(scripted.FACTS, tokenizer=tokenizer))
    with pytest.raises(openai.BadRequestError, match=says):
        await ai.chat.completions.create(model=BASE, messages=CHAT)


async def test_loading_server_says_so_in_openais_body(client_of, tmp_path):
    async with client_of(create_app(ScriptedEngine(), tmp_path)) as client:
        answer = await client.post("/v1/completions", json={"model": BASE, "prompt": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")


async def test_engine_that_dies_before_a_stream_begins_is_a_503(client, engine):
    engine.gate.clear()
    request = {"model": BASE, "prompt": "a", "stream": True}
    asking = asyncio.create_task(client.post("/v1/completions", json=request))
    while not engine.running:
        await asyncio.sleep(0)
    engine.fail("out of memory")
    answer = await asking
    assert answer.status_code == 503
    assert "out of memory" in answer.json()["error"]["message"]


async def test_body_that_is_no_json(client):
    answer = await client.post("/v1/completions", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] is None
    assert "JSON" in answer.json()["error"]["message"]


class Connection:
    """A request by ASGI, whose client goes away when it is told to. `on_event` is called with each event's body."""

    def __init__(self, app, path, body, on_event):
        self.gone = asyncio.Event()
        self._messages = [{"type": "http.request", "body": json.dumps(body).encode()}]
        self._on_event = on_event
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self):
        if self._messages:
            return self._messages.pop()
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        if body := message.get("body"):
            self._on_event(body)


@pytest.mark.parametrize("begun", [True, False])
async def test_client_that_leaves_a_stream_frees_engine_and_version(app, client, engine, publish, tmp_path, begun):
    await publish(1)
    arrived = asyncio.Event()

    def stop(_):
        engine.gate.clear()
        arrived.set()

    if not begun:
        engine.gate.clear()
    connection = Connection(app, "/v1/completions", {"model": "run", "prompt": "a", "stream": True}, stop)
    while not (arrived.is_set() if begun else engine.running):
        await asyncio.sleep(0)
    await client.delete("/v1/policies/run/1")
    assert engine.running == len(engine.loaded) == 1

    connection.gone.set()
    await connection.task
    assert engine.running == len(engine.loaded) == len(list(tmp_path.iterdir())) == 0


async def test_engine_that_dies_in_a_stream_ends_it_with_an_error(app, engine):
    events = []

    def stop(body):
        events.append(body.decode())
        engine.gate.clear()

    connection = Connection(app, "/v1/completions", {"model": BASE, "prompt": "a", "stream": True}, stop)
    while not events:
        await asyncio.sleep(0)
    engine.fail("out of memory")
    await connection.task
    error = json.loads(events[-1].removeprefix("data: "))["error"]
    assert (error["type"], error["code"]) == ("server_error", "engine_is_gone")
    assert "out of memory" in error["message"]


async def test_metrics_are_in_prometheus_format(client):
    answer = await client.get("/metrics")
    families = [family.name for family in text_string_to_metric_families(answer.text)]
    assert "python_info" in families
