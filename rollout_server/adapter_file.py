"""Checks that bytes from the wire are a LoRA adapter that fits the model, before any engine sees them."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, deserialize

from rollout_server.engines import Facts
from rollout_server.errors import ApiError
from rollout_server.schema import CONFIG_KEY, HASH_HEADER

_TENSOR_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")

_EXPONENTS = {"F32": (np.uint32, 0x7F800000), "F16": (np.uint16, 0x7C00), "BF16": (np.uint16, 0x7F80)}
"""Bits of the exponent: a float is inf or NaN where all are set. numpy has no bfloat16, but its bits."""

_WITHOUT_MEANING_HERE = (
    *("rank_pattern", "alpha_pattern", "layers_to_transform", "exclude_modules", "modules_to_save"),
    *("use_dora", "fan_in_fan_out", "lora_bias", "target_parameters", "trainable_token_indices"),
)
"""Settings of peft that the engine ignores or refuses: what it serves would not be this adapter."""


class LoraConfig(BaseModel):
    """The part of peft's configuration that says which layers are adapted, and how strongly."""

    model_config = ConfigDict(extra="allow", frozen=True)

    r: int = Field(ge=1)
    lora_alpha: float = Field(gt=0)
    target_modules: list[str] | str

    def targets(self, module: str) -> bool:
        """Whether peft adapts the linear layer of this path: by suffix for a list, by regex for a string."""
        if isinstance(self.target_modules, str):
            return re.fullmatch(self.target_modules, module) is not None
        return any(module == name or module.endswith(f".{name}") for name in self.target_modules)


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
    return 4 * floats + 2**20


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
        tensors: dict[str, Any] = dict(deserialize(body))  # type: ignore[no-untyped-call]
        config_text = _metadata(body)[CONFIG_KEY]
    except (SafetensorError, KeyError) as error:
        detail = f"the body is not one whole safetensors file with the metadata {CONFIG_KEY!r}: {error}"
        fix = f"Send safetensors.torch.save(tensors, metadata={{{CONFIG_KEY!r}: <peft's config as JSON>}})."
        raise ApiError(400, "unreadable adapter", detail, fix=fix) from None
    config = _config(config_text, facts)
    problem = next(_problems(tensors, config, facts), None)
    if problem:
        fix = "Send get_peft_model_state_dict(model) of a plain LoRA on linear layers of this base model."
        raise ApiError(422, "adapter does not fit", problem, fix=fix)
    return AdapterFile(body=body, sha256=actual, config=config_text, modules=len(tensors) // 2)


def _metadata(body: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: it begins with the length of its JSON header (8 bytes) and that."""
    header: dict[str, dict[str, str]] = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])
    return header.get("__metadata__", {})


def _config(text: str, facts: Facts) -> LoraConfig:
    """Parse peft's configuration and refuse what the engine would not do."""
    try:
        config = LoraConfig.model_validate_json(text)
    except ValidationError as error:
        detail = f"peft's configuration is incomplete: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}"
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
    for module, present in sides.items():
        if len(present) == 1:
            yield f"{module} has lora_{present.pop()} only: its pair is incomplete"
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
