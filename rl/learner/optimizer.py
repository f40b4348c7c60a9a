"""The optimizers, on the matrices that are trained: those of LoRA pairs, or whole differences (`rl.learner.full`)."""

from collections.abc import Sequence

import torch
from torch import nn

from rl.core.config import TrainConfig


def make_optimizer(parameters: Sequence[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW or Muon as torch has them; the learner sets the rate of each step.

    Muon (Jordan et al. 2024) makes each matrix's momentum nearly orthogonal. With `match_rms_adamw` the update of an
    m × n matrix is 0.2 · sqrt(max(m, n)) times that: its elements have a root mean square near 0.2, as AdamW's have in
    practice, so that one rate and weight decay mean about the same for both (Liu et al. 2025, "Muon is Scalable for LLM
    Training", arXiv 2502.16982, section 2.2). This holds for the r × n matrices of a LoRA pair, as long as their
    momentum has rank r: then all r directions move alike, the weakest as far as the strongest. Whether that is good for
    LoRA is not known; the paper pre-trains full matrices. The iteration is in bfloat16, and approximate: singular
    values of an update are about 0.7 to 1.2.
    """
    if config.optimizer == "muon":
        return torch.optim.Muon(
            parameters, lr=config.lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
    return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
