"""Success criteria of a plan: read before anything runs, judged when the runs are over."""

import difflib
import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rl.core.config import HELDOUT
from rl.core.errors import UsageError
from rl.core.metrics import STEP
from rl.evaluate.arms import arm_mean
from rl.study.measured import Comparisons, is_measure
from rl.study.runs import Arm, Status, StudyRun
from rl.study.stated import final
from rl.study.words import as_data, counted, interval, listing, number, plain, where

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

_LOST = (Status.DIVERGED, Status.FAILED)
_ENDED = (Status.DONE, Status.BEATEN, *_LOST)
_COLLAPSED = "policy has collapsed"
"""Says a run that diverged although every value was finite."""
_SHARES = frozenset(metric.name for metric in STEP if metric.unit == "share")


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
        UsageError: it is none, or asks for a share above 1.
    """
    words = " ".join(text.replace("≥", ">=").replace("≤", "<=").split())
    if found := _BETTER.fullmatch(words):
        bound = _share(text, _number(found)) if found["number"] else 0.0
        return Criterion(text=text, than=found["arm"], bound=bound)
    if found := _FINITE.fullmatch(words):
        return Criterion(text=text, metric=found["metric"])
    if (found := _BOUND.fullmatch(words)) and not (found["stays"] and found["step"]):
        step = int(found["step"]) if found["step"] else None
        is_share = is_measure(found["metric"]) or found["metric"] in _SHARES
        return Criterion(
            text=text,
            metric=found["metric"],
            sign=found["sign"],
            bound=_share(text, _number(found)) if is_share else _number(found),
            stays=bool(found["stays"]),
            step=step,
        )
    raise UsageError(f"{text!r} is no success criterion", fix=_GRAMMAR)


def check_metric(criterion: Criterion) -> None:
    """Whether runs of ours have what is bounded; other tools have metrics of their own.

    Raises:
        UsageError: they have not.
    """
    known = ["minutes", *(metric.name for metric in STEP), "pass@1", "maj@8"]
    everything = ("value", "values") if not criterion.sign else ()
    name = criterion.metric
    if name and name not in (*known, *everything) and not is_measure(name):
        close = difflib.get_close_matches(name, known, n=3)
        fix = f"did you mean {' or '.join(close)}?" if close else f"take one of: {', '.join(known)}"
        raise UsageError(f"{criterion.text!r}: runs have no metric {name!r}", fix=fix)


def judge(
    criterion: Criterion, arm: Arm, arms: Sequence[Arm], *, metric: str = "pass@1", set: str = HELDOUT
) -> Judgement:
    """Was it met by this arm?

    Args:
        arms: all of the study, for comparisons.
        metric: what arms are compared by.
        set: the problem set of pass@k and maj@k.
    """
    return judge_in(Comparisons(arms, metric, set), criterion, arm)


def judge_in(study: Comparisons, criterion: Criterion, arm: Arm) -> Judgement:
    """`judge` for a study whose comparisons may be made already."""
    if criterion.than:
        return _better(study, criterion, arm)
    if not criterion.sign:
        return _finite(criterion, arm)
    if is_measure(criterion.metric) and arm.runs[0].ours:
        return _measure(study, criterion, arm)
    return _training(criterion, arm)


def _measure(study: Comparisons, criterion: Criterion, arm: Arm) -> Judgement:
    """pass@k and maj@k, with what their interval says."""
    own = study.by(criterion.metric)
    measured = own.of(arm.name)
    if lost := _lost(arm):
        return lost
    if measured is None:
        return _not_measured(f"no {criterion.metric} on {where(study.set)}", arm)
    unfinished = [run.name for run in arm.runs if run.status is not Status.DONE]
    if criterion.step is None and unfinished:
        return _not_measured("its runs are not done", arm)
    known = [*measured.runs, *measured.repeats]
    if absent := [run.name for run in arm.runs if all(run is not other for other in known)]:
        return _not_measured(f"no {criterion.metric} of {listing(absent)}", arm)
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
    why += f": by the estimate; the interval holds {criterion.bound:g}" if doubt else ": the interval, too"
    data = {"step": step, "interval_too": not doubt, "seeds": len(measured.runs), **as_data(estimate)}
    return Judgement(outcome=Outcome.MET if met else Outcome.NOT_MET, why=why, data=data)


def _training(criterion: Criterion, arm: Arm) -> Judgement:
    """A curve, minutes, tokens, or a result that another tool states: each run has to meet it."""
    unfinished = [run for run in arm.runs if run.ours and run.status is not Status.DONE]
    lost = _lost(arm)
    values = {run.name: _values(criterion, run) for run in arm.runs}
    broken = {
        name: (step, value) for name, own in values.items() for step, value in own if not _holds(criterion, value)
    }
    decided = broken and criterion.stays  # what was broken once was not kept, however the run ends
    if lost and not decided:
        return lost
    if unfinished and criterion.step is None and not decided:
        return _not_measured("its runs are not done", arm)
    missing = [name for name, own in values.items() if not own]
    if missing and not decided:
        return _not_measured(f"no {criterion.metric} of {listing(missing)}", arm)
    if broken:
        name, (step, value) = next(iter(broken.items()))
        why = f"{criterion.metric} of {name} is {plain(value)}{f' at step {step}' if step is not None else ''}"
        return Judgement(outcome=Outcome.NOT_MET, why=why, data={"run": name, "step": step, "value": as_json(value)})
    worst = (max if criterion.sign[0] == "<" else min)(value for own in values.values() for _, value in own)
    why = f"{'at the worst ' if criterion.stays or len(values) > 1 else ''}{plain(worst)}"
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
    diverged = [run for run in arm.runs if run.status is Status.DIVERGED and _COLLAPSED not in run.why]
    if found:
        run, name, step, value = found[0]
        why = f"{name} of {run.name} is {plain(value)}{f' at step {step}' if step is not None else ''}"
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


def _better(study: Comparisons, criterion: Criterion, arm: Arm) -> Judgement:
    """By the corrected interval of the study's comparison of both."""
    than = criterion.than
    if than not in [other.name for other in study.arms]:
        return _not_measured(f"there is no arm {than} to compare with", arm)
    if lost := _lost(arm):
        return lost
    both = [other for other in study.arms if other.name in (than, arm.name)]
    if any(run.status not in _ENDED for other in both for run in other.runs):
        causes = [f"{run.name} {run.status}" for other in both for run in other.runs if run.status is not Status.DONE]
        return Judgement(outcome=Outcome.NOT_MEASURED, why=f"the runs of both are not done ({listing(causes)})")
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
        why += (
            ": the interval, too" if low >= criterion.bound else ": by the estimate" if met else ": better, but by less"
        )
    if beaten := [run.name for other in both for run in other.runs if run.status is Status.BEATEN]:
        verb = "was" if len(beaten) == 1 else "were"
        why += f"; at step {comparison.base_step}, as {listing(beaten)} {verb} beaten and ended"
    if comparison.seeds == 1:
        why += "; one seed: of these checkpoints only"
    data = {"than": than, "value": value, "low": low, "high": high, "comparisons": difference.comparisons}
    data |= {"questions": difference.n_questions, "seeds": comparison.seeds}
    return Judgement(outcome=Outcome.MET if met else Outcome.NOT_MET, why=why, data=data)


def _lost(arm: Arm) -> Judgement | None:
    """Of an arm that lost a seed nothing is met: the others alone look better than the setting is."""
    lost = [run for run in arm.runs if run.status in _LOST]
    if not lost:
        return None
    causes = [f"{run.name} {run.status}{': ' + run.why if run.why else ''}" for run in lost]
    return Judgement(outcome=Outcome.NOT_MET, why=listing(causes), data={"lost": [run.name for run in lost]})


def _not_measured(why: str, arm: Arm) -> Judgement:
    causes = listing([f"{run.name} {run.status}" for run in arm.runs if run.ours and run.status is not Status.DONE])
    return Judgement(outcome=Outcome.NOT_MEASURED, why=f"{why} ({causes})" if causes else why)


def _holds(criterion: Criterion, value: float) -> bool:
    """Of a value that is not a number nothing holds."""
    compare = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}[criterion.sign]
    return bool(compare(value, criterion.bound))


def as_json(value: float) -> float | str:
    """Numbers that JSON does not have, as words."""
    return value if math.isfinite(value) else plain(value)


def _share(text: str, bound: float) -> float:
    """Raises: UsageError: no share is so large."""
    if abs(bound) > 1:
        raise UsageError(f"{text!r}: a share is at most 1", fix=f"write {bound / 100:g}, or {bound:g} %")
    return bound


def _number(found: re.Match[str]) -> float:
    return float(found["number"]) / (100 if found["percent"] else 1)
