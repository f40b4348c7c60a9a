"""Do the intervals hold what they say? Studies with a known truth, made and judged by the thousand.

    python -m tests.study.simulation        prints a table of all regimes, in two to three minutes of a core

A question has a difficulty, Beta-distributed, that all arms share; each arm moves it by its own shift and by chance,
each seed of an arm by chance again: on all questions alike (`seed_sd`) and on each of its own. Of every question each
run has k samples. The truth is an arm's mean over all questions that could be asked, and over all seeds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from rl.evaluate.arms import Scores, arm_difference, arm_mean, best_of, seed_noise
from rl.evaluate.power import EFFECT, needed
from rl.evaluate.stats import estimate_mean

TRIALS = 2_000
_TRUTH_DRAWS = 400_000


@dataclass(frozen=True, kw_only=True)
class Regime:
    """What a study is like."""

    questions: int = 256
    samples: int = 8
    mean: float = 0.5
    shifts: Sequence[float] = (0.0, 0.0)
    """Of each arm, in log-odds."""
    seeds: int = 1
    seed_sd: float = 0.0
    """Of a seed's shift in log-odds: 0.1 moves pass@1 by about 0.015."""
    arm_sd: float = 0.7
    """Of an arm's shift on one question."""

    def studies(self, trials: int = TRIALS) -> Iterator[list[Scores]]:
        """The scores of each arm, (S, Q), of one study after the other."""
        rng = np.random.default_rng(12)
        for _ in range(trials):
            logits = _logits(rng, self.mean, (1, 1, self.questions))
            logits = logits + np.asarray(self.shifts)[:, None, None]
            logits = logits + self.arm_sd * rng.standard_normal((len(self.shifts), 1, self.questions))
            if self.seed_sd:
                logits = logits + self.seed_sd * rng.standard_normal((len(self.shifts), self.seeds, 1))
                logits = logits + 0.3 * rng.standard_normal((len(self.shifts), self.seeds, self.questions))
            shape = (len(self.shifts), self.seeds, self.questions)
            yield list(rng.binomial(self.samples, 1 / (1 + np.exp(-np.broadcast_to(logits, shape)))) / self.samples)

    def truth(self) -> list[float]:
        """The mean of each arm."""
        rng = np.random.default_rng(13)
        logits = _logits(rng, self.mean, (_TRUTH_DRAWS,)) + self.arm_sd * rng.standard_normal(_TRUTH_DRAWS)
        if self.seed_sd:
            logits = logits + np.hypot(self.seed_sd, 0.3) * rng.standard_normal(_TRUTH_DRAWS)
        return [float(np.mean(1 / (1 + np.exp(-logits - shift)))) for shift in self.shifts]


def coverage_of_mean(regime: Regime) -> float:
    """How often the 95 % interval of the first arm's mean holds the truth."""
    truth = regime.truth()[0]
    found = (arm_mean(arms[0], noise=seed_noise(arms)) for arms in regime.studies())
    return _share(e.low <= truth <= e.high for e in found)


def coverage_of_pass_at_k(regime: Regime, k: int) -> float:
    """The same of pass@k of one run."""
    per_question = np.array([1 - _misses(regime.samples, right, k) for right in range(regime.samples + 1)])
    rng = np.random.default_rng(13)
    logits = _logits(rng, regime.mean, (_TRUTH_DRAWS,)) + regime.arm_sd * rng.standard_normal(_TRUTH_DRAWS)
    truth = float(np.mean(1 - (1 - 1 / (1 + np.exp(-logits))) ** k))
    runs = (np.rint(arms[0][0] * regime.samples).astype(int) for arms in regime.studies())
    return _share(e.low <= truth <= e.high for e in (estimate_mean(list(per_question[right])) for right in runs))


def coverage_of_difference(regime: Regime) -> float:
    """How often the interval of the first two arms' difference holds the truth."""
    base, other = regime.truth()[:2]
    found = (arm_difference(arms[0], arms[1]) for arms in regime.studies())
    return _share(d.low <= other - base <= d.high for d in found)


def coverage_of_best(regime: Regime) -> float:
    """How often the corrected interval of the chosen best holds the truth of that one."""
    truth = regime.truth()
    return _share(b.estimate.low <= truth[b.index] <= b.estimate.high for b in map(best_of, regime.studies()))


def false_claims(regime: Regime) -> float:
    """How often any of all pairs of identical arms is said to differ."""
    count = len(regime.shifts) * (len(regime.shifts) - 1) // 2

    def any_claim(arms: list[Scores]) -> bool:
        noise = seed_noise(arms)
        pairs = (arm_difference(a, b, comparisons=count, noise=noise) for a, b in combinations(arms, 2))
        return any(d.low > 0 or d.high < 0 for d in pairs)

    return _share(map(any_claim, regime.studies()))


def questions_needed(regime: Regime, comparisons: int) -> tuple[float, float, float]:
    """(median estimate ÷ truth, share of estimates within 20 % of it, power of a study of the median's size).

    The truth is the number of questions at which four of five studies show a difference of `EFFECT`: found by the
    exact variance of a question's difference, and confirmed by the power that is returned beside it.
    """
    arms = (needed(base, other, comparisons=comparisons).questions for base, other in regime.studies())
    estimates = np.array([n for n in arms if n is not None], dtype=float)
    large = next(replace(regime, questions=_TRUTH_DRAWS).studies(trials=1))
    truth = needed(*large, comparisons=comparisons).questions
    assert truth is not None
    median = float(np.median(estimates))
    return median / truth, float(np.mean(np.abs(estimates / truth - 1) <= 0.2)), power(regime, int(median), comparisons)


def power(regime: Regime, questions: int, comparisons: int) -> float:
    """How often a true difference of `EFFECT` is shown with so many questions."""
    shifts = (0.0, _shift_for(EFFECT, regime))
    sized = replace(regime, questions=questions, shifts=shifts)
    found = (arm_difference(base, other, comparisons=comparisons) for base, other in sized.studies())
    return _share(d.low > 0 for d in found)


def _shift_for(effect: float, regime: Regime) -> float:
    """In log-odds: what moves the mean by the effect."""
    low, high = 0.0, 2.0
    for _ in range(20):
        middle = (low + high) / 2
        base, other = replace(regime, shifts=(0.0, middle)).truth()
        low, high = (middle, high) if other - base < effect else (low, middle)
    return low


def _logits(rng: np.random.Generator, mean: float, shape: tuple[int, ...]) -> NDArray[np.float64]:
    p = rng.beta(mean, 1 - mean, shape).clip(1e-9, 1 - 1e-9)
    return np.asarray(np.log(p / (1 - p)))


def _misses(n: int, right: int, k: int) -> float:
    """Probability that none of k samples out of n is right."""
    return float(np.prod([(n - right - i) / (n - i) for i in range(k)])) if n - right >= k else 0.0


def _share(hits: Iterator[bool] | map) -> float:  # type: ignore[type-arg]
    return float(np.mean(list(hits)))


MEANS = [
    Regime(questions=128, samples=4, mean=0.3),
    Regime(questions=512, mean=0.8),
    Regime(questions=256, seeds=3, seed_sd=0.1, shifts=(0.0,) * 4),
    Regime(questions=512, seeds=3, seed_sd=0.2, shifts=(0.0,) * 4),
]
DIFFERENCES = [
    Regime(questions=128, samples=4, mean=0.3, shifts=(0.0, 0.5)),
    Regime(questions=512, mean=0.8, shifts=(0.0, 0.3)),
    Regime(questions=128, seeds=3, seed_sd=0.05, shifts=(0.0, 0.5)),
    Regime(questions=256, seeds=3, seed_sd=0.1, shifts=(0.0, 0.5)),
    Regime(questions=512, seeds=3, seed_sd=0.3, shifts=(0.0, 0.5)),
]
BESTS = [
    Regime(questions=128, samples=4, shifts=(0.0, 0.0)),
    Regime(questions=256, mean=0.3, shifts=(0.0, 0.0, 0.0, 0.5)),
    Regime(questions=256, mean=0.8, shifts=tuple(np.linspace(0, 0.4, 5))),
    Regime(questions=128, shifts=(0.0,) * 10),
    Regime(questions=512, shifts=(-1.0,) * 8 + (0.0, 0.0)),
    Regime(questions=256, arm_sd=0.1, shifts=(0.0,) * 6),  # checkpoints of one run
    Regime(questions=256, seeds=3, seed_sd=0.1, shifts=(0.0,) * 5),
]
IDENTICAL = [
    Regime(questions=128, samples=4, mean=0.3, shifts=(0.0,) * 2),
    Regime(questions=256, samples=4, mean=0.8, shifts=(0.0,) * 5),
    Regime(questions=128, samples=4, shifts=(0.0,) * 10),
    Regime(questions=256, seeds=2, seed_sd=0.1, shifts=(0.0,) * 3),
    Regime(questions=128, seeds=3, seed_sd=0.1, shifts=(0.0,) * 2),
    Regime(questions=256, seeds=3, seed_sd=0.2, shifts=(0.0,) * 3),
    Regime(questions=256, seeds=3, seed_sd=0.05, shifts=(0.0,) * 5),
]
POWERS = [(Regime(questions=256), 1), (Regime(questions=256, samples=4, mean=0.3), 10), (Regime(questions=512), 3)]


def main() -> None:
    tables: list[tuple[str, list[Regime], Callable[[Regime], float]]] = [
        ("coverage of pass@1", MEANS, coverage_of_mean),
        ("coverage of pass@4", MEANS[:2], lambda regime: coverage_of_pass_at_k(regime, 4)),
        ("coverage of a difference", DIFFERENCES, coverage_of_difference),
        ("coverage of the best of m", BESTS, coverage_of_best),
        ("any false claim, identical arms", IDENTICAL, false_claims),
        (
            "any false claim, ten arms",
            [Regime(seeds=3, seed_sd=sd, shifts=(0.0,) * 10) for sd in (0.1, 0.3)],
            false_claims,
        ),
    ]
    for title, regimes, measure in tables:
        for regime in regimes:
            print(f"{title:<32} {measure(regime):6.1%}  {_words(regime)}", flush=True)
    for regime, comparisons in POWERS:
        ratio, within, shown = questions_needed(regime, comparisons)
        line = f"median ÷ truth {ratio:.2f}, within 20 % {within:.0%}, power at the median {shown:.0%}"
        print(f"{'questions needed':<32} {line}  {_words(regime)}; {comparisons} comparisons", flush=True)


def _words(regime: Regime) -> str:
    text = f"{len(regime.shifts)} arms, {regime.questions} questions × {regime.samples}, pass@1 near {regime.mean}"
    return text + (f", {regime.seeds} seeds (sd {regime.seed_sd})" if regime.seeds > 1 else "")


if __name__ == "__main__":
    main()
