"""Correlations against scipy's, and by simulation."""

import numpy as np
import pytest
from scipy import stats

from rl.evaluate.correlation import pearson, spearman

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=12), RNG.normal(size=12)


def test_pearson_and_its_interval_are_scipys() -> None:
    found, theirs = pearson(list(X), list(Y)), stats.pearsonr(X, Y)
    assert found is not None
    interval = theirs.confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((theirs.statistic, interval.low, interval.high))
    assert found.n == 12


def test_spearman_is_scipys_with_ties_too() -> None:
    tied = np.round(Y)
    assert len(set(tied)) < 12
    found = spearman(list(X), list(tied))
    assert found is not None
    assert found.value == pytest.approx(stats.spearmanr(X, tied).statistic)


def test_three_pairs_are_too_few_for_an_interval_and_what_does_not_vary_correlates_with_nothing() -> None:
    three = pearson([1, 2, 3], [1, 2, 4])
    assert three is not None
    assert (three.low, three.high) == (None, None)
    assert pearson([1, 1, 1, 1], [1, 2, 3, 4]) is None
    assert spearman([1.0], [2.0]) is None


def test_a_perfect_line_has_an_interval() -> None:
    line = pearson([1, 2, 3, 4, 5], [2, 4, 6, 8, 10])
    assert line is not None
    assert line.value == pytest.approx(1)
    assert line.low is not None
    assert line.low > 0.99


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 values of x but 3 of y"):
        pearson([1, 2], [1, 2, 3])


@pytest.mark.parametrize("n", [5, 9, 25])
@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_intervals_hold_the_truth(n: int, rho: float) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2000, n))
    y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=(2000, n))
    found = [pearson(list(a), list(b)) for a, b in zip(x, y, strict=True)]
    hits = [c.low <= rho <= c.high for c in found if c and c.low is not None and c.high is not None]
    assert len(hits) == 2000
    assert 0.93 <= np.mean(hits) <= 0.97


@pytest.mark.parametrize("n", [4, 5, 6, 7])
def test_few_ranks_have_no_interval(n: int) -> None:
    """With four pairs two of 24 orders agree wholly, one of them by chance."""
    ranks = spearman(range(n), [x**3 for x in range(n)])
    assert ranks is not None
    assert (ranks.value, ranks.low, ranks.high) == (pytest.approx(1), None, None)


@pytest.mark.parametrize("n", [8, 12, 25])
def test_intervals_of_ranks_leave_out_zero_by_chance_in_one_of_twenty(n: int) -> None:
    rng = np.random.default_rng(2)
    found = [spearman(list(rng.normal(size=n)), list(rng.normal(size=n))) for _ in range(2000)]
    wrong = [c.low > 0 or c.high < 0 for c in found if c and c.low is not None and c.high is not None]
    assert len(wrong) == 2000
    assert 0.03 <= np.mean(wrong) <= 0.065


def test_several_correlations_have_wider_intervals() -> None:
    of_ten = pearson(list(X), list(Y), comparisons=10)
    theirs = stats.pearsonr(X, Y).confidence_interval(0.995)
    assert of_ten is not None
    assert (of_ten.low, of_ten.high) == pytest.approx((theirs.low, theirs.high))
