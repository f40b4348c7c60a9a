"""The evaluations of arms on one problem set: how good an arm was, and what training had cost until then.

Shown are the runs that the claims are computed from (`rl.study.measured`): without those that diverged or failed.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from rl.core.config import HELDOUT
from rl.evaluate.arms import arm_mean, seed_noise
from rl.evaluate.result import EvalResult
from rl.evaluate.stats import Estimate
from rl.present.study import Study
from rl.study.measured import Comparisons, Measured
from rl.study.runs import Evaluated

_Estimates = dict[tuple[str, int], Estimate]
"""(arm, step) → its mean"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """One step of an arm: over its runs the mean of what was measured and of what it had cost."""

    step: int
    samples: float | None
    tokens: float | None
    seconds: float | None
    estimates: dict[str, Estimate | None]
    """By metric, like ``pass@1``."""
    runs: int
    """That have an evaluation at this step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """All arms on one problem set; arms that were measured by other rules are in a `Progress` of their own."""

    set: str
    name: str
    """For people, like ``held-out problems`` or ``gsm8k@test``."""
    file: str
    """The same for a file's name; no two have the same one."""
    apart: bool
    """Whether other arms were measured on the set by other rules."""
    metrics: list[str]
    """The study's metric first."""
    arms: dict[str, list[Checkpoint]]
    """In the order of steps; empty where nothing was measured."""

    @property
    def steps(self) -> list[int]:
        return sorted({point.step for points in self.arms.values() for point in points})


def progress_of(study: Study) -> list[Progress]:
    """One for each set of problems, that which arms are compared on first."""
    sets = dict.fromkeys(name for run in study.runs for name in run.evaluations)
    found = list[Progress]()
    for set in sorted(sets, key=lambda name: name != study.set):
        own = study.comparisons if set == study.set else Comparisons(study.arms, study.metric, set)
        for part in own.parts:
            found.append(_progress(own, part, taken=[other.file for other in found]))
    return found


def name_of(set: str) -> str:
    return "held-out problems" if set == HELDOUT else set


def _progress(study: Comparisons, part: Sequence[Measured], *, taken: Sequence[str]) -> Progress:
    results = [evaluated.result for arm in part for group in arm.evaluations.values() for evaluated in group]
    k = min(result.samples_per_problem for result in results)
    metrics = list(dict.fromkeys([study.metric, f"pass@{k}", f"maj@{k}"]))
    apart = len(study.parts) > 1
    estimates = {metric: _estimates(study.by(metric)) for metric in metrics}
    measured = {own.name: own for own in part}
    shown = [arm.name for arm in study.arms if arm.name in measured or not apart]
    return Progress(
        set=study.set,
        name=" ".join([name_of(study.set), *_rules(study, results[0])]),
        file=_file(study.set, taken),
        apart=apart,
        metrics=metrics,
        arms={name: _checkpoints(measured[name], estimates) if name in measured else [] for name in shown},
    )


def _rules(study: Comparisons, result: EvalResult) -> list[str]:
    """In what these evaluations differ from those of the other parts, in words."""
    said = {
        "problems": f"of {result.problems} ({result.problems_sha256[:8]})",
        "temperature": f"at temperature {result.temperature:g}",
        "max_tokens": f"at {result.max_tokens} tokens",
        "extraction": f"by {result.extraction} extraction",
    }
    differing = {name for part in study.parts for name in result.protocol.differing(part[0].protocol)}
    return [words for name, words in said.items() if name in differing]


def _file(set: str, taken: Sequence[str]) -> str:
    plain = re.sub(r"\W", "-", set)
    numbered = [plain, *(f"{plain}-{number}" for number in range(2, len(taken) + 2))]
    return next(name for name in numbered if name not in taken)


def _checkpoints(arm: Measured, estimates: Mapping[str, _Estimates]) -> list[Checkpoint]:
    return [
        Checkpoint(
            step=step,
            samples=_mean(group, lambda e: e.samples),
            tokens=_mean(group, lambda e: e.tokens),
            seconds=_mean(group, lambda e: e.seconds),
            estimates={metric: own.get((arm.name, step)) for metric, own in estimates.items()},
            runs=len(group),
        )
        for step, group in arm.evaluations.items()
    ]


def _mean(group: Sequence[Evaluated], cost: Callable[[Evaluated], float | None]) -> float | None:
    """None unless it is known of all."""
    costs = [value for evaluated in group if (value := cost(evaluated)) is not None]
    return fmean(costs) if len(costs) == len(group) else None


def _estimates(study: Comparisons) -> _Estimates:
    """The means over the arms' runs, of what was measured; at the end of an arm it is the claims' number.

    How much runs of one arm scatter is estimated from all arms at that step: two or three runs tell it badly.
    """
    scores = {(arm.name, step): arm.scores(step) for arm in study.measured for step in arm.evaluations}
    scores = {key: own for key, own in scores.items() if own.size}
    steps = {step for _, step in scores}
    noise = {step: seed_noise([own for (_, at), own in scores.items() if at == step]) for step in steps}
    ends = {(arm.name, arm.last) for arm in study.measured}
    return {key: arm_mean(own, noise=study.noise if key in ends else noise[key[1]]) for key, own in scores.items()}
