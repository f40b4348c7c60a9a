"""OpenAI's API for what is served: /v1/models, /v1/completions and /v1/chat/completions.

A model's id is the served name for the base, `policy@version` for a version of a policy, and `policy` for its
newest accepted version; an answer names the version it is from. A request holds its version to its end.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from jinja2 import TemplateError
from starlette.types import Receive, Scope, Send

from rollout_server import metrics, openai_format
from rollout_server.adapters import Adapters
from rollout_server.described import STREAM, refusals
from rollout_server.engines import Adapter, Engine, Piece, TextRequest, Tokenizer
from rollout_server.errors import ApiError, EngineError
from rollout_server.limits import check_count, check_prompts, check_sampling, invalid
from rollout_server.openai_answers import Card, Cards, ChatCompletion, Refusal, TextCompletion
from rollout_server.openai_format import ChatFormat, CompletionFormat, Format, Json
from rollout_server.openai_schema import ChatRequest, CompletionRequest, TextBody
from rollout_server.shares import Share
from rollout_server.web import engine_problem, while_connected

PATHS = ("/v1/completions", "/v1/chat/completions")
"""That sample."""

B = TypeVar("B", bound=TextBody)
T = TypeVar("T")


def add_openai_paths(app: FastAPI, engine: Engine, adapters: Adapters, served_name: str, share: Share) -> None:
    """Args: served_name: the id of the base model; share: what those who ask here may hold."""
    api = _Api(engine, adapters, served_name, share)
    sampled = STREAM | refusals(400, 404, 408, 413, 429, 503, 504, body=Refusal)

    @app.get("/v1/models", response_model=Cards, responses=refusals(body=Refusal))
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": list(api.cards())})

    @app.get("/v1/models/{model:path}", response_model=Card, responses=refusals(404, body=Refusal))
    async def model(model: str) -> Response:
        return JSONResponse(api.card(model))

    @app.post("/v1/completions", response_model=TextCompletion, responses=sampled)
    async def completions(request: Request, body: CompletionRequest) -> Response:
        prompts = await api.tokenized(_completion_prompts, body)
        asked = api.asked(body, prompts, body.max_tokens, body.logprobs, echo=body.echo)
        echo = await api.tokenized(_echo, body) if body.echo else []
        form = CompletionFormat(echo, logprobs=body.logprobs is not None)
        return await api.answer(request, body, asked, form)

    @app.post("/v1/chat/completions", response_model=ChatCompletion, responses=sampled)
    async def chat(request: Request, body: ChatRequest) -> Response:
        prompt = await api.tokenized(_chat_prompt, body)
        max_tokens = body.max_completion_tokens or body.max_tokens
        asked = api.asked(body, [prompt], max_tokens, body.top_logprobs if body.logprobs else None)
        return await api.answer(request, body, asked, ChatFormat(logprobs=body.logprobs))


class _Api:
    def __init__(self, engine: Engine, adapters: Adapters, served_name: str, share: Share) -> None:
        self._engine = engine
        self._share = share
        self._adapters = adapters
        self._base = served_name
        self._created = int(time.time())
        self._tokenizing = asyncio.Lock()

    def cards(self) -> Iterator[Json]:
        """What can be asked for, the base first, a policy's newest accepted version after its versions."""
        card = {"object": "model", "created": self._created, "owned_by": "rollout_server"}
        yield {"id": self._base, "root": self._base, "parent": None, **card}
        newest: dict[str, int] = {}
        for receipt in self._adapters:
            name = f"{receipt.policy}@{receipt.policy_version}"
            yield {"id": name, "root": name, "parent": self._base, **card}
            if receipt.accepted:
                newest[receipt.policy] = max(receipt.policy_version, newest.get(receipt.policy, 0))
        for policy, version in newest.items():
            yield {"id": policy, "root": f"{policy}@{version}", "parent": self._base, **card}

    def card(self, model: str) -> Json:
        """Raises ApiError 404."""
        for card in self.cards():
            if card["id"] == model:
                return card
        detail = f"model {model} is not served; served are: {', '.join(card['id'] for card in self.cards())}"
        raise ApiError(404, "unknown model", detail, fix="Ask for one of these.")

    async def tokenized(self, prompts_of: Callable[[B, Tokenizer], T], body: B) -> T:
        """Tokenizes in a thread, as a long text takes seconds. Raises ApiError 422 when the model has no tokenizer."""
        load = self._engine.facts.tokenizer
        async with self._tokenizing:  # it is not to be shared between threads
            tokenizer = await asyncio.to_thread(load) if load else None
            if tokenizer is None:
                fix = "Ask /v1/generate, whose wire is tokens, or serve a model with a tokenizer: the log says more."
                raise invalid("the model that is served has no tokenizer", fix=fix)
            return await asyncio.to_thread(prompts_of, body, tokenizer)

    def asked(
        self,
        body: TextBody,
        prompts: list[list[int]],
        max_tokens: int | None,
        logprobs: int | None,
        *,
        echo: bool = False,
    ) -> TextRequest:
        """What is asked of the engine. Raises ApiError 422 for what it could not do."""
        facts = self._engine.facts
        check_count(len(prompts), body.n)
        check_sampling(body.temperature, body.n)
        check_prompts(prompts, max_tokens or 1, facts)
        if body.seed is not None and body.temperature > 0 and not facts.seeds:
            detail = f"seed is {body.seed}, and on CPU vLLM has no seeds of single requests"
            raise invalid(detail, fix="Leave seed out, or ask for temperature 0, where it has no part.")
        return TextRequest(
            prompts=prompts,
            n=body.n,
            max_tokens=max_tokens,
            temperature=body.temperature,
            top_p=body.top_p,
            presence_penalty=body.presence_penalty,
            frequency_penalty=body.frequency_penalty,
            repetition_penalty=body.repetition_penalty,
            ignore_eos=body.ignore_eos,
            seed=body.seed if body.temperature > 0 else None,
            stop=body.stop,
            logprobs=logprobs,
            prompt_logprobs=echo and logprobs is not None,
            stream=body.stream,
        )

    async def answer(self, request: Request, body: TextBody, asked: TextRequest, form: Format) -> Response:
        if not body.stream:
            return JSONResponse(await while_connected(request, self._whole(body.model, asked, form)))
        events = self._events(body.model, asked, form, include_usage=body.stream_options.include_usage)

        async def first() -> str:
            return await anext(events)  # what is refused before it still has a status of its own

        return _EventStream(await while_connected(request, first()), events)

    async def _whole(self, model: str, asked: TextRequest, form: Format) -> Json:
        async with self._sampled(model, asked) as (adapter, stream):
            pieces = sorted([piece async for piece in stream], key=lambda piece: piece.index)
        usage = self._usage(asked, sum(piece.token_count for piece in pieces))
        return {
            **openai_format.envelope(form, self._name(adapter), stream=False),
            "choices": [form.choice(piece) for piece in pieces],
            "usage": usage,
        }

    async def _events(
        self, model: str, asked: TextRequest, form: Format, *, include_usage: bool
    ) -> AsyncGenerator[str, None]:
        opened: set[int] = set()
        tokens = 0
        try:
            async with self._sampled(model, asked) as (adapter, stream):
                head = openai_format.envelope(form, self._name(adapter), stream=True)
                async for piece in stream:
                    if piece.index not in opened and (opening := form.opening(piece)):
                        yield openai_format.event({**head, "choices": [opening]})
                    opened.add(piece.index)
                    yield openai_format.event({**head, "choices": [form.delta(piece)]})
                    tokens += piece.token_count
        except EngineError as error:
            if not opened:
                raise
            _, body = openai_format.error(engine_problem(self._engine, error))
            yield openai_format.event(body)
            return
        usage = self._usage(asked, tokens)
        if include_usage:
            yield openai_format.event({**head, "choices": [], "usage": usage})
        yield openai_format.LAST_EVENT

    @asynccontextmanager
    async def _sampled(
        self, model: str, asked: TextRequest
    ) -> AsyncIterator[tuple[Adapter | None, AsyncGenerator[Piece, None]]]:
        """Holds a version, waits for its turn, and samples."""
        async with (
            self._hold(model) as adapter,
            self._share.turn(len(asked.prompts) * asked.n, adapter=adapter.id if adapter else None),
            aclosing(self._engine.stream(asked, adapter)) as stream,
        ):
            yield adapter, stream

    def _usage(self, asked: TextRequest, completion_tokens: int) -> Json:
        """Counts what was sampled, and says so."""
        prompt_tokens = sum(map(len, asked.prompts))
        metrics.count_sampled(self._share.name, len(asked.prompts) * asked.n, prompt_tokens, completion_tokens)
        return openai_format.usage(prompt_tokens, completion_tokens)

    def _hold(self, model: str) -> AbstractAsyncContextManager[Adapter | None]:
        if model == self._base:
            return self._adapters.use(None, None)
        policy, _, version = self.card(model)["root"].partition("@")
        return self._adapters.use(policy, int(version))

    def _name(self, adapter: Adapter | None) -> str:
        return f"{adapter.policy}@{adapter.version}" if adapter else self._base


def _completion_prompts(body: CompletionRequest, tokenizer: Tokenizer) -> list[list[int]]:
    """As tokens. Texts get the special tokens that the tokenizer puts around a text; tokens stay as they are."""
    return [tokenizer.encode(p, add_special_tokens=True) if isinstance(p, str) else p for p in body.prompt]


def _echo(body: CompletionRequest, tokenizer: Tokenizer) -> list[str]:
    """What stands before each completion."""
    texts = [p if isinstance(p, str) else tokenizer.decode(p) for p in body.prompt]
    return [text for text in texts for _ in range(body.n)]


def _chat_prompt(body: ChatRequest, tokenizer: Tokenizer) -> list[int]:
    """Raises ApiError 422 when the model has no chat template, or its template refuses these messages."""
    if not tokenizer.chat_template:
        fix = "Write the prompt yourself, and ask /v1/completions."
        raise invalid("the model that is served has no chat template", fix=fix)
    messages = [{"role": message.role, "content": message.text} for message in body.messages]
    try:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except TemplateError as error:
        fix = "Send messages in the order and of the roles that it takes."
        raise invalid(f"the model's chat template refuses these messages: {error}", fix=fix) from None
    return tokenizer.encode(text, add_special_tokens=False)


class _EventStream(StreamingResponse):
    """Ends the sampling, and lets go of the version, when the client goes away, even before the first event."""

    def __init__(self, first: str, events: AsyncGenerator[str, None]) -> None:
        async def content() -> AsyncGenerator[str, None]:
            yield first
            async for event in events:
                yield event

        super().__init__(content(), media_type="text/event-stream")
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            await super().__call__(scope, receive, send)
