"""What the server asks of an engine: vllm.py samples from a model, scripted.py says what a test told it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from rollout_server.schema import Completion, GenerateRequest

Status = Literal["loading", "ready", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapter:
    """One version of a policy, as files that an engine can load (and load again, should it evict it)."""

    policy: str
    version: int
    id: int
    """Positive, and never given to another adapter while the server lives."""
    path: Path
    """Folder with adapter_config.json and adapter_model.safetensors; it stays while the adapter is in use."""

    @property
    def name(self) -> str:
        """Unique for the server's life: prefix caches are keyed by it."""
        return f"{self.policy}@{self.version}#{self.id}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known of a model once it is loaded."""

    vocab_size: int
    max_model_len: int
    """Tokens of a prompt and its completion together."""
    max_lora_rank: int
    linear_shapes: Mapping[str, tuple[int, int]]
    """(outputs, inputs) of each linear layer by its path in transformers, e.g. model.layers.0.mlp.up_proj."""


class Engine(Protocol):
    """Holds one base model and its adapters. All methods are called from one event loop."""

    name: str
    model: str
    status: Status
    detail: str
    """Why the status is "failed", in one sentence."""

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

    async def load_adapter(self, adapter: Adapter) -> None:
        """Make it known. Raises ApiError when the engine refuses it, EngineError when the engine is gone."""
        ...

    async def remove_adapter(self, adapter: Adapter) -> None:
        """Forget the adapter; nobody uses it any more, and its files go afterwards."""
        ...
