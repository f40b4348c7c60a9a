"""A base model and an adapter made into one model, and the proof that it is the policy that was trained."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from rl.core.errors import TallyError
from rl.learner.policy import token_logprobs

LARGEST_GAP = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.1}
"""Mean |logprob difference| in nats that rounding may make."""
ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}
"""Below this a gap is rounding, however little the policy has moved."""

Probe = tuple[list[int], list[int]]
"""Tokens of a prompt and of a completion."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Means of |logprob differences| over the probes' completion tokens, in nats."""

    tokens: int
    gap: float
    """merged − (base + adapter)"""
    worst: float
    """the largest of these"""
    moved: float
    """base − (base + adapter): what a merge without the adapter would show"""
    dtype: str
    """of the merged weights"""


def merge(base: str, adapter: Path, folder: Path, probes: Sequence[Probe], *, trust_remote_code: bool) -> Agreement:
    """Writes a model folder with tokenizer, reads it again, and compares it with the base under its adapter.

    The sum is made in float32, and rounded once to the data type that the base is stored in.

    Args:
        base: folder of the base.
        adapter: folder in peft's format.

    Raises:
        TallyError: the base cannot be loaded; the merged model is not the policy; or rounding took away what was
            learned.
    """
    trust = {"trust_remote_code": trust_remote_code}

    def load(model: str | Path) -> PreTrainedModel:
        try:
            return AutoModelForCausalLM.from_pretrained(model, dtype="auto", **trust)
        except OSError as error:
            raise TallyError(
                f"the model {model} cannot be loaded: {error}", fix="see that its folder is whole"
            ) from None

    loaded = load(base)
    dtype: torch.dtype = loaded.dtype
    own = _logprobs(loaded, probes)
    adapted = PeftModel.from_pretrained(loaded, adapter)
    policy = _logprobs(adapted, probes)
    merged = adapted.float().merge_and_unload(safe_merge=True).to(dtype)
    merged.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base, **trust).save_pretrained(folder)
    del loaded, adapted, merged
    gc.collect()  # one model in memory at a time
    difference = (_logprobs(load(folder), probes) - policy).abs()
    agreement = Agreement(
        tokens=difference.numel(),
        gap=float(difference.mean()),
        worst=float(difference.max()),
        moved=float((own - policy).abs().mean()),
        dtype=str(dtype).removeprefix("torch."),
    )
    allowed = min(LARGEST_GAP[dtype], max(ROUNDING[dtype], agreement.moved / 2))
    if not agreement.gap <= allowed:  # also when it is not a number
        message = (
            f"the merged model is not the policy: its log-probabilities are {agreement.gap:.2g} nats off (allowed "
            f"{allowed:.2g}), and the base's are {agreement.moved:.2g} off"
        )
        raise TallyError(message, fix="serve base and adapter (vllm serve --enable-lora); nothing was exported")
    return agreement


@torch.no_grad()
def _logprobs(model: nn.Module, probes: Sequence[Probe]) -> Tensor:
    """Of all completion tokens, one after the other."""
    model.eval()
    found = []
    for prompt, completion in probes:
        logits = model(input_ids=torch.tensor([prompt + completion])).logits[:, len(prompt) - 1 : -1]
        found.append(token_logprobs(logits, torch.tensor([completion]), temperature=1.0)[0])
    return torch.cat(found)
