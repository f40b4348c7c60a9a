"""What an update saw by age, the staleness of its samples: here it shows where they are too stale to learn from."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rl.learner.loss import LossSums

AGES = 8
"""So many classes are told apart: one of each staleness up to a bound of 7, wider ones beyond."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AgeStats:
    """Of the tokens of one class. Shares and means are over them."""

    tokens: int
    mismatch_kl: float
    """KL(sampler ‖ policy), nats: at staleness 0 numerics alone, beyond it also what was learned since"""
    ess: float
    clipped: float
    """share that either clip acted on"""


def age_classes(bound: int) -> list[range]:
    """The classes of staleness 0 … bound, of one width but for the last.

    Example: 0, 1, … 7 for a bound of 7; 0–2, 3–5, … 18–20 for a bound of 20.
    """
    width = bound // AGES + 1
    return [range(first, min(first + width, bound + 1)) for first in range(0, bound + 1, width)]


def age_stats(sums_AF: Tensor, classes: Sequence[range]) -> dict[str, AgeStats]:
    """The classes that have tokens, by name: ``3``, or ``18-20`` where they are wider.

    Args:
        sums_AF: the fields of `LossSums` for each class.
    """
    return {
        str(ages[0]) if len(ages) == 1 else f"{ages[0]}-{ages[-1]}": AgeStats(
            tokens=int(sums.tokens),
            mismatch_kl=float(sums.mismatch_kl / sums.tokens),
            ess=float(sums.ess),
            clipped=float((sums.clipped_low + sums.clipped_high) / sums.tokens),
        )
        for ages, sums in zip(classes, map(LossSums._make, sums_AF), strict=True)
        if sums.tokens
    }
