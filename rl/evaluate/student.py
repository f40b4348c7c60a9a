"""Student's t distribution: what intervals from few seeds need, and numpy and the standard library lack."""

from functools import lru_cache
from math import atan, pi, sqrt, tan
from statistics import NormalDist

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)
_NORMAL = 2e4
"""Degrees of freedom from which on it is taken for a normal distribution: their quantiles differ by less than 1e-4."""


def two_sided_p(t: float, df: float) -> float:
    """P(|T| > |t|) with ``df`` > 0 degrees of freedom, which need not be whole.

    With t = √df · tan θ the density is proportional to cos(θ)^(df − 1): integrated by Gauss and Legendre.

    Example: ``two_sided_p(12.706, 1)`` is 0.05.
    """
    if df >= _NORMAL:
        return 2 * NormalDist().cdf(-abs(t))
    return min(1.0, _tail(atan(abs(t) / sqrt(df)), df) / _whole(df))


@lru_cache(maxsize=4096)
def quantile(p: float, df: float) -> float:
    """The t that ``two_sided_p(t, df)`` is p for; 0 < p < 1.

    Example: ``quantile(0.05, 4)`` is 2.776.
    """
    if df >= _NORMAL:
        return -NormalDist().inv_cdf(p / 2)
    whole, low, high = _whole(df), 0.0, pi / 2
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (middle, high) if _tail(middle, df) > p * whole else (low, middle)
    return sqrt(df) * tan(low)


@lru_cache(maxsize=4096)
def _whole(df: float) -> float:
    return _tail(0.0, df)


def _tail(theta: float, df: float) -> float:
    """The integral of cos^(df − 1) from theta to π/2."""
    half = (pi / 2 - theta) / 2
    # The sine of the angle to π/2 is exact where the cosine of an angle near it is not.
    return half * float(_WEIGHTS @ (np.sin(half * (1 - _NODES)) ** (df - 1)))
