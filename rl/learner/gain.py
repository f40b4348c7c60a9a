"""What a policy would earn, estimated on recorded completions that another one sampled; with an interval."""

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """N completions as they were recorded, group after group."""

    rewards: NDArray[np.float64]
    sampler_logprobs: NDArray[np.float64]
    """Of whole completions: sums over their tokens."""
    groups: NDArray[np.intp]
    """The group of each; every group has two completions at least."""
    problems: NDArray[np.intp]
    """The problem of each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """A difference of mean rewards with its 95 % interval."""

    value: float
    low: float
    high: float


def ess(log_weights: NDArray[np.float64]) -> float:
    """Effective sample size (Σw)² / Σw² as a share of N: 1 where all weigh the same, 1 / N where one decides (Kong
    1992)."""
    w = np.exp(log_weights - log_weights.max())
    return float(w.sum() ** 2 / (w.size * (w @ w)))


def estimated_gain(recorded: Recorded, before: NDArray[np.float64], after: NDArray[np.float64]) -> Gain:
    """How much more reward the policy `after` earns than the policy `before`, on the problems of the record.

    Each policy's mean reward is self-normalised: Σ w d / Σ w with w = policy / sampler over whole completions, and d
    the reward less the mean of the others of its group. That baseline takes the difficulty of the problems out of the
    variance; as it leaves the completion itself out, it takes nothing off the gain.

    The interval is linearised: the variance of the ratios' influence function, summed over each of K problems, whose
    completions are not independent, times K / (K − 1). It needs no random draws, and holds while no completion decides
    alone, which `ess` is there to say; then a bootstrap would say the same.

    Args:
        before: log-probabilities [N] of the completions under a policy.
        after: the same under the other.
    """
    sizes = np.bincount(recorded.groups)[recorded.groups]
    others = (np.bincount(recorded.groups, recorded.rewards)[recorded.groups] - recorded.rewards) / (sizes - 1)
    centred = recorded.rewards - others
    value_before, influence_before = _ratio(before - recorded.sampler_logprobs, centred)
    value_after, influence_after = _ratio(after - recorded.sampler_logprobs, centred)
    by_problem = np.bincount(recorded.problems, influence_after - influence_before)
    clusters = by_problem.size
    error = sqrt(float(by_problem @ by_problem) * clusters / (clusters - 1))
    value = value_after - value_before
    return Gain(value=value, low=value - _Z * error, high=value + _Z * error)


def _ratio(log_weights: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Σ w v / Σ w, and what each entry adds to its error."""
    w = np.exp(log_weights - log_weights.max())
    w /= w.sum()
    mean = float(w @ values)
    return mean, w * (values - mean)
