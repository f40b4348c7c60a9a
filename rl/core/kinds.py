"""The losses by name, and the numbers their papers give them. Without torch: the configuration reads it."""

from dataclasses import dataclass
from enum import StrEnum


class AdvantageScale(StrEnum):
    """What r − mean of the group is divided by."""

    GROUP = "group"
    """The group's standard deviation: GRPO."""
    BATCH = "batch"
    """The standard deviation of all rewards of the batch (Liu et al. 2025, arXiv 2508.08221)."""
    NONE = "none"
    """Nothing: Dr. GRPO, whose authors show that the division favours problems of extreme difficulty."""


class LossKind(StrEnum):
    """Which surrogate is optimised, and what the sum over tokens is divided by (`loss.token_weights`)."""

    GRPO = "grpo"
    """Clipped ratio per token, mean over a sample's tokens, mean over samples (arXiv 2402.03300, eq. 3)."""
    DR_GRPO = "dr_grpo"
    """The same divided by a constant, so that length carries no bias (arXiv 2503.20783)."""
    DAPO = "dapo"
    """Mean over all tokens, and more room to rise than to fall (arXiv 2503.14476, eq. 8)."""
    GSPO = "gspo"
    """One ratio for the whole completion, the geometric mean of its tokens' (arXiv 2507.18071, eq. 5, 7)."""
    CISPO = "cispo"
    """REINFORCE weighted by the clipped ratio: no token loses its gradient (arXiv 2506.13585, eq. 4)."""


class ImportanceMode(StrEnum):
    """What becomes of an importance weight above the cap, and whether tokens or whole completions have one.

    Truncate: Yao, Liu et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training".
    Mask, i.e. drop the token or the completion: Liu, Li et al. 2025, "When Speed Kills Stability".
    """

    TOKEN_TRUNCATE = "token_truncate"
    TOKEN_MASK = "token_mask"
    SEQUENCE_TRUNCATE = "sequence_truncate"
    SEQUENCE_MASK = "sequence_mask"


@dataclass(frozen=True, kw_only=True, slots=True)
class LossDefaults:
    """What a loss is run with unless the user says otherwise."""

    clip_low: float
    clip_high: float
    scale: AdvantageScale = AdvantageScale.GROUP


LOSS_DEFAULTS = {
    # 0.2 is PPO's own (arXiv 1707.06347, table 1).
    LossKind.GRPO: LossDefaults(clip_low=0.2, clip_high=0.2),
    LossKind.DR_GRPO: LossDefaults(clip_low=0.2, clip_high=0.2, scale=AdvantageScale.NONE),
    LossKind.DAPO: LossDefaults(clip_low=0.2, clip_high=0.28),
    # Section 5.1: a mean over the completion moves far less than one token's ratio.
    LossKind.GSPO: LossDefaults(clip_low=3e-4, clip_high=4e-4),
    # Bounds of the ratio, not distances from 1: no lower one, as in the paper; 5 is ScaleRL's (2510.13786).
    LossKind.CISPO: LossDefaults(clip_low=0.0, clip_high=5.0),
}
"""CISPO keeps the ratio in [clip_low, clip_high], all the others in [1 − clip_low, 1 + clip_high]."""
