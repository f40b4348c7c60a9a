"""Success criteria of a plan: read before anything runs, judged when the runs are over."""

import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rl.core.config import HELDOUT
from rl.core.errors import UsageError
from rl.evaluate.arms import arm_mean
from rl.study.measured import Study, is_measure
from rl.study.runs import Arm, Status, StudyRun
from rl.study.stated import final
from rl.study.words import as_data, counted, interval, listing, number, where

_GRAMMAR = (
    "write one of: pass@1 >= 0.60; pass@1 @ step 40 >= 0.55; grad_norm stays < 1.0; no non-finite loss; "
    "no non-finite values; better than ARM; better than ARM by 0.02; minutes < 10"
)
_NUMBER = r"(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*(?P<percent>%?)"
_BOUND = re.compile(
    rf"(?P<metric>[\w@./-]+?)(?:\s*@\s*step\s+(?P<step>\d+))?\s*(?P<stays>\bstays\b)?\s*(?P<sign>>=|<=|>|<)\s*{_NUMBER}",
    re.IGNORECASE,
)
_FINITE = re.compile(r"no non-?finite (?P<metric>[\w@./-]+)", re.IGNORECASE)
_BETTER = re.compile(rf"better than (?:run |arm )?(?P<arm>.+?)(?:\s+by\s+{_NUMBER})?", re.IGNORECASE)


class Outcome(StrEnum):
    MET = "met"
    NOT_MET = "not met"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, kw_only=True, slots=True)
class Criterion:
    """One criterion, as it was read."""

    text: str
    metric: str = ""
    """What is bounded, or must be finite (`values`: everything); empty for a comparison."""
    sign: str = ""
    """>=, >, <= or <; empty where a metric must be finite."""
    bound: float = 0.0
    """In the metric's own unit (60 % is 0.6); of a comparison the least difference."""
    stays: bool = False
    """At every step, not only at the end."""
    step: int | None = None
    """Judged there; None: at the end."""
    than: str = ""
    """The arm to be better than."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What came of one criterion."""

    outcome: Outcome
    why: str
    data: dict[str, Any] = field(default_factory=dict)


def parse_criterion(text: str) -> Criterion:
    """Reads a criterion of a plan.

    Raises:
        UsageError: it is none.
    """
    plain = " ".join(text.replace("≥", ">=").replace("≤", "<=").split())
    if found := _BETTER.fullmatch(plain):
        return Criterion(text=text, than=found["arm"], bound=_number(found) if found["number"] else 0.0)
    if found := _FINITE.fullmatch(plain):
        return Criterion(text=text, metric=found["metric"])
    if (found := _BOUND.fullmatch(plain)) and not (found["stays"] and found["step"]):
        step = int(found["step"]) if found["step"] else None
        return Criterion(
            text=text,
            metric=found["metric"],
            sign=found["sign"],
            bound=_number(found),
            stays=bool(found["stays"]),
            step=step,
        )
    raise UsageError(f"{text!r} is no success criterion", fix=_GRAMMAR)


def judge(
    criterion: Criterion, arm: Arm, arms: Sequence[Arm], *, metric: str = "pass@1", set: str = HELDOUT
) -> Judgement:
    """Was it met by this arm?

    Args:
        arms: all of the study, for comparisons.
        metric: what arms are compared by.
        set: the problem set of pass@k and maj@k.
    """
    return judge_in(Study(arms, metric, set), criterion, arm)


def judge_in(study: Study, criterion: Criterion, arm: Arm) -> Judgement:
    """`judge` for a study whose comparisons may be made already."""
    if criterion.than:
        return _better(study, criterion, arm)
    if not criterion.sign:
        return _finite(criterion, arm)
    if is_measure(criterion.metric) and arm.runs[0].ours:
        return _measure(study, criterion, arm)
    return _training(criterion, arm)


def _measure(study: Study, criterion: Criterion, arm: Arm) -> Judgement:
    """pass@k and maj@k, with what their interval says."""
    own = study.by(criterion.metric)
    measured = own.of(arm.name)
    if measured is None:
        return _not_measured(f"no {criterion.metric} on {where(study.set)}", arm)
    if criterion.step is None and not measured.finished:
        return _not_measured("its runs are not done", arm)
    points = (
        [step for step in measured.evaluations if step > 0] if criterion.stays else [criterion.step or measured.last]
    )
    if points[0] not in measured.evaluations:
        return _not_measured(f"no evaluation at step {points[0]}", arm)
    means = [(step, arm_mean(measured.scores(step), noise=own.noise)) for step in points]
    step, estimate = min(means, key=lambda m: m[1].value if criterion.sign[0] == ">" else -m[1].value)
    met = _holds(criterion, estimate.value)
    doubt = _holds(criterion, estimate.low) != _holds(criterion, estimate.high)
    why = f"{interval(estimate)} at step {step}"
    why += f": by the estimate; the interval holds {criterion.bound:g}" if doubt else ": beyond doubt"
    data = {"step": step, "beyond_doubt": not doubt, "seeds": len(measured.runs), **as_data(estimate)}
    return Judgement(outcome=Outcome.MET if met else Outcome.NOT_MET, why=why, data=data)


def _training(criterion: Criterion, arm: Arm) -> Judgement:
    """A curve, minutes, tokens, or a result that another tool states: each run has to meet it."""
    unfinished = [run for run in arm.runs if run.ours and run.status is not Status.DONE]
    values = {run.name: _values(criterion, run) for run in arm.runs}
    broken = {
        name: (step, value) for name, own in values.items() for step, value in own if not _holds(criterion, value)
    }
    decided = broken and criterion.stays  # what was broken once was not kept, however the run ends
    if unfinished and criterion.step is None and not decided:
        return _not_measured("its runs are not done", arm)
    missing = [name for name, own in values.items() if not own]
    if missing and not decided:
        return _not_measured(f"no {criterion.metric} of {listing(missing)}", arm)
    if broken:
        name, (step, value) = next(iter(broken.items()))
        why = f"{criterion.metric} of {name} is {_word(value)}{f' at step {step}' if step is not None else ''}"
        return Judgement(outcome=Outcome.NOT_MET, why=why, data={"run": name, "step": step, "value": as_json(value)})
    worst = (max if criterion.sign[0] == "<" else min)(value for own in values.values() for _, value in own)
    why = f"{'at the worst ' if criterion.stays or len(values) > 1 else ''}{_word(worst)}"
    return Judgement(outcome=Outcome.MET, why=why, data={"value": as_json(worst), "runs": list(values)})


def _values(criterion: Criterion, run: StudyRun) -> list[tuple[int | None, float]]:
    """(step, value) of what has to hold; empty where it was not measured."""
    name = criterion.metric
    curve = run.curves.get(name)
    if name == "minutes" or (name == "tokens" and not criterion.stays and criterion.step is None):
        total = run.minutes if name == "minutes" else sum(v for _, v in curve.measured) if curve else None
        return [] if total is None else [(None, total)]
    if curve is None:
        stated = run.finals.get(name)
        return [] if stated is None or criterion.step is not None else [(None, stated)]
    if criterion.stays:
        return list(curve.measured)
    if criterion.step is not None:
        return [(step, value) for step, value in curve.measured if step == criterion.step]
    value = final(run, name)
    return [] if value is None else [(curve.steps[-1], value)]


def _finite(criterion: Criterion, arm: Arm) -> Judgement:
    every = criterion.metric in ("value", "values")
    curves = [
        (run, name, curve)
        for run in arm.runs
        for name, curve in run.curves.items()
        if every or name == criterion.metric
    ]
    stated = [
        (run, name, run.finals[name]) for run in arm.runs for name in run.finals if every or name == criterion.metric
    ]
    cells: list[tuple[StudyRun, str, int | None, float]] = [
        *((run, name, step, value) for run, name, curve in curves for step, value in curve.measured),
        *((run, name, None, value) for run, name, value in stated if value is not None),
    ]
    found = [cell for cell in cells if not math.isfinite(cell[-1])]
    diverged = [run for run in arm.runs if run.status is Status.DIVERGED]
    if found:
        run, name, step, value = found[0]
        why = f"{name} of {run.name} is {_word(value)}{f' at step {step}' if step is not None else ''}"
        data = {"run": run.name, "metric": name, "step": step, "value": as_json(value)}
        return Judgement(outcome=Outcome.NOT_MET, why=why, data=data)
    if diverged:  # it ended at the step that was not finite, and that step has no record
        why = f"{diverged[0].name} diverged{': ' + diverged[0].why if diverged[0].why else ''}"
        return Judgement(outcome=Outcome.NOT_MET, why=why, data={"run": diverged[0].name})
    if not cells:
        return _not_measured(f"no {criterion.metric}", arm)
    if any(run.ours and run.status is not Status.DONE for run in arm.runs):
        return _not_measured("none so far, but its runs are not done", arm)
    return Judgement(outcome=Outcome.MET, why=f"in {counted(len(arm.runs), 'run')}")


def _better(study: Study, criterion: Criterion, arm: Arm) -> Judgement:
    """By the corrected interval of the study's comparison of both."""
    than = criterion.than
    if than not in [other.name for other in study.arms]:
        return _not_measured(f"there is no arm {than} to compare with", arm)
    own = [c for c in study.between(than, arm.name) if not c.equal_samples]
    if not own or than == arm.name:
        return _not_measured(f"{arm.name} and {than} have no evaluation to be compared by", arm)
    comparison = own[0]
    sign = 1 if comparison.other.name == arm.name else -1
    difference = comparison.difference
    low, value, high = sorted((sign * difference.low, sign * difference.value, sign * difference.high))
    met = low > 0 and value >= criterion.bound
    why = f"{number(value, '+')} [{number(low, '+')}, {number(high, '+')}]"
    if low <= 0:
        why += ": no difference is shown" if high >= 0 else ": it is worse"
    elif criterion.bound:
        why += ": beyond doubt" if low >= criterion.bound else ": by the estimate" if met else ": better, but by less"
    if comparison.seeds == 1:
        why += "; one seed: of these checkpoints only"
    data = {"than": than, "value": value, "low": low, "high": high, "comparisons": difference.comparisons}
    data |= {"questions": difference.n_questions, "seeds": comparison.seeds}
    return Judgement(outcome=Outcome.MET if met else Outcome.NOT_MET, why=why, data=data)


def _not_measured(why: str, arm: Arm) -> Judgement:
    causes = listing([f"{run.name} {run.status}" for run in arm.runs if run.ours and run.status is not Status.DONE])
    return Judgement(outcome=Outcome.NOT_MEASURED, why=f"{why} ({causes})" if causes else why)


def _holds(criterion: Criterion, value: float) -> bool:
    """Of a value that is not a number nothing holds."""
    compare = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}[criterion.sign]
    return bool(compare(value, criterion.bound))


def _word(value: float) -> str:
    return (
        f"{value:.4g}".replace("-", "−")
        if math.isfinite(value)
        else "not a number"
        if math.isnan(value)
        else "infinite"
    )


def as_json(value: float) -> float | str:
    """Numbers that JSON does not have, as words."""
    return value if math.isfinite(value) else _word(value)


def _number(found: re.Match[str]) -> float:
    return float(found["number"]) / (100 if found["percent"] else 1)
