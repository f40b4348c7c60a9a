"""When a run is ended because another one is better beyond doubt.

Judged is a run against those of other arms that are alike but for what is compared: the same model, problems, batch
and number of steps, so that a step means as many samples in both. It is beaten where one of them has the better
held-out results at the same step in two evaluations one after the other, the second of them after half of the steps or
later, each by a paired test on the same questions that is corrected for all such tests of this run (Bonferroni: such
runs × evaluations). What lies behind early often catches up, and so half of the run is always made; what is saved is
the rest. It says nothing about the setting with another seed; runs of one arm are repetitions, and no rivals.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil

from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.evaluate.result import EvalResult, compare

LEVEL = 0.05
ALIKE = ("model", "revision", "random_weights", "problems", "reward", "batch", "steps", "eval_every")
IN_A_ROW = 2


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A run as far as it has come."""

    name: str
    arm: str
    config: TrainConfig
    results: Mapping[int, EvalResult]
    """By step, on the set that is compared; that of the base model counts for nothing."""


def beaten(own: Contender, others: Iterable[Contender]) -> str | None:
    """By whom and by how much a run is beaten; None where it is not, or where that cannot be said yet."""
    rivals = [other for other in others if other.arm != own.arm and alike(own.config, other.config)]
    steps = sorted(step for step in own.results if step)[-IN_A_ROW:]
    if len(steps) < IN_A_ROW or steps[-1] < own.config.steps / 2:
        return None
    tests = len(rivals) * ceil(own.config.steps / own.config.eval_every)
    for rival in sorted(rivals, key=lambda rival: rival.name):
        worse = [_worse(own, rival, step, tests) for step in steps]
        if all(worse):
            return f"beaten by {rival.name}: {worse[-1]}"
    return None


def alike(config: TrainConfig, other: TrainConfig) -> bool:
    """Whether a step means the same in both runs."""
    return all(getattr(config, name) == getattr(other, name) for name in ALIKE)


def _worse(own: Contender, rival: Contender, step: int, tests: int) -> str | None:
    """By how much at this step, if beyond doubt."""
    if step not in rival.results:
        return None
    try:
        difference = compare(rival.results[step], own.results[step]).pass_at_1
    except UsageError:  # asked differently
        return None
    if difference is None or difference.value >= 0 or (p := min(1.0, difference.p_value * tests)) >= LEVEL:
        return None
    return (
        f"held-out pass@1 is {difference.value:+.3f} at step {step}, paired on {difference.n_questions} questions, "
        f"p {p:.2g} corrected for {tests} tests"
    )
