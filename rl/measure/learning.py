"""Tokens a second and model FLOP utilisation of the learner on recorded groups, beside TRL's trainer on the same."""

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl.buffer.history import History
from rl.core.config import TrainConfig
from rl.core.rundir import RunDir
from rl.core.types import Group
from rl.measure.work import Figures
from rl.problems.models import resolve_model

if TYPE_CHECKING:
    from rl.learner.policy import Policy

_state: dict[str, Any] = {}
"""In the learner's process: the learner, and the batch that it trains on."""
MATMUL_SIDES = (1024, 2048, 4096)
MATMUL_S = 0.2
"""For each side, at the least."""


def read_batch(run: RunDir, step: int) -> list[Group]:
    """The groups that a step was trained on."""
    with closing(History(run.buffer_url)) as history:
        return [entry.group for entry in history.trained_in(step)]


def load(config: TrainConfig, run: Path, step: int) -> None:
    """Takes a learner of the configuration, and the batch of this step of a run."""
    import torch

    from rl.learner.policy import Policy
    from rl.learner.step import Learner

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    policy = Policy(resolve_model(config), config, device)
    _state.update(learner=Learner(policy, config), groups=read_batch(RunDir(run), step), step=step)


def train(steps: int) -> list[float]:
    """Seconds of each of so many updates on the batch."""
    import torch

    seconds = []
    for _ in range(steps):
        begin = time.perf_counter()
        _state["learner"].step(_state["groups"], _state["step"])
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the other side may be on the same GPU
    return seconds


def facts() -> Figures:
    """What does not depend on time: tokens of the batch, its FLOPs, the machine's rate, and the peak of memory."""
    import torch

    policy: Policy = _state["learner"].policy
    groups: list[Group] = _state["groups"]
    lengths = [len(g.prompt_ids) + len(s.rollout.token_ids) for g in groups for s in g.verified]
    completion_tokens = sum(len(s.rollout.token_ids) for g in groups for s in g.verified)
    computed = completion_tokens + sum(len(g.prompt_ids) for g in groups) if policy.packs else sum(lengths)
    cuda = torch.cuda.is_available()
    return {
        "completion_tokens": completion_tokens,
        "computed_tokens": computed,
        "flops": computed * flops_per_token(policy, sum(n * n for n in lengths) / sum(lengths)),
        "matmul_flops_per_s": matmul_flops_per_s(policy.dtype, policy.device),
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if cuda else None,
    }


def flops_per_token(policy: "Policy", length: float) -> float:
    """Of a forward and a backward pass: 4·N_frozen + 6·N_adapter + 12·L·H·Q·T.

    A frozen weight has no gradient of its own, which saves a third of its passes. N are weights of matrix products,
    the output layer's among them; L layers, H heads of width Q, and T tokens that a token is in one sequence with.

    Args:
        length: T, the mean over tokens.
    """
    from torch import nn

    trained = sum(p.numel() for p in policy.trainable)
    base = policy.model.get_base_model()
    frozen = sum(
        module.weight.numel()
        for name, module in base.named_modules()
        if isinstance(module, nn.Linear) and not module.weight.requires_grad and "lora_" not in name
    )
    text = base.config.get_text_config()
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return float(4 * frozen + 6 * trained + 12 * text.num_hidden_layers * heads * width * length)


def matmul_flops_per_s(dtype: Any, device: Any) -> float:
    """The best rate of square matrix products with as many threads as the learner has."""
    import torch

    best = 0.0
    for side in MATMUL_SIDES:
        a = torch.randn(side, side, dtype=dtype, device=device)
        a @ a
        times, begin = 0, time.perf_counter()
        while (passed := time.perf_counter() - begin) < MATMUL_S:
            for _ in range(4):
                a @ a
            times += 4
            if device.type == "cuda":
                torch.cuda.synchronize()
        best = max(best, times * 2 * side**3 / passed)
    return best
