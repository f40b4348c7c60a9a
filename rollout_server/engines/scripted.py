"""An engine without a model: completions follow from prompt, adapter and index. For tests and smoke runs."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from rollout_server.engines import Adapter, Facts, Piece, Status, TextRequest, Token
from rollout_server.errors import EngineError
from rollout_server.schema import Completion, FinishReason, GenerateRequest

Script = Callable[[list[int], Adapter | None, int], list[int]]
"""(prompt, adapter, index of the completion) → the tokens it would have without a limit."""

FATAL_PROMPT = [255, 254, 253, 252, 251]
"""Ends the engine, as a crash would: for tests of whoever must notice."""


class CharacterTokenizer:
    """A token is a character of Latin-1, others are question marks; a chat is its contents, each in a line."""

    chat_template: str | None = "one message a line"

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return list(text.encode("latin-1", errors="replace"))

    def decode(self, token_ids: Sequence[int]) -> str:
        return bytes(token_ids).decode("latin-1")

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, add_generation_prompt: bool, tokenize: bool
    ) -> str:
        return "".join(f"{message['content']}\n" for message in conversation)


FACTS = Facts(
    vocab_size=256,
    max_model_len=256,
    max_lora_rank=16,
    max_loras=4,
    max_num_seqs=512,
    linear_shapes={"model.layers.0.self_attn.q_proj": (8, 4), "model.layers.0.mlp.up_proj": (16, 4)},
    tokenizer=CharacterTokenizer,
)


def hashed(prompt: list[int], adapter: Adapter | None, index: int) -> list[int]:
    """Eight tokens below 255 that follow from the prompt, the adapter's policy and version, and the index."""
    policy = (adapter.policy, adapter.version) if adapter else None
    return [byte % 255 for byte in hashlib.sha256(repr((prompt, policy, index)).encode()).digest()[:8]]


def logprob(token: int) -> float:
    """The log-probability that every token has, wherever it stands."""
    return -(1 + token) / 256


class ScriptedEngine:
    """Answers at once, unless a test holds it: `gate.clear()` lets requests wait until `gate.set()`."""

    name = "scripted"
    model = "scripted"

    def __init__(self, script: Script = hashed) -> None:
        self.status: Status = "loading"
        self.detail = ""
        self.silent_s = 0.0
        self.on_early: Callable[[int], None] = lambda early: None
        self.gate = asyncio.Event()
        self.gate.set()
        self.loaded: dict[int, Adapter] = {}
        self.running = 0
        self._script = script
        self._ended = asyncio.Event()

    @property
    def facts(self) -> Facts:
        if self.status != "ready":
            raise EngineError(self.detail or "the engine is not ready")
        return FACTS

    async def start(self) -> None:
        self.status = "ready"

    async def join(self) -> None:
        await self._ended.wait()
        if self.status == "failed":
            raise EngineError(self.detail)

    def close(self) -> None:
        self._ended.set()

    def fail(self, detail: str) -> None:
        """Die: requests that wait fail, and none is answered from now on."""
        self.status, self.detail = "failed", detail
        self.gate.set()
        self._ended.set()

    async def generate(self, request: GenerateRequest, adapter: Adapter | None) -> list[list[Completion]]:
        async with self._running(request.prompts, adapter):
            return [
                [self._completion(request, prompt, adapter, index) for index in range(request.n)]
                for prompt in request.prompts
            ]

    async def stream(self, request: TextRequest, adapter: Adapter | None) -> AsyncGenerator[Piece, None]:
        async with self._running(request.prompts, adapter):
            for number, prompt in enumerate(request.prompts):
                for index in range(request.n):
                    script = self._script(prompt, adapter, index)
                    limit = FACTS.max_model_len - len(prompt) if request.max_tokens is None else request.max_tokens
                    tokens, reason = _limited(script, limit)
                    parts = [[token] for token in tokens] if request.stream and tokens else [tokens]
                    for part in parts:
                        await self._pass()
                        last = part is parts[-1]
                        yield _piece(request, number, index, part, reason if last else None)

    async def _pass(self) -> None:
        """Wait for the gate. Raises EngineError when the engine is dead behind it."""
        await self.gate.wait()
        if self.status != "ready":
            raise EngineError(self.detail)

    @asynccontextmanager
    async def _running(self, prompts: list[list[int]], adapter: Adapter | None) -> AsyncIterator[None]:
        if FATAL_PROMPT in prompts:
            self.fail("the engine died: a prompt asked for it")
        self.running += 1
        try:
            await self._pass()
            if adapter and not (self.loaded.get(adapter.id) == adapter and adapter.path.is_dir()):
                raise EngineError(f"{adapter.name} was taken away while a request used it")
            yield
        finally:
            self.running -= 1

    def _completion(
        self, request: GenerateRequest, prompt: list[int], adapter: Adapter | None, index: int
    ) -> Completion:
        tokens, finish_reason = _limited(self._script(prompt, adapter, index), request.sampling.max_tokens)
        return Completion(
            token_ids=tokens,
            logprobs=[logprob(token) for token in tokens],
            finish_reason=finish_reason,
            policy_version=adapter.version if adapter else None,
        )

    async def load_adapter(self, adapter: Adapter) -> None:
        self.loaded[adapter.id] = adapter

    async def remove_adapter(self, adapter: Adapter) -> None:
        del self.loaded[adapter.id]

    async def metrics(self) -> bytes:
        return b""


def _limited(tokens: list[int], limit: int) -> tuple[list[int], FinishReason]:
    return tokens[:limit], "stop" if len(tokens) <= limit else "length"


def _piece(request: TextRequest, prompt: int, index: int, tokens: list[int], reason: FinishReason | None) -> Piece:
    return Piece(
        index=prompt * request.n + index,
        text=bytes(tokens).decode("latin-1"),
        token_count=len(tokens),
        tokens=[] if request.logprobs is None else [_token(token) for token in tokens],
        prompt_tokens=[_token(token) for token in request.prompts[prompt]] if request.prompt_logprobs else [],
        finish_reason=reason,
    )


def _token(token: int) -> Token:
    return Token(text=chr(token), logprob=logprob(token), likeliest={chr(token): logprob(token)})
