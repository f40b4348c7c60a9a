"""What the server asks of an engine: vllm.py samples from a model, scripted.py says what a test told it."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from rollout_server.schema import Completion, FinishReason, GenerateRequest

Status = Literal["loading", "ready", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapter:
    """One version of a policy, as files that an engine can load (and load again, should it evict it)."""

    policy: str
    version: int
    id: int
    """Positive, and never given to another adapter while the server lives."""
    sha256: str
    """Of the bytes that came in."""
    path: Path
    """Folder with adapter_config.json and adapter_model.safetensors; it stays while the adapter is in use."""

    @property
    def name(self) -> str:
        """Unique for the server's life: prefix caches are keyed by it."""
        return f"{self.policy}@{self.version}#{self.id}"


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that turns requests of text into tokens."""

    chat_template: str | None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def decode(self, token_ids: Sequence[int]) -> str: ...

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, add_generation_prompt: bool, tokenize: bool
    ) -> Any: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known of a model once it is loaded."""

    vocab_size: int
    max_model_len: int
    """Tokens of a prompt and its completion together."""
    max_lora_rank: int
    max_loras: int
    """Adapters that are sampled by at the same time."""
    max_num_seqs: int
    """Completions that are sampled at the same time."""
    linear_shapes: Mapping[str, tuple[int, int]]
    """(outputs, inputs) of each linear layer by its path in transformers, e.g. model.layers.0.mlp.up_proj."""
    tokenizer: Callable[[], Tokenizer | None] | None = None
    """Loads it. A model that comes without one serves tokens, and no text."""
    seeds: bool = False
    """Whether a request may have a seed of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRequest:
    """n texts after each prompt. /v1/generate has no part in this: its wire is tokens."""

    prompts: list[list[int]]
    n: int
    max_tokens: int | None
    """None is what the context has room for after the prompt."""
    temperature: float
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    ignore_eos: bool
    seed: int | None
    stop: list[str]
    """Texts that end a completion; they are no part of it."""
    logprobs: int | None
    """How many of the likeliest tokens to give beside each sampled one; None is no log-probabilities at all."""
    prompt_logprobs: bool
    """Give those of the prompt's tokens too."""
    stream: bool
    """Give each piece of a text as it comes, else each text in one piece."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    text: str
    logprob: float | None
    """None for the first token of a prompt."""
    likeliest: dict[str, float]
    """Log-probabilities of the likeliest tokens in its place, the likeliest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A piece of one completion's text."""

    index: int
    """Of the completion: prompt * n + number of the completion."""
    text: str
    token_count: int
    tokens: list[Token]
    """Empty unless log-probabilities were asked for; prompt_tokens likewise."""
    prompt_tokens: list[Token]
    finish_reason: FinishReason | None
    """None while more comes."""


STILL_S = 300.0
"""After which an engine that takes no step is given up. On a CPU a step may take a minute, where it begins with 2,048
tokens of prompts to a model of 1.5B."""


class Engine(Protocol):
    """Holds one base model and its adapters. All methods are called from one event loop."""

    name: str
    model: str
    status: Status
    detail: str
    """Why the status is "failed", in one sentence."""
    on_early: Callable[[int], None]
    """What it calls with the number of completions that have ended while their requests go on, when that changes."""

    @property
    def silent_s(self) -> float:
        """Seconds since the engine took a step, while it has something to do; else 0."""
        ...

    async def start(self) -> None:
        """Load the model; afterwards the status is "ready". Raises EngineError."""
        ...

    async def join(self) -> None:
        """Wait until the engine was closed. Raises EngineError when it died instead."""
        ...

    def close(self) -> None:
        """Ask the engine to stop; does not wait (`join` does)."""
        ...

    @property
    def facts(self) -> Facts:
        """Facts of the model. Raises EngineError unless the status is "ready"."""
        ...

    async def generate(self, request: GenerateRequest, adapter: Adapter | None) -> list[list[Completion]]:
        """Sample n completions of each prompt by one adapter: [prompts][n]. Cancel it to abort the sampling.

        Raises EngineError when the engine dies before it is done, ApiError when this request cannot be met.
        """
        ...

    def stream(self, request: TextRequest, adapter: Adapter | None) -> AsyncGenerator[Piece, None]:
        """Sample texts by one adapter, in the order in which they come. Close it to abort the sampling.

        Needs the model's tokenizer. Raises as `generate`.
        """
        ...

    async def load_adapter(self, adapter: Adapter) -> None:
        """Make it known. Raises ApiError when the engine refuses it, EngineError when the engine is gone."""
        ...

    async def remove_adapter(self, adapter: Adapter) -> None:
        """Forget the adapter; nobody uses it any more, and its files go afterwards."""
        ...

    async def metrics(self) -> bytes:
        """What it measures itself, in Prometheus' text format."""
        ...


def stands_still(engine: Engine) -> bool:
    return engine.silent_s > STILL_S
