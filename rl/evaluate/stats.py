"""pass@k, maj@k, and how sure we may be of them.

The unit is the question: the samples of one question share its difficulty and are not independent. So every
statistic is first made per question, and every interval and test takes the questions as its independent
draws. The population is the questions one could have asked; sampling noise within a question is part of
what varies.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb, erfc, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

MAJ_DRAWS = 10_000
"""Monte Carlo draws of maj@k for one question: a standard error of 0.005 at most."""

LEVEL = 0.05
"""Intervals are of 95 %, two-sided: of all comparisons together this share may be wrong."""

_Z = -NormalDist().inv_cdf(LEVEL / 2)
_PRIOR_QUESTIONS = 2.0
"""Weight of the worst case in the design effect, counted in questions; chosen by simulation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A mean over questions with its 95 % interval, all in [0, 1].

    Example: ``Estimate(value=0.5, low=0.37, high=0.63, n_questions=50)``
    """

    value: float
    low: float
    high: float
    n_questions: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A mean of per-question differences with its 95 % interval, all in [−1, 1], and its p-value.

    The interval leaves out 0 exactly when ``p_value < 0.05``: both come from one test. Of several comparisons at once
    both are corrected by Bonferroni: whatever the arms have in common, all intervals together hold the truth in 95 %.
    """

    value: float
    low: float
    high: float
    p_value: float
    """Two-sided, of a mean difference of 0."""
    n_questions: int
    comparisons: int = 1
    """How many the interval and the p-value are corrected for."""


def pass_at_k(n: int, right: int, k: int) -> float:
    """Probability that at least one of k samples, drawn without replacement out of n, is right.

    The unbiased estimate 1 − C(n−c, k) / C(n, k) of Chen et al. 2021 (arXiv 2107.03374, eq. 1), in exact
    integers with one division at the end: correctly rounded for every n.

    Example: ``pass_at_k(n=4, right=1, k=2) == 0.5``

    Raises:
        ValueError: unless 1 ≤ k ≤ n and 0 ≤ right ≤ n.
    """
    _check_k(n, k)
    if not 0 <= right <= n:
        raise ValueError(f"{right} of {n} samples cannot be right")
    subsets = comb(n, k)
    return (subsets - comb(n - right, k)) / subsets


def maj_at_k(answers: Sequence[str | None], right: Sequence[bool], k: int, *, seed: int = 0) -> float:
    """Probability that the most frequent answer of k samples, drawn without replacement out of n, is right.

    Answers vote as the strings they are; whoever wants 1/2 and 0.5 to vote together normalises them before.
    Ties are broken uniformly at random. None (nothing was extracted) casts no vote and so never wins; a
    draw without any vote is wrong. Where samples of one answer were marked differently, that answer counts
    as right by the share so marked.

    Exact for k = n; below, the mean of ``MAJ_DRAWS`` seeded draws.

    Example: ``maj_at_k(["7", "8", None], [True, False, False], k=3) == 0.5``

    Args:
        answers: n answers.
        right: n marks.

    Raises:
        ValueError: unless 1 ≤ k ≤ n and there are as many marks as answers.
    """
    n = len(answers)
    _check_k(n, k)
    if len(right) != n:
        raise ValueError(f"{n} answers but {len(right)} marks")
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    right_votes = Counter(answer for answer, is_right in zip(answers, right, strict=True) if is_right)
    if k == n:
        most = max(votes.values())
        winners = [answer for answer, count in votes.items() if count == most]
        return sum(right_votes[answer] for answer in winners) / most / len(winners)
    p_right = np.array([right_votes[answer] / count for answer, count in votes.items()])

    urn = [*votes.values(), n - votes.total()]  # the abstentions come last
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(urn, k, size=MAJ_DRAWS)[:, :-1]
    wins = (drawn > 0) & (drawn == drawn.max(axis=1, keepdims=True))
    return float(np.mean(wins @ p_right / np.maximum(wins.sum(axis=1), 1)))


def estimate_mean(per_question: Sequence[float]) -> Estimate:
    """Mean of one statistic per question in [0, 1], with a 95 % interval that is clustered by question.

    Wilson's score interval at the effective sample size N / D, recommended for proportions in clustered
    samples by Franco et al. 2019 (PMC6690503). The design effect D = variance / (mean · (1 − mean)) is
    relative to one sample per question: 1 when every question is all right or all wrong, and less
    otherwise.

    Near 0 and 1 the few questions that differ from the rest cannot tell D, and taking it at its word makes
    the interval far too narrow. So D is shrunk towards 1, its worst case, as if ``_PRIOR_QUESTIONS`` more
    questions had said so beside the m that differ. With one sample per question this is Wilson's interval
    itself, and where all questions are right (or wrong) it is Wilson's for N of N: never of width zero.

    Not a t-interval or a percentile bootstrap over questions: at a mean of 0.02 and 50 questions both can
    hold the truth less than 70 % of the time, and both have width zero where all questions agree (compare
    Bowyer et al. 2025, arXiv 2503.01747). This one is tested by simulation: 93 to 97 % in the middle,
    rather too wide than too narrow at the extremes. One weakness stays: hard questions so rare that hardly
    any came up cannot be seen in the data. With pass@8 at 0.96 because of a thin tail of them, expect about
    90 % from 50 questions.

    Raises:
        ValueError: there is no question, or a value is not in [0, 1].
    """
    x = np.asarray(per_question, dtype=np.float64)
    if x.size == 0 or not np.all((x >= 0) & (x <= 1)):
        raise ValueError(f"expected at least one value, all in [0, 1]; got {list(per_question)[:5]}")
    mean, width = float(x.mean()), _Z**2 * design_effect(x) / x.size
    low, high = score_interval(mean, width, width)
    return Estimate(value=mean, low=low, high=high, n_questions=x.size)


def design_effect(x: NDArray[np.float64]) -> float:
    """How much the mean of the questions' values x varies, relative to one sample per question (`estimate_mean`)."""
    worst = float(x.mean()) * (1 - float(x.mean()))  # no variable in [0, 1] of this mean varies more
    design = min(1.0, float(x.var()) / worst) if worst > 0 else 1.0
    m = int(min(np.count_nonzero(x > 0), np.count_nonzero(x < 1)))
    return (m * design + _PRIOR_QUESTIONS) / (m + _PRIOR_QUESTIONS)


def score_interval(mean: float, below: float, above: float) -> tuple[float, float]:
    """The bounds of Wilson's interval of a mean in [0, 1], of which either may have its own width.

    Args:
        below: z² / N of the lower bound, N being the effective number of samples.
        above: that of the upper bound.
    """

    def bound(z2: float, sign: int) -> float:
        return (mean + z2 / 2 + sign * sqrt(z2 * mean * (1 - mean) + z2**2 / 4)) / (1 + z2)

    # At 0 and 1 one bound is the mean itself; rounding must not push it past the mean or out of [0, 1].
    return max(0.0, min(mean, bound(below, -1))), min(1.0, max(mean, bound(above, +1)))


def paired_difference(base: Mapping[str, float], other: Mapping[str, float], *, comparisons: int = 1) -> Difference:
    """Mean of other − base over the same questions, with a 95 % interval and a two-sided p-value.

    A paired z-test on the differences and two pseudo-questions, +δ and −δ. Where every difference is −1, 0
    or 1 (one sample per question) δ is 1, and this is the adjusted Wald interval of Bonett & Price 2012 (J.
    Educ. Behav. Stat. 37, 479–488). In general δ² is the mean square of the differences other than 0 and of
    one of size 1: noise at the data's own scale, so that many small differences do not drown.

    The pseudo-questions matter where few questions differ. There a plain t-interval on 50 questions can hold
    the true difference less than 70 % of the time, and has width zero where no question differs; this one is
    rather too wide. Coverage and type I error are tested by simulation. A sign-flip permutation test agrees
    on the p-value, but an interval made beside it could contradict it.

    Args:
        base: question id → statistic in [0, 1].
        other: the same for what is compared with base.
        comparisons: how many are made at once: the interval and the p-value are corrected for them (Bonferroni).

    Raises:
        ValueError: the questions differ, there are none, or a value is not in [0, 1].
    """
    if base.keys() != other.keys():
        unpaired = sorted(base.keys() ^ other.keys())
        raise ValueError(f"{len(unpaired)} questions are in only one of both: {unpaired[:5]}")
    if not base or not all(0 <= x <= 1 for values in (base, other) for x in values.values()):
        raise ValueError("expected at least one question, and all values in [0, 1]")
    d = np.array([other[question] - base[question] for question in base])
    centre, variance = centre_and_variance(d)
    z, error = -NormalDist().inv_cdf(LEVEL / comparisons / 2), sqrt(variance)
    return Difference(
        value=float(d.mean()),
        low=max(-1.0, centre - z * error),
        high=min(1.0, centre + z * error),
        p_value=min(1.0, comparisons * erfc(abs(centre) / error / sqrt(2))),
        n_questions=d.size,
        comparisons=comparisons,
    )


def centre_and_variance(d: NDArray[np.float64]) -> tuple[float, float]:
    """Of the mean of the differences d: the middle of its interval, and its variance (`paired_difference`)."""
    delta = sqrt((float(d @ d) + 1) / (np.count_nonzero(d) + 1))
    adjusted = np.append(d, [delta, -delta])
    return float(adjusted.mean()), float(adjusted.var()) / adjusted.size


def _check_k(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and the number of samples, {n}; got {k}")
