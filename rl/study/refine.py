"""A finer grid around the best arm, for the next phase of a sweep.

The best is the arm with the highest estimate: a choice of where to look next, and no claim. Where its neighbours cannot
be told apart from it, that is said.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.evaluate.result import EvalResult
from rl.evaluate.stats import paired_difference
from rl.study.measured import per_question
from rl.study.plan import Phase, PlannedRun, arm_name, configured, normal
from rl.study.runs import Status, StudyRun
from rl.study.sweepdir import Entry
from rl.study.words import short

DIGITS = 3
"""Significant digits of the values of a finer grid: neighbours of 25 points a decade still differ."""
FACTOR = 10.0
"""From the best to the end of the grid, where nothing else was tried."""
LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Finer:
    """The arms of a phase, and how they were chosen, in a sentence that says what was left out, too."""

    rows: list[PlannedRun]
    why: str


@dataclass(frozen=True, kw_only=True)
class _Tried:
    """An arm that was run."""

    name: str
    settings: dict[str, Any]
    """As planned."""
    config: TrainConfig
    results: list[EvalResult]
    """The last of each run."""
    value: float


def finer(phase: Phase, entries: Sequence[Entry], runs: Sequence[StudyRun], *, metric: str, set: str) -> Finer:
    """The arms of the next phase: around the best of the newest one, and of earlier ones that are comparable with it.

    Args:
        entries: of the sweep so far, those of the newest phase last.
        runs: theirs, by the same names.
        metric: what the best is chosen by, measured on `set`.

    Raises:
        UsageError: no arm has a result.
    """
    newest = {entry.arm for entry in entries if entry.phase == entries[-1].phase}
    tried = _tried(entries, runs, metric, set)
    kinds = [_kind(arm, phase.refine) for arm in tried if arm.name in newest]
    comparable = [arm for arm in tried if _kind(arm, phase.refine) in kinds]
    left_out = _left_out(entries, tried)
    if not comparable:
        fix = "see why its runs ended, mend that, and start the sweep again"
        why = f"no arm before it has a {metric} on {set} to choose the best by{_listed(left_out)}"
        raise UsageError(f"phase {phase.name}: {why}", fix=fix)
    best = max(comparable, key=lambda arm: arm.value)
    others = [arm for arm in comparable if arm is not best and _kind(arm, phase.refine) == _kind(best, phase.refine)]
    made = {configured(entry.settings) for entry in entries}
    rows = []
    for value in grid(phase, _at(best, phase.refine), [_at(arm, phase.refine) for arm in others]):
        own = {phase.refine: value}
        settings = {**best.settings, **phase.changes, **own}
        name = f"{phase.name}-{arm_name(own)}"
        try:
            is_made = configured(settings) in made
        except UsageError as error:  # beyond the setting's range, as a share above 1 is
            left_out.append(f"{name} ({error})")
            continue
        if not is_made:
            rows.append(PlannedRun(name=name, reason=phase.reason, changes=normal(settings), criteria=phase.criteria))
    doubt = _doubt(best, others, phase.refine)
    return Finer(rows=rows, why=f"around {best.name}, {metric} {best.value:.3f}{doubt}{_listed(left_out)}")


def grid(phase: Phase, best: float, others: Sequence[float]) -> list[float]:
    """Values evenly on a log scale: over the span, or between the best's neighbours without these. Where the best is
    the lowest or the highest, as far beyond it as its other neighbour is away.

    Example: ``grid(Phase(name="p", points=3), 1e-4, [1e-5, 1e-3]) == [3.16e-5, 1e-4, 3.16e-4]``
    """
    if phase.span is not None:
        values = np.geomspace(best / phase.span, best * phase.span, phase.points)
    else:
        below = max((other for other in others if other < best), default=None)
        above = min((other for other in others if other > best), default=None)
        factor = best / below if below else above / best if above else FACTOR
        values = np.geomspace(below or best / factor, above or best * factor, phase.points + 2)[1:-1]
    return [float(f"{value:.{DIGITS}g}") for value in values]


def _tried(entries: Sequence[Entry], runs: Sequence[StudyRun], metric: str, set: str) -> list[_Tried]:
    """The arms whose runs all came to their end and were measured: without the runs that did not, the others alone look
    better than the arm is."""
    by_name = {run.name: run for run in runs}
    arms: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        arms[entry.arm].append(entry)
    tried = []
    for name, own in arms.items():
        evaluated = [by_name[entry.name].evaluations.get(set, []) for entry in own]
        if any(entry.status is not Status.DONE for entry in own) or not all(evaluated):
            continue
        results = [evaluations[-1].result for evaluations in evaluated]
        scores = [list(per_question(result, metric).values()) for result in results]
        if all(scores):
            value = float(np.mean([np.mean(of_run) for of_run in scores]))
            settings = own[0].settings
            tried.append(
                _Tried(name=name, settings=settings, config=configured(settings), results=results, value=value)
            )
    return tried


def _left_out(entries: Sequence[Entry], tried: Sequence[_Tried]) -> list[str]:
    """The arms that have no result, each with how its runs ended. Example: ``["lr0.01 (done, diverged)"]``"""
    known = {arm.name for arm in tried}
    ends: dict[str, list[Status]] = defaultdict(list)
    for entry in entries:
        if entry.arm not in known:
            ends[entry.arm].append(entry.status)
    return [f"{name} ({', '.join(own) if set(own) != {Status.DONE} else 'not measured'})" for name, own in ends.items()]


def _listed(left_out: Sequence[str]) -> str:
    return f"; left out: {', '.join(left_out)}" if left_out else ""


def _kind(arm: _Tried, refine: str) -> TrainConfig:
    """What it has in common with the arms that differ from it only in what is refined."""
    return arm.config.model_copy(update={refine: None})


def _at(arm: _Tried, refine: str) -> float:
    return float(getattr(arm.config, refine))


def _doubt(best: _Tried, others: Sequence[_Tried], refine: str) -> str:
    """Which of its neighbours the best cannot be told apart from, by a paired test at pass@1 corrected for both."""
    below = [arm for arm in others if _at(arm, refine) < _at(best, refine)]
    above = [arm for arm in others if _at(arm, refine) > _at(best, refine)]
    neighbours = [
        *sorted(below, key=lambda arm: _at(arm, refine))[-1:],
        *sorted(above, key=lambda arm: _at(arm, refine))[:1],
    ]
    alike = [f"{refine} {short(_at(arm, refine))}" for arm in neighbours if not _is_worse(arm, best, len(neighbours))]
    return f"; it cannot be told apart from {' and '.join(alike)}" if alike else ""


def _is_worse(arm: _Tried, best: _Tried, tests: int) -> bool:
    theirs, ours = _over_seeds(arm.results), _over_seeds(best.results)
    both = [question for question in ours if question in theirs]
    if not both:
        return False
    difference = paired_difference({q: theirs[q] for q in both}, {q: ours[q] for q in both})
    return difference.value > 0 and difference.p_value * tests < LEVEL


def _over_seeds(results: Sequence[EvalResult]) -> dict[str, float]:
    """pass@1 by question, the mean over runs that could be measured."""
    values: dict[str, list[float]] = defaultdict(list)
    for result in results:
        for question, value in per_question(result, "pass@1").items():
            values[question].append(value)
    return {question: float(np.mean(own)) for question, own in values.items()}
