"""Does a result go with a setting? Pearson's and Spearman's correlation over the arms of a study."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import atanh, sqrt, tanh
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from rl.evaluate.stats import LEVEL

FEWEST = 4
"""Pairs that an interval takes: Fisher's divides by n − 3."""
FEWEST_RANKS = 8
"""The same of ranks: fewer often agree wholly by chance, and then the interval has no width."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Correlation:
    """A coefficient with its 95 % interval, which is None with too few pairs."""

    value: float
    low: float | None
    high: float | None
    n: int


def pearson(x: Sequence[float], y: Sequence[float], *, comparisons: int = 1) -> Correlation | None:
    """Of n pairs, by Fisher's z (1921): how near they lie to a line. None where x or y does not vary.

    Args:
        comparisons: how many correlations are made at once: the interval is corrected for them (Bonferroni).

    Raises:
        ValueError: there are not as many x as y.
    """
    return _correlation(np.asarray(x, dtype=float), np.asarray(y, dtype=float), 1.0, FEWEST, comparisons)


def spearman(x: Sequence[float], y: Sequence[float], *, comparisons: int = 1) -> Correlation | None:
    """Of the ranks, equal values having their mean rank: does y rise with x, on whatever curve?

    By Fisher's z with the variance 1.06 / (n − 3) of Fieller, Hartley & Pearson 1957 (Biometrika 44, 470–481).

    Raises:
        ValueError: there are not as many x as y.
    """
    return _correlation(_ranks(x), _ranks(y), 1.06, FEWEST_RANKS, comparisons)


def _correlation(
    x: NDArray[np.float64], y: NDArray[np.float64], variance: float, fewest: int, comparisons: int
) -> Correlation | None:
    if x.size != y.size:
        raise ValueError(f"{x.size} values of x but {y.size} of y")
    if x.size < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    value, n = float(np.corrcoef(x, y)[0, 1]), x.size
    if n < fewest:
        return Correlation(value=value, low=None, high=None, n=n)
    half = -NormalDist().inv_cdf(LEVEL / comparisons / 2) * sqrt(variance / (n - 3))
    z = atanh(min(max(value, -1 + 1e-12), 1 - 1e-12))  # a perfect line has no finite z
    return Correlation(value=value, low=tanh(z - half), high=tanh(z + half), n=n)


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    _, index, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[index].astype(np.float64)
