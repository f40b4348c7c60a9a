"""Arms of one or several seeds, compared on the same questions; and the best of many.

Scores are arrays of seeds × questions (S, Q): the statistic in [0, 1] of each question in each run of an arm.
Questions and seeds are crossed: all runs answer the same questions. So the mean of an arm varies with the questions
that were asked and with the seeds that were trained, and what is left (the sampling, and how one seed does on one
question) is in the variance over questions and in that over seeds. Compare the two-way clustered variance of Cameron,
Gelbach & Miller 2011 (J. Bus. Econ. Stat. 29, 238–249): over questions + over seeds − what is in both.

Two or three seeds tell their variance badly, and are far too often far too much alike by chance. Therefore:

* A pair takes the larger of its own variance over seeds and of the mean one of all arms of the study, with the degrees
  of freedom (Welch 1938; Satterthwaite 1946) of the latter.
* Its interval's half-width is √(z² · variance over questions + t² · variance over seeds), each part with its own
  quantile, as Cochran 1964 (Biometrics 20, 191–195) did. A t-interval with one effective number of degrees of freedom
  finds false differences among ten identical arms of two seeds in up to 29 % of studies, not 5 %.
* The mean of one arm takes the mean variance of all: of an arm that scatters more than the others its interval is too
  narrow, and what is claimed of it rests on the comparisons.

By simulation (`python -m tests.study.simulation`): identical arms of 2, 3 or 5 seeds are told apart in at most 5 % of
the studies. One weakness stays: an arm of two seeds whose runs scatter eight times as much as those of all others
looks different from them in up to 9 % of the studies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from rl.evaluate import student
from rl.evaluate.stats import (
    LEVEL,
    Difference,
    Estimate,
    centre_and_variance,
    design_effect,
    score_interval,
)

Scores = NDArray[np.float64]

_NORMAL = NormalDist()
_BELOW, _ABOVE = 0.04, 0.025
"""Of a best of many: how often its interval may lie above the truth, and below it. The sum is more than 5 %, but the
second hardly happens to the luckiest of several; by simulation they are 3 to 7 % together, be the arms alike or not."""
_DRAWS = 5_000
MARGIN = 10 / 9
"""Corrected is for so many times the comparisons that are made: with few questions and few samples of each a test of
5 % is wrong in a little more than 5 %, and all claims of a study are to be wrong in less."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedNoise:
    """How much runs of one arm scatter beyond what their questions' sampling explains, over all arms of a study."""

    variance: float
    """Of the true mean of one run; 0 where the runs are no less alike than samples of one policy would be."""
    df: float
    """Degrees of freedom of the estimate, where all arms scatter alike."""
    careful_df: float
    """Fewer, by how differently the arms scatter (Welch, Satterthwaite)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Best:
    """The arm of the highest mean, and where its true mean lies although it was chosen for being the highest."""

    index: int
    estimate: Estimate
    rivals: list[int]
    """The arms that are not shown to be worse; the best is among them."""


def seed_noise(arms: Sequence[Scores]) -> SeedNoise | None:
    """Pooled over the arms with several seeds; None where there is none."""
    several = [scores for scores in arms if len(scores) > 1]
    if not several:
        return None
    dfs = np.array([len(scores) - 1 for scores in several])
    between = np.array([scores.mean(axis=1).var(ddof=1) for scores in several])
    beyond = np.array([_seed_variance(scores) for scores in several])
    weighted = dfs * between
    welch = float(weighted.sum() ** 2 / (weighted**2 / dfs).sum()) if weighted.any() else float(dfs.sum())
    variance = max(0.0, float(np.average(beyond, weights=dfs)))
    return SeedNoise(variance=variance, df=float(dfs.sum()), careful_df=welch)


def arm_difference(base: Scores, other: Scores, *, comparisons: int = 1, noise: SeedNoise | None = None) -> Difference:
    """Mean of other − base over questions and seeds, with a 95 % interval and a two-sided p-value.

    With one seed in either it is made as `rl.evaluate.stats.paired_difference` is, and speaks of these runs only: how
    other seeds would have done cannot be known from one.

    Args:
        base: (S, Q).
        other: (S', Q), on the same questions in the same order.
        comparisons: how many are made at once: the interval and the p-value are corrected for them (Bonferroni).
        noise: of all arms of the study; that of these two unless given.
    """
    parts = _parts(base, other, noise)
    counted = comparisons * MARGIN
    half = _half_width(LEVEL / counted, parts)
    return Difference(
        value=float(other.mean() - base.mean()),
        low=max(-1.0, parts.centre - half),
        high=min(1.0, parts.centre + half),
        p_value=min(1.0, counted * _p_value(parts)),
        n_questions=base.shape[1],
        comparisons=comparisons,
    )


def arm_mean(scores: Scores, *, noise: SeedNoise | None = None) -> Estimate:
    """Mean over questions and seeds with its 95 % interval; with one seed `rl.evaluate.stats.estimate_mean`.

    Args:
        scores: (S, Q).
        noise: of all arms of the study; its own unless given.
    """
    return _estimate(scores, noise or seed_noise([scores]), LEVEL / 2, LEVEL / 2)


def best_of(arms: Sequence[Scores], *, noise: SeedNoise | None = None) -> Best:
    """The best of several arms, or of the checkpoints of one run, with a 95 % interval that knows of the choice.

    The highest of many means is higher than it would be again. So the lower bound is as far down as the largest of the
    rivals' errors reaches: its quantile, by the correlations of arms that answered the same questions. Arms that are
    shown to be worse could not have been chosen by luck, and do not count (compare "locally simultaneous inference",
    Zrnic & Fithian 2024, arXiv 2212.09009). The upper bound is that of a mean that was not chosen.

    Args:
        arms: (S, Q) each, on the same questions in the same order.
        noise: of all arms of the study; that of these arms unless given.
    """
    noise = noise or seed_noise(arms)
    means = [float(scores.mean()) for scores in arms]
    best = int(np.argmax(means))
    level = LEVEL / max(1, len(arms) - 1)
    pairs = [_parts(scores, arms[best], noise) for scores in arms]
    rivals = [i for i, parts in enumerate(pairs) if i == best or parts.centre <= _half_width(level, parts)]
    if len(rivals) == 1:
        return Best(index=best, estimate=arm_mean(arms[best], noise=noise), rivals=rivals)
    covariance = np.atleast_2d(np.cov([arms[index].mean(axis=0) for index in rivals])) / arms[best].shape[1]
    covariance += np.diag([_seeds_part(arms[index], noise) for index in rivals])
    scale = np.sqrt(np.diag(covariance))
    scale[scale == 0] = 1.0
    correlation = covariance / np.outer(scale, scale)
    np.fill_diagonal(correlation, 1.0)  # of an arm that is right everywhere, too: its error is not 0, but was not seen
    values, vectors = np.linalg.eigh(correlation)
    errors = _normals(len(rivals)) @ (vectors * np.sqrt(np.maximum(values, 0))).T
    below = 1 - _NORMAL.cdf(float(np.quantile(errors.max(axis=1), 1 - _BELOW)))
    return Best(index=best, estimate=_estimate(arms[best], noise, below, _ABOVE), rivals=rivals)


@lru_cache(maxsize=64)
def _normals(m: int) -> NDArray[np.float64]:
    """Independent standard normals, `_DRAWS` × m: the same in every process."""
    return np.random.default_rng(m).standard_normal((_DRAWS, m))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parts:
    """Of the mean difference of two arms: the middle of its interval, and the parts of its variance."""

    centre: float
    over_questions: float
    over_seeds: float
    seeds_df: float


def _parts(base: Scores, other: Scores, noise: SeedNoise | None) -> _Parts:
    centre, over_questions = centre_and_variance(other.mean(axis=0) - base.mean(axis=0))
    over_seeds, seeds_df = 0.0, 1.0
    if min(len(base), len(other)) > 1:
        noise = noise or seed_noise([base, other])
        assert noise is not None  # both have several seeds
        own = _seed_variance(base) / len(base) + _seed_variance(other) / len(other)
        over_seeds = max(0.0, own, noise.variance * (1 / len(base) + 1 / len(other)))
        seeds_df = noise.careful_df
    return _Parts(centre=centre, over_questions=over_questions, over_seeds=over_seeds, seeds_df=seeds_df)


def _estimate(scores: Scores, noise: SeedNoise | None, below: float, above: float) -> Estimate:
    """`below` and `above` are how often the interval may lie above the truth, and below it."""
    per_question = scores.mean(axis=0)
    mean, n = float(per_question.mean()), per_question.size
    design, worst = design_effect(per_question) / n, mean * (1 - mean)
    seeds = _seeds_part(scores, noise) / worst if worst > 0 else 0.0
    df = noise.df if noise else 1.0

    def width(share: float) -> float:
        over_seeds = student.quantile(2 * share, df) ** 2 * seeds if seeds else 0.0
        return float(_NORMAL.inv_cdf(share) ** 2 * design + over_seeds)

    low, high = score_interval(mean, width(below), width(above))
    return Estimate(value=mean, low=low, high=high, n_questions=n)


def _seeds_part(scores: Scores, noise: SeedNoise | None) -> float:
    """The variance of an arm's mean that its seeds make; 0 of a single run, which speaks of itself only."""
    return noise.variance / len(scores) if noise and len(scores) > 1 else 0.0


def _seed_variance(scores: Scores) -> float:
    """Of the true means of runs, unbiased and therefore sometimes below 0."""
    of_runs: float = scores.mean(axis=1).var(ddof=1)
    questions: int = scores.shape[1]
    return of_runs - residual_variance(scores) / questions


def residual_variance(scores: Scores) -> float:
    """Of one run on one question, beyond what the run and the question are on average; at least two seeds."""
    s, q = scores.shape
    residuals = scores - scores.mean(axis=0) - scores.mean(axis=1, keepdims=True) + scores.mean()
    return float(np.square(residuals).sum() / ((s - 1) * max(1, q - 1)))


def _half_width(level: float, parts: _Parts) -> float:
    z = _NORMAL.inv_cdf(level / 2)
    t = student.quantile(level, parts.seeds_df) if parts.over_seeds else 0.0
    return sqrt(z**2 * parts.over_questions + t**2 * parts.over_seeds)


def _p_value(parts: _Parts) -> float:
    """The level whose half-width is the distance of the centre from 0."""
    distance = abs(parts.centre)
    if not parts.over_seeds:
        return 2 * _NORMAL.cdf(-distance / sqrt(parts.over_questions))
    low, high = 0.0, distance / sqrt(parts.over_seeds)
    for _ in range(25):
        t = (low + high) / 2
        z = _NORMAL.inv_cdf(max(student.two_sided_p(t, parts.seeds_df), 1e-300) / 2)
        near = z**2 * parts.over_questions + t**2 * parts.over_seeds < distance**2
        low, high = (t, high) if near else (low, t)
    return student.two_sided_p(low, parts.seeds_df)
