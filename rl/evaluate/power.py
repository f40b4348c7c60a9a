"""How large a study would show a difference: questions or seeds, from the variances of the one at hand."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist

from rl.evaluate import student
from rl.evaluate.arms import MARGIN, Scores, SeedNoise, residual_variance, seed_noise
from rl.evaluate.stats import LEVEL, centre_and_variance

POWER = 0.8
EFFECT = 0.02
"""Two points of pass@1: what a study should be able to tell apart."""

_POWER_Z = NormalDist().inv_cdf(POWER)
_MOST_QUESTIONS, _MOST_SEEDS = 1_000_000, 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Needed:
    """What would show a true difference in four of five studies; each with the other as it is."""

    questions: int | None
    """In all; None: no number of them would, the seeds limit."""
    seeds: int | None
    """Of each arm, in all; None: no number of them would, the questions limit, or one seed tells nothing of seeds."""


def needed(
    base: Scores, other: Scores, *, effect: float = EFFECT, comparisons: int = 1, noise: SeedNoise | None = None
) -> Needed:
    """Questions or seeds for a paired comparison at the corrected level.

    By simulation, with one seed an arm: the median number of questions is right to 1 %, a single study's to ±20 % in
    nine of ten with 256 questions and in 98 % with 512. Two or three seeds tell their own variance within a factor of
    two or so: of such studies the numbers are a rough guide.

    Args:
        base: (S, Q).
        other: (S', Q), on the same questions in the same order.
        effect: the difference to be seen.
        comparisons: how many are made at once.
        noise: of all arms of the study; that of these two unless given.
    """
    s, q = min(len(base), len(other)), base.shape[1]
    level = LEVEL / comparisons / MARGIN
    shared = q * centre_and_variance(other.mean(axis=0) - base.mean(axis=0))[1]  # as the interval has it
    z = NormalDist().inv_cdf(1 - level / 2)
    if s == 1:
        return Needed(questions=max(2, ceil((z + _POWER_Z) ** 2 * shared / effect**2)), seeds=None)
    noise = noise or seed_noise([base, other])
    assert noise is not None
    variance, per_df = noise.variance, noise.careful_df / (s - 1)
    own = residual_variance(base) / len(base) + residual_variance(other) / len(other)
    residual, shared = residual_variance(base) + residual_variance(other), max(0.0, shared - own)

    def shows(questions: int, seeds: int) -> bool:
        over_questions, over_seeds = (shared + residual / seeds) / questions, 2 * variance / seeds
        t = student.quantile(level, per_df * (seeds - 1)) if over_seeds else 0.0
        half = sqrt(z**2 * over_questions + t**2 * over_seeds)
        return half + _POWER_Z * sqrt(over_questions + over_seeds) <= effect

    return Needed(
        questions=_fewest(lambda n: shows(n, s), _MOST_QUESTIONS),
        seeds=_fewest(lambda n: shows(q, n), _MOST_SEEDS),
    )


def _fewest(enough: Callable[[int], bool], most: int) -> int | None:
    """From 2 on, where what is enough stays enough."""
    if not enough(most):
        return None
    return bisect_left(range(most), True, lo=2, key=enough)
