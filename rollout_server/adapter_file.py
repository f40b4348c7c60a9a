"""Checks that bytes from the wire are a LoRA adapter that fits the model, before any engine sees them.

They may be anything. No code and no regular expression in them is run, nothing is unpacked, and what the engine reads
as their configuration is what was checked, and no more.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from safetensors import SafetensorError, deserialize

from rollout_server.engines import Facts
from rollout_server.errors import ApiError
from rollout_server.schema import CONFIG_KEY, HASH_HEADER

_TENSOR_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")

_EXPONENTS = {"F32": (np.uint32, 0x7F800000), "F16": (np.uint16, 0x7C00), "BF16": (np.uint16, 0x7F80)}
"""Bits of the exponent: a float is inf or NaN where all are set. numpy has no bfloat16, but its bits."""

_LARGEST_NORM = 1e6
"""Of a matrix, and of what a layer's two add to a vector of norm 1. Trained ones have some hundreds at the most. Beyond
it activations may overflow, and the engine ends for everybody: NaNs stay in its KV cache."""

_WITHOUT_MEANING_HERE = (
    *("rank_pattern", "alpha_pattern", "layers_to_transform", "exclude_modules", "modules_to_save"),
    *("use_dora", "fan_in_fan_out", "lora_bias", "target_parameters", "trainable_token_indices"),
)
"""Settings of peft that the engine ignores or refuses: what it serves would not be this adapter."""


class LoraConfig(BaseModel):
    """The part of peft's configuration that says which layers are adapted, and how strongly."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)

    peft_type: Literal["LORA"] = "LORA"
    r: int = Field(ge=1)
    lora_alpha: float = Field(gt=0, le=_LARGEST_NORM)
    use_rslora: bool = False
    target_modules: list[str]

    @field_validator("target_modules", mode="before")
    @classmethod
    def _listed(cls, modules: Any) -> Any:
        if isinstance(modules, str):
            raise ValueError("is a regular expression, and none is run here: list the names of the modules")
        return modules

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.target_modules)

    def targets(self, module: str) -> bool:
        """Whether peft adapts the linear layer of this path: it is one of the names, or ends with one."""
        parts = module.split(".")
        return any(".".join(parts[start:]) in self._names for start in range(len(parts)))

    @property
    def scale(self) -> float:
        """Of the product of a layer's matrices."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)

    def written(self) -> str:
        """As the engine reads it."""
        known = self.model_dump(include=set(type(self).model_fields))
        return json.dumps({**known, "task_type": "CAUSAL_LM"})


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterFile:
    """A checked adapter: its bytes, their hash, its configuration as JSON, and how many layers it adapts."""

    body: bytes
    sha256: str
    config: str
    modules: int

    def write(self, folder: Path) -> None:
        """Write the two files that peft and vLLM read."""
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(self.body)
        (folder / "adapter_config.json").write_text(self.config)


def largest_body(facts: Facts) -> int:
    """Bytes of the largest adapter that fits: all linear layers at the highest rank, float32, and a header."""
    floats = sum(facts.max_lora_rank * (out + inp) for out, inp in facts.linear_shapes.values())
    return 4 * floats + _largest_header(facts)


def _largest_header(facts: Facts) -> int:
    """Bytes, of two tensors a layer and the configuration: whatever is longer has other things in it."""
    return 2**17 + sum(2 * (len(module) + 200) for module in facts.linear_shapes)


def check(body: bytes, sha256: str, facts: Facts) -> AdapterFile:
    """Check ADAPTER BYTES against their hash and the model.

    Raises:
        ApiError: 400 when the bytes are not what was sent, 422 when the adapter is not whole or does not fit.
    """
    actual = hashlib.sha256(body).hexdigest()
    if actual != sha256.lower():
        detail = f"{len(body)} bytes with sha256 {actual} arrived, but the header {HASH_HEADER} says {sha256}"
        raise ApiError(400, "hash mismatch", detail, fix="Send the adapter again, with the hash of its whole body.")
    try:
        header = _header(body, facts)
        tensors: dict[str, Any] = dict(deserialize(body))  # type: ignore[no-untyped-call]
        config_text = json.loads(header, object_pairs_hook=_once)["__metadata__"][CONFIG_KEY]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        detail = f"the body is not one whole safetensors file with the metadata {CONFIG_KEY!r}: {error}"
        fix = f"Send safetensors.torch.save(tensors, metadata={{{CONFIG_KEY!r}: <peft's config as JSON>}})."
        raise ApiError(400, "unreadable adapter", detail, fix=fix) from None
    config = _config(config_text, facts)
    problem = next(_problems(tensors, config, facts), None)
    if problem:
        fix = "Send get_peft_model_state_dict(model) of a plain LoRA on linear layers of this base model."
        raise ApiError(422, "adapter does not fit", problem, fix=fix)
    return AdapterFile(body=body, sha256=actual, config=config.written(), modules=len(tensors) // 2)


def _header(body: bytes, facts: Facts) -> bytes:
    """The JSON that a safetensors file begins with, after its length in 8 bytes. Raises ValueError."""
    length = int.from_bytes(body[:8], "little")
    if length > _largest_header(facts):
        raise ValueError(
            f"its header has {length} bytes, and that of an adapter for this model {_largest_header(facts)}"
        )
    return body[8 : 8 + length]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, of which readers could take different values where a name comes twice. Raises ValueError."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice in its header")
    return found


def _config(text: str, facts: Facts) -> LoraConfig:
    """Parse peft's configuration and refuse what the engine would not do."""
    try:
        config = LoraConfig.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        detail = f"peft's configuration is not one of a LoRA: {where}: {first['msg']}"
        raise ApiError(
            422, "adapter does not fit", detail, fix="Send what peft saves as adapter_config.json."
        ) from None
    extras = config.model_extra or {}
    unusual = [key for key in _WITHOUT_MEANING_HERE if extras.get(key)]
    if extras.get("bias", "none") != "none":
        unusual.append("bias")
    if unusual:
        detail = f"peft's configuration sets {', '.join(unusual)}, which cannot be served"
        raise ApiError(422, "adapter does not fit", detail, fix="Train a plain LoRA without them.")
    if config.r > facts.max_lora_rank:
        detail = f"its rank is {config.r}, and this server takes ranks up to {facts.max_lora_rank}"
        raise ApiError(422, "adapter does not fit", detail, fix=f"Start the server with --max-lora-rank {config.r}.")
    return config


def _problems(tensors: Mapping[str, Any], config: LoraConfig, facts: Facts) -> Iterator[str]:
    """All that keeps these tensors from being exactly the LoRA that the configuration describes."""
    sides: dict[str, set[str]] = {}
    norms: dict[str, float] = {}
    for name, tensor in tensors.items():
        match = _TENSOR_NAME.fullmatch(name)
        if match is None:
            yield f"the tensor {name} is not base_model.model.<layer>.lora_A.weight or lora_B.weight"
            continue
        module, side = match["module"], match["side"]
        sides.setdefault(module, set()).add(side)
        if module not in facts.linear_shapes:
            yield f"the model has no linear layer {module}"
            continue
        outputs, inputs = facts.linear_shapes[module]
        wanted = [config.r, inputs] if side == "A" else [outputs, config.r]
        if tensor["shape"] != wanted:
            yield f"{name} has shape {tensor['shape']}, but rank {config.r} on this model needs {wanted}"
        yield from _not_finite(name, tensor)
        norm = _norm(tensor)
        norms[module] = norms.get(module, config.scale) * norm
        if norm > _LARGEST_NORM:
            yield f"{name} has the norm {norm:.3g}, and {_LARGEST_NORM:.3g} is the largest: it has diverged"
    for module, present in sides.items():
        if len(present) == 1:
            yield f"{module} has lora_{present.pop()} only: its pair is incomplete"
        if norms[module] > _LARGEST_NORM:
            yield f"{module} is changed by {norms[module]:.3g}, and {_LARGEST_NORM:.3g} is most: it has diverged"
        if not config.targets(module):
            yield f"{module} has matrices, and target_modules does not name it"
    missing = [module for module in facts.linear_shapes if config.targets(module) and module not in sides]
    if missing:
        yield f"{len(missing)} layers that target_modules names have no matrices, {missing[0]} first"
    if not sides:
        yield "it has no tensors"


def _not_finite(name: str, tensor: Mapping[str, Any]) -> Iterator[str]:
    """Whether a tensor is of no known float type, or holds an infinity or a NaN."""
    if tensor["dtype"] not in _EXPONENTS:
        yield f"{name} is {tensor['dtype']}, and must be one of {', '.join(_EXPONENTS)}"
        return
    kind, exponent = _EXPONENTS[tensor["dtype"]]
    bits = np.frombuffer(tensor["data"], dtype=kind)
    if np.any((bits & kind(exponent)) == exponent):
        yield f"{name} holds values that are not finite"


def _norm(tensor: Mapping[str, Any]) -> float:
    """Of a matrix whose values are finite; infinite where their squares are not."""
    if tensor["dtype"] == "BF16":  # the upper half of a float32
        floats = (np.frombuffer(tensor["data"], np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        floats = np.frombuffer(tensor["data"], {"F32": np.float32, "F16": np.float16}[tensor["dtype"]])
    with np.errstate(over="ignore"):
        return float(np.linalg.norm(floats.astype(np.float32, copy=False)))
