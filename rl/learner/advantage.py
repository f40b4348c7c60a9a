"""Advantages: each reward relative to its own group. Made when a batch is collated, and stored nowhere."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rl.core.kinds import AdvantageScale

EPSILON = 1e-4
"""Added to the standard deviation, as in TRL: a group whose rewards hardly differ must not be blown up."""


def group_advantages(rewards: Sequence[Sequence[float]], scale: AdvantageScale) -> Tensor:
    """``r − mean(group)``, divided by ``std + 1e-4`` of the group or of the batch, or by nothing (Dr. GRPO).

    The standard deviation is the unbiased one (n − 1), as in TRL; it is 0 for a single reward. Source:
    DeepSeekMath, arXiv 2402.03300, section 4.1.2; without the division Dr. GRPO, arXiv 2503.20783.

    Args:
        rewards: one sequence per group. Sizes may differ: what could not be verified has left its group.
        scale: what the difference is divided by.

    Returns:
        advantages_B in float32, the groups one after the other. Equal rewards give zeros.

    Example:
        Two groups, the second lost a sample. Means 0.25 and 0.5, standard deviations 0.5 and 0.7071::

            >>> group_advantages([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0]], AdvantageScale.GROUP)
            tensor([ 1.4997, -0.4999, -0.4999, -0.4999, -0.7070,  0.7070])
            >>> group_advantages([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0]], AdvantageScale.NONE)
            tensor([ 0.7500, -0.2500, -0.2500, -0.2500, -0.5000,  0.5000])
    """
    # In float64: a rounding error in the mean of equal rewards would be multiplied by 1 / EPSILON.
    groups = [torch.tensor(rewards_G, dtype=torch.float64) for rewards_G in rewards]
    centred = [rewards_G - rewards_G.mean() for rewards_G in groups]
    match scale:
        case AdvantageScale.GROUP:
            centred = [c_G / (_std(rewards_G) + EPSILON) for c_G, rewards_G in zip(centred, groups, strict=True)]
        case AdvantageScale.BATCH:
            std = _std(torch.cat(groups))
            centred = [c_G / (std + EPSILON) for c_G in centred]
        case AdvantageScale.NONE:
            pass
    return torch.cat(centred).float()


def _std(rewards_N: Tensor) -> Tensor:
    return rewards_N.std() if len(rewards_N) > 1 else rewards_N.new_zeros(())
