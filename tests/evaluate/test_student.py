"""Student's t against scipy's."""

import pytest
from scipy import stats

from rl.evaluate import student


@pytest.mark.parametrize("df", [1, 1.3, 2, 2.7, 4, 30.5, 511, 19_999, 10**6])
@pytest.mark.parametrize("p", [0.9, 0.05, 0.05 / 45, 1e-6])
def test_quantiles_and_tails_are_scipys(df: float, p: float) -> None:
    t = float(stats.t.ppf(1 - p / 2, df))
    tolerance = 1e-6 if df < 20_000 else 1e-3
    assert student.quantile(p, df) == pytest.approx(t, rel=tolerance)
    assert student.two_sided_p(t, df) == pytest.approx(p, rel=tolerance)
    assert student.two_sided_p(-t, df) == student.two_sided_p(t, df)


def test_at_zero_nothing_is_unlikely() -> None:
    assert student.two_sided_p(0.0, 3) == 1.0
