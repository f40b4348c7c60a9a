"""What is said of each rate, and of all of them."""

import pytest

from rl.learner.gain import Gain
from rl.learner.rates import Trial, Verdict, conclusion, judge


def trial(lr: float, low: float, value: float, high: float) -> Trial:
    gain = Gain(value=value, low=low, high=high)
    return Trial(lr=lr, moved=0.1, ess=0.5, gain=gain, clipped=0.0, grad_norm=1.0)


FAR = Trial(lr=1e-2, moved=6.0, ess=0.01, gain=None, clipped=0.3, grad_norm=9.0)
LOST = Trial(lr=1e-1, moved=None, ess=None, gain=None, clipped=None, grad_norm=None, failure="not finite")


def test_each_rate_is_judged_against_the_best() -> None:
    trials = [
        LOST,
        FAR,
        trial(1e-6, 0.0001, 0.0002, 0.0003),  # a gain beyond doubt, and not worth a run
        trial(1e-5, -0.001, 0.001, 0.003),
        trial(3e-5, -0.01, 0.01, 0.03),  # neither a gain nor its absence
        trial(1e-4, 0.004, 0.01, 0.016),
        trial(5e-4, 0.02, 0.05, 0.08),
        trial(1e-3, -0.02, 0.06, 0.14),
        trial(3e-3, -0.4, -0.2, -0.1),
    ]
    judged = {j.trial.lr: j.verdict for j in judge(trials)}
    assert judged == {
        **dict.fromkeys((1e-6, 1e-5), Verdict.TOO_SMALL),
        **dict.fromkeys((3e-5, 1e-3), Verdict.UNCLEAR),
        **dict.fromkeys((1e-4, 5e-4), Verdict.USABLE),
        **dict.fromkeys((3e-3, 1e-2, 1e-1), Verdict.TOO_LARGE),
    }
    assert list(judged) == sorted(judged)
    said = conclusion(trials, 8)
    assert said.startswith("usable: 0.0001 … 0.0005; best estimate 0.0005 (+0.050 reward in 8 updates [+0.020, +0.080]")
    assert "the best of 9, so optimistic" in said


@pytest.mark.parametrize("trials", [[LOST], [FAR, trial(1e-6, -0.1, 0.0, 0.1)]])
def test_without_a_gain_no_rate_is_named(trials: list[Trial]) -> None:
    assert conclusion(trials, 8) == f"no usable rate: none of {len(trials)} shows a gain in 8 updates"
    assert Verdict.USABLE not in [j.verdict for j in judge(trials)]
