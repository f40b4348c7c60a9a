"""The evaluations of arms on one problem set: how good an arm was, and what training had cost until then."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from rl.core.config import HELDOUT
from rl.evaluate.arms import Scores, arm_mean, seed_noise
from rl.evaluate.result import EvalResult
from rl.evaluate.stats import Estimate
from rl.present.study import Study
from rl.study.measured import per_question
from rl.study.runs import Arm, Evaluated


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
    """All arms on one problem set; arms that were measured on other problems are in a `Progress` of their own."""

    name: str
    """For people, like ``held-out problems`` or ``gsm8k@test``."""
    file: str
    """The same for a file's name."""
    metrics: list[str]
    """What all have: the study's metric first."""
    arms: dict[str, list[Checkpoint]]
    """In the order of steps; empty where nothing was measured."""

    @property
    def steps(self) -> list[int]:
        return sorted({point.step for points in self.arms.values() for point in points})


def progress_of(study: Study) -> list[Progress]:
    """One for each set of problems, those that arms are compared on first."""
    problems: dict[tuple[str, str], list[EvalResult]] = {}
    for run in study.runs:
        for name, evaluated in run.evaluations.items():
            for e in evaluated:
                problems.setdefault((name, e.result.problems_sha256), []).append(e.result)
    keys = sorted(problems, key=lambda key: key[0] != study.set)
    return [_progress(study, key, problems[key], [k for k in keys if k[0] == key[0]]) for key in keys]


def _progress(study: Study, key: tuple[str, str], results: Sequence[EvalResult], same: Sequence[object]) -> Progress:
    set, sha = key
    k = min(result.samples_per_problem for result in results)
    name = "held-out problems" if set == HELDOUT else set
    file = "".join(c if c.isalnum() else "-" for c in set)
    if len(same) > 1:  # the same name for different problems
        name, file = f"{name} of {results[0].problems} ({sha[:8]})", f"{file}-{sha[:8]}"
    metrics = list(dict.fromkeys([study.metric, f"pass@{k}", f"maj@{k}"]))
    evaluations = {arm.name: _evaluations(arm, set, sha) for arm in study.arms}
    estimates = {metric: _estimates(evaluations, metric) for metric in metrics}
    arms = {
        arm: [
            Checkpoint(
                step=step,
                samples=_mean(group, lambda e: e.samples),
                tokens=_mean(group, lambda e: e.tokens),
                seconds=_mean(group, lambda e: e.seconds),
                estimates={metric: estimates[metric][arm, step] for metric in metrics},
                runs=len(group),
            )
            for step, group in by_step.items()
        ]
        for arm, by_step in evaluations.items()
        if by_step or len(same) == 1
    }
    return Progress(name=name, file=file, metrics=metrics, arms=arms)


def _evaluations(arm: Arm, set: str, sha: str) -> dict[int, list[Evaluated]]:
    """step → the evaluations of the arm's runs on these problems."""
    by_step: dict[int, list[Evaluated]] = {}
    for run in arm.runs:
        for evaluated in run.evaluations.get(set, []):
            if evaluated.result.problems_sha256 == sha:
                by_step.setdefault(evaluated.step, []).append(evaluated)
    return dict(sorted(by_step.items()))


def _mean(group: Sequence[Evaluated], cost: Callable[[Evaluated], float | None]) -> float | None:
    """None unless it is known of all."""
    costs = [value for evaluated in group if (value := cost(evaluated)) is not None]
    return fmean(costs) if len(costs) == len(group) else None


def _estimates(
    evaluations: Mapping[str, Mapping[int, Sequence[Evaluated]]], metric: str
) -> dict[tuple[str, int], Estimate | None]:
    """(arm, step) → the mean over the arm's runs; None where nothing was measured.

    How much runs of one arm scatter is estimated from all arms at that step: two or three runs tell it badly.
    """
    scores = {
        (arm, step): _scores([e.result for e in group], metric)
        for arm, by_step in evaluations.items()
        for step, group in by_step.items()
    }
    steps = {step for _, step in scores}
    noise = {step: seed_noise([own for (_, at), own in scores.items() if at == step and own.size]) for step in steps}
    return {(arm, step): arm_mean(own, noise=noise[step]) if own.size else None for (arm, step), own in scores.items()}


def _scores(results: Sequence[EvalResult], metric: str) -> Scores:
    """(runs, questions): those questions that all of the runs measured."""
    measured = [per_question(result, metric) for result in results]
    common = sorted(set.intersection(*(set(own) for own in measured)))
    return np.array([[own[id] for id in common] for own in measured])
