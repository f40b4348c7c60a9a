"""What a search for learning rates found, and what follows from it: which rates are too small, usable, too large."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from rl.learner.gain import Gain

LOWEST_ESS = 0.1
"""Below this share of effective completions a few decide the estimate, and its interval cannot be believed."""
WORTH = 0.1
"""Of the best rate's gain: where the gain is proportional to the rate, as it is for small ones, a rate that gains less
needs more than ten times as many updates."""


class Verdict(StrEnum):
    TOO_SMALL = "too small"
    USABLE = "usable"
    TOO_LARGE = "too large"
    UNCLEAR = "unclear"
    """Neither a gain nor its absence is shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What some updates at one rate did; what could not be measured is None."""

    lr: float
    moved: float | None
    """nats a token: mean |policy − start| on the measured completions"""
    ess: float | None
    """of the measured completions, as a share"""
    gain: Gain | None
    """of reward over the start; None where `ess` is below `LOWEST_ESS`"""
    clipped: float | None
    """mean share of tokens that either clip acted on"""
    grad_norm: float | None
    """mean, before clipping"""
    failure: str = ""
    """Why it has no figures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    trial: Trial
    verdict: Verdict
    why: str


def judge(trials: Sequence[Trial]) -> list[Judged]:
    """A verdict for each rate, in the order of rates; several are needed, since gains are judged against the best."""
    best = best_of(trials)
    return [
        Judged(trial=t, verdict=v, why=why) for t in sorted(trials, key=lambda t: t.lr) for v, why in [_of(t, best)]
    ]


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The rate with the largest gain among those whose gain is shown: the best of several, so an optimistic figure."""
    shown = [t for t in trials if t.gain is not None and t.gain.low > 0]
    return max(shown, key=lambda t: t.gain.value if t.gain else 0.0, default=None)


def conclusion(trials: Sequence[Trial], steps: int) -> str:
    """One sentence; it names no rate where no gain is shown."""
    usable = [j.trial for j in judge(trials) if j.verdict is Verdict.USABLE]
    best = best_of(trials)
    if best is None or best.gain is None:
        return f"no usable rate: none of {len(trials)} shows a gain in {steps} updates"
    gain = f"{best.gain.value:+.3f} reward in {steps} updates [{best.gain.low:+.3f}, {best.gain.high:+.3f}]"
    between = f"{usable[0].lr:g} … {usable[-1].lr:g}" if len(usable) > 1 else f"{usable[0].lr:g} alone"
    return f"usable: {between}; best estimate {best.lr:g} ({gain}, the best of {len(trials)}, so optimistic)"


def _of(trial: Trial, best: Trial | None) -> tuple[Verdict, str]:
    if trial.failure:
        return Verdict.TOO_LARGE, trial.failure
    gain = trial.gain
    if gain is None:
        return Verdict.TOO_LARGE, "too far from the start to tell: a few completions decide"
    if gain.high < 0:
        return Verdict.TOO_LARGE, "reward falls"
    if best is None or best.gain is None:
        return Verdict.UNCLEAR, "no gain shown"
    little = gain.high < WORTH * best.gain.value
    if gain.low > 0 and not little:
        return Verdict.USABLE, ""
    if little and trial.lr < best.lr:
        return Verdict.TOO_SMALL, f"gains less than a tenth of {best.lr:g}"
    if little:
        return Verdict.TOO_LARGE, f"gains less than a tenth of {best.lr:g}"
    return Verdict.UNCLEAR, "no gain shown"
