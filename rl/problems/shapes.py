"""The linear layers of a model, and the rank of the adapter that a run trains on them."""

from typing import TYPE_CHECKING

from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.problems.models import resolve_model

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

SERVED_RANK = 512
"""The highest rank of an adapter that vLLM serves."""


def adapter_rank(config: TrainConfig) -> int:
    """The rank of a run's adapter. For full fine-tuning it follows from the model's shapes, which are read without its
    weights.

    Raises:
        UsageError: the model cannot be had; or as `full_rank`.
    """
    if config.tuning == "lora":
        return config.lora_rank
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        trust = {"trust_remote_code": config.trust_remote_code}
        shapes = AutoConfig.from_pretrained(resolve_model(config), **trust)
        return full_rank(AutoModelForCausalLM.from_config(shapes, **trust), config.lora_target)


def full_rank(model: "PreTrainedModel", lora_target: str) -> int:
    """The rank at which an adapter can be any difference to the targeted linear layers.

    Raises:
        UsageError: no server can serve it; or as `targeted`.
    """
    rank = max(min(layer.weight.shape) for layer in targeted(model, lora_target).values())
    if rank > SERVED_RANK:
        message = (
            f"--tuning full: this model needs an adapter of rank {rank}, and vLLM serves {SERVED_RANK} at the most"
        )
        fix = f"--tuning lora --lora-rank {SERVED_RANK}, or fewer modules by --lora-target"
        raise UsageError(message, fix=fix)
    return rank


def targeted(model: "PreTrainedModel", lora_target: str) -> "dict[str, nn.Linear]":
    """The linear layers that `--lora-target` names, by path; never the output layer.

    Raises:
        UsageError: the model has no layer of one of these names, which peft would leave out silently.
    """
    from torch import nn

    output = model.get_output_embeddings()  # the embedding's own matrix where they are tied, so never a target
    layers = {n: layer for n, layer in model.named_modules() if isinstance(layer, nn.Linear) and layer is not output}
    if lora_target == "all-linear":
        return layers
    wanted = lora_target_names(lora_target)
    known = {name.rpartition(".")[2] for name in layers}
    if unknown := [name for name in wanted if name not in known]:
        fix = f"its linear layers are {', '.join(sorted(known))}; or take all-linear"
        raise UsageError(f"--lora-target: the model has no layer {unknown[0]!r}", fix=fix)
    return {name: layer for name, layer in layers.items() if name.rpartition(".")[2] in wanted}


def lora_target_names(lora_target: str) -> list[str]:
    return [name.strip() for name in lora_target.split(",")]
