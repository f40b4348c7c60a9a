"""The estimate of a gain: by hand, and whether its interval holds the truth as often as it says."""

import numpy as np
import pytest
from numpy.typing import NDArray

from rl.learner.gain import Gain, Recorded, ess, estimated_gain

PROBLEMS, SIZE, COMPLETIONS = 128, 8, 30


def test_by_hand() -> None:
    """Two groups of two; the policy doubles the odds of each right completion: weights 2 and 1."""
    recorded = Recorded(
        rewards=np.array([1.0, 0.0, 0.0, 1.0]),
        sampler_logprobs=np.log([0.25, 0.5, 0.5, 0.25]),
        groups=np.array([0, 0, 1, 1]),
        problems=np.array([0, 0, 1, 1]),
    )
    before = recorded.sampler_logprobs
    after = before + np.log([2.0, 1.0, 1.0, 2.0])
    gain = estimated_gain(recorded, before, after)
    assert gain.value == pytest.approx(1 / 3)  # (2·1 − 1 − 1 + 2·1) / 6: the others' mean is 0 for right, 1 for wrong
    assert gain.low == pytest.approx(gain.high) == pytest.approx(1 / 3)  # both groups say the same
    assert ess(after - before) == pytest.approx(36 / (4 * 10))
    assert estimated_gain(recorded, after, after) == Gain(value=0.0, low=0.0, high=0.0)


def draw(rng: np.random.Generator, spread: float) -> tuple[Gain, float, float]:
    """One record of random problems, and a policy that is tilted towards what is right: gain, truth, ess."""
    logits = rng.normal(size=(PROBLEMS, COMPLETIONS)) * 1.5
    right = (rng.random((PROBLEMS, COMPLETIONS)) < rng.beta(0.7, 1, size=(PROBLEMS, 1))).astype(float)
    other = logits + spread * (0.5 * right + rng.normal(size=logits.shape))
    before, after = normalised(logits), normalised(other)
    truth = ((np.exp(after) - np.exp(before)) * right).sum(1).mean()
    sampled = np.array([rng.choice(COMPLETIONS, size=SIZE, p=np.exp(row)) for row in before]).ravel()
    group = np.repeat(np.arange(PROBLEMS), SIZE)
    recorded = Recorded(
        rewards=right[group, sampled], sampler_logprobs=before[group, sampled], groups=group, problems=group
    )
    gain = estimated_gain(recorded, before[group, sampled], after[group, sampled])
    return gain, float(truth), ess(after[group, sampled] - before[group, sampled])


def normalised(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


@pytest.mark.parametrize(("spread", "least_ess"), [(0.2, 0.9), (1.0, 0.4), (1.5, 0.2)])
def test_its_interval_holds_the_truth_of_the_family_of_problems(spread: float, least_ess: float) -> None:
    """400 records: a share of 95 % is 380, give or take 9 at two standard errors."""
    rng = np.random.default_rng(7)
    drawn = [draw(rng, spread) for _ in range(400)]
    truth = float(np.mean([own for _, own, _ in drawn]))
    assert np.mean([share for *_, share in drawn]) > least_ess
    assert 0.92 <= np.mean([gain.low <= truth <= gain.high for gain, *_ in drawn]) <= 0.98
    errors = np.array([gain.value - own for gain, own, _ in drawn])
    assert abs(errors.mean()) < 4 * errors.std() / 20
