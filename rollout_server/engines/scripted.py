"""An engine without a model: completions follow from prompt, adapter and index. For tests and smoke runs."""

import asyncio
import hashlib
from collections.abc import Callable

from rollout_server.engines import Adapter, Facts, Status
from rollout_server.errors import EngineError
from rollout_server.schema import Completion, GenerateRequest

Script = Callable[[list[int], Adapter | None, int], list[int]]
"""(prompt, adapter, index of the completion) → the tokens it would have without a limit."""

FATAL_TOKEN = 255
"""A prompt that ends with it ends the engine, as a crash would: for tests of whoever must notice."""

FACTS = Facts(
    vocab_size=256,
    max_model_len=256,
    max_lora_rank=16,
    linear_shapes={"model.layers.0.self_attn.q_proj": (8, 4), "model.layers.0.mlp.up_proj": (16, 4)},
)


def hashed(prompt: list[int], adapter: Adapter | None, index: int) -> list[int]:
    """Eight tokens below 255 that follow from the prompt, the adapter's policy and version, and the index."""
    policy = (adapter.policy, adapter.version) if adapter else None
    return [byte % 255 for byte in hashlib.sha256(repr((prompt, policy, index)).encode()).digest()[:8]]


class ScriptedEngine:
    """Answers at once, unless a test holds it: `gate.clear()` lets requests wait until `gate.set()`."""

    name = "scripted"
    model = "scripted"

    def __init__(self, script: Script = hashed) -> None:
        self.status: Status = "loading"
        self.detail = ""
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
        if any(prompt[-1] == FATAL_TOKEN for prompt in request.prompts):
            self.fail("the engine died: a prompt asked for it")
        self.running += 1
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        if self.status != "ready":
            raise EngineError(self.detail)
        if adapter and not (self.loaded.get(adapter.id) == adapter and adapter.path.is_dir()):
            raise EngineError(f"{adapter.name} was taken away while a request used it")
        return [
            [self._completion(request, prompt, adapter, index) for index in range(request.n)]
            for prompt in request.prompts
        ]

    def _completion(
        self, request: GenerateRequest, prompt: list[int], adapter: Adapter | None, index: int
    ) -> Completion:
        tokens = self._script(prompt, adapter, index)
        limit = request.sampling.max_tokens
        return Completion(
            token_ids=tokens[:limit],
            logprobs=[-(1 + token) / 256 for token in tokens[:limit]],
            finish_reason="stop" if len(tokens) <= limit else "length",
            policy_version=adapter.version if adapter else None,
        )

    async def load_adapter(self, adapter: Adapter) -> None:
        self.loaded[adapter.id] = adapter

    async def remove_adapter(self, adapter: Adapter) -> None:
        del self.loaded[adapter.id]
