"""The best arm, and the checkpoint to deploy: or that the evidence does not choose."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rl.core.config import HELDOUT
from rl.evaluate.arms import Scores, arm_difference, arm_mean, best_of
from rl.evaluate.stats import Difference
from rl.study.insights import Insight, Kind
from rl.study.measured import Comparisons, Measured, per_question, protocol_of
from rl.study.runs import Evaluated, StudyRun
from rl.study.words import as_data, at_steps, counted, interval, listing, where

CHEAPER = 0.1
"""How much less an arm costs, relatively, for it to be called the cheapest: durations vary by as much."""


def best(part: Sequence[Measured]) -> Measured:
    """The arm of the highest estimate at its last evaluation, on the questions that all have; on its own without."""
    ids = _common_questions(part) or None
    return max(part, key=lambda m: float(m.scores(m.last, ids).mean()))


def rivals(study: Comparisons, part: Sequence[Measured]) -> list[Measured]:
    """The arms of a part that are not shown to be worse than the best one, which comes first, at their last
    evaluations."""
    first = best(part)
    beaten = {
        c.other.name if c.shown is c.base else c.base.name
        for c in study.comparisons
        if c.shown is first and not c.equal_samples
    }
    return [first, *(m for m in part if m is not first and m.name not in beaten)]


def best_arm(study: Comparisons, part: Sequence[Measured]) -> Iterator[Insight]:
    """The best of several with its corrected interval."""
    if len(part) < 2 or not (ids := _common_questions(part)):
        return
    found = best_of([m.scores(m.last, ids) for m in part], noise=study.noise)
    arm, count = part[found.index], len(part)
    ends = {m.name: m.last for m in part}
    text = (
        f"best of {count} arms: {arm.name}, {study.metric} {interval(found.estimate)} at step {arm.last} "
        f"(95 %, corrected for having chosen it; {counted(len(ids), 'question')}, {counted(len(arm.runs), 'seed')})"
    )
    text += f"; each at its last evaluation: {at_steps(ends)}" if len(set(ends.values())) > 1 else ""
    data = {"metric": study.metric, "step": arm.last, "of": count, "seeds": len(arm.runs), "steps": ends}
    yield Insight(kind=Kind.BEST, text=text, arms=[arm.name], data=data | as_data(found.estimate))


def nothing_to_deploy(study: Comparisons) -> Insight:
    text = "nothing to deploy: no arm has a result on " + where(study.set)
    return Insight(kind=Kind.DEPLOY, text=text, data={"choice": None, "reason": "no data"})


def deploy(study: Comparisons, part: Sequence[Measured]) -> Insight:
    """Which checkpoint, and why; never one of an arm without data, or that diverged or failed."""
    arms = rivals(study, part)
    first = arms[0]
    candidates = {m.name: _candidates(study, m) for m in part}
    count = sum(map(len, candidates.values()))
    choices = {m.name: _chosen(study, candidates[m.name], count) for m in part}
    chosen = choices[first.name]
    if all(choice.gain for choice in choices.values()) and not any(
        _gained(choices[m.name].gain) or _gained(study.gains.get(m.name)) for m in part
    ):
        return _none(study, first, chosen, alone=len(part) == 1)
    run, checkpoint, gain = chosen.run, chosen.data, chosen.gain
    costs = {m.name: _costs(m) for m in arms}
    data: dict[str, Any] = {
        "choice": run.name if len(arms) == 1 else None,
        "highest": run.name,
        "step": checkpoint["step"],
        "path": str(run.path),
        "checkpoint": checkpoint,
        "gain": as_data(gain) if gain else None,
        "rivals": [m.name for m in arms[1:]],
        "costs": costs,
    }
    at = f"{run.name}, step {checkpoint['step']}"
    if len(arms) > 1:
        text = f"the evidence does not choose between {listing([m.name for m in arms])}: {_why_not(study, arms)}. "
        text += f"The highest estimate is that of {at}"
        if cheapest := _cheapest(arms, costs):
            data["cheapest"] = cheapest
            text += f"; the cheapest is {cheapest}: {_cost_words(costs, cheapest)}"
    else:
        others = len(part) - 1
        what = first.name if len(first.runs) > 1 else f"the run of {first.name}"
        why = [f"{what} is shown to be better than {'the other one' if others == 1 else f'all {others} others'}"]
        if not others:
            why = ["it is the only arm on these problems"] if len(study.measured) > 1 or gain is None else []
        arm_gain, note = study.gains.get(first.name), ""
        if gain is not None and _gained(gain):
            corrected = f" (corrected for {gain.comparisons} checkpoints)" if gain.comparisons > 1 else ""
            why.append(f"it gained {interval(gain, '+')} {study.metric} by training{corrected}")
        elif arm_gain is not None and _gained(arm_gain):
            why.append(f"{what} gained {interval(arm_gain, '+')} {study.metric} in {first.last} steps")
        elif gain is not None:
            note = f". It is not shown to be better than the model before training: {interval(gain, '+')}"
        text = f"deploy {at}, because {listing(why)}{note}"
    if checkpoint["of"] > 1:
        value = f"{checkpoint['value']:.3f} [{checkpoint['low']:.3f}, {checkpoint['high']:.3f}]"
        whose = f"Its {study.metric}" if len(arms) == 1 else f"The {study.metric} of {run.name}"
        text += f". {whose} is {value}, corrected for being the best of {checkpoint['of']} evaluations"
    for name, unseen in checkpoint["not_chosen_on"].items():
        text += f"; on {name}, which nothing was chosen on, {unseen['value']:.3f} "
        text += f"[{unseen['low']:.3f}, {unseen['high']:.3f}]"
    return Insight(kind=Kind.DEPLOY, text=text, arms=[m.name for m in arms], data=data)


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A checkpoint that could be deployed."""

    run: StudyRun
    set: str
    evaluated: Evaluated
    values: dict[str, float]
    before: dict[str, float]
    """Of the same questions before training; empty where that was not measured."""


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """The best checkpoint of an arm."""

    run: StudyRun
    data: dict[str, Any]
    gain: Difference | None
    """Of this checkpoint over the model before training, corrected for all that could have been chosen."""


def _candidates(study: Comparisons, arm: Measured) -> list[_Candidate]:
    """Of all runs of an arm on the held-out problems, or on the study's set where those do not have the metric."""
    for chosen_on in (HELDOUT, study.set):
        common = protocol_of(arm.arm, chosen_on)
        found = [
            _Candidate(
                run=run,
                set=chosen_on,
                evaluated=evaluated,
                values=values,
                before=_at(run.evaluations[chosen_on], 0, study.metric),
            )
            for run in arm.runs
            for evaluated in run.evaluations.get(chosen_on, [])
            if evaluated.step > 0
            and evaluated.result.protocol == common
            and (values := per_question(evaluated.result, study.metric))
        ]
        if {candidate.run.name for candidate in found} == {run.name for run in arm.runs}:
            break
    return found


def _chosen(study: Comparisons, candidates: Sequence[_Candidate], count: int) -> _Chosen:
    """Args: count: of all candidates of the study's part, which the gain is corrected for."""
    common = frozenset.intersection(*(frozenset(candidate.values) for candidate in candidates))
    ids = sorted(common)
    found = best_of([_row(candidate.values, ids) for candidate in candidates])
    best = candidates[found.index]
    run, evaluated, both = best.run, best.evaluated, [question for question in ids if question in best.before]
    gain = None
    if both:
        gain = arm_difference(_row(best.before, both), _row(best.values, both), comparisons=count)
    unseen = {
        name: as_data(arm_mean(_row(values, list(values))))
        for name, evaluations in run.evaluations.items()
        if name != best.set and (values := _at(evaluations, evaluated.step, study.metric))
    }
    data = {"step": evaluated.step, "set": best.set, "of": len(candidates), "samples": evaluated.samples}
    data |= {"tokens": evaluated.tokens, **as_data(found.estimate), "not_chosen_on": unseen}
    return _Chosen(run=run, data=data, gain=gain)


def _none(study: Comparisons, first: Measured, chosen: _Chosen, *, alone: bool) -> Insight:
    assert chosen.gain is not None  # else nobody could know
    gain, step = chosen.gain, chosen.data["step"]
    what = f"deploy no checkpoint of {first.name}" if alone else "deploy none of them"
    text = (
        f"{what}: none is shown to be better than the model before training; the highest is {chosen.run.name}, "
        f"step {step}: {interval(gain, '+')} {study.metric}"
    )
    data = {"choice": None, "highest": chosen.run.name, "step": step, "gain": as_data(gain)}
    return Insight(kind=Kind.DEPLOY, text=text, arms=[first.name], data=data)


def _gained(gain: Difference | None) -> bool:
    return gain is not None and gain.low > 0


def _why_not(study: Comparisons, arms: Sequence[Measured]) -> str:
    first, *others = arms
    apart = [m.name for m in others if not any(not c.equal_samples for c in study.between(first.name, m.name))]
    if not apart:
        return "no difference is shown"
    return f"{listing(apart)} could not be compared with {first.name}, having no step or no question in common"


def _cheapest(arms: Sequence[Measured], costs: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The arm that costs less than all others by a tenth or more; None unless all came to their end."""
    minutes = {name: cost["minutes"] for name, cost in costs.items()}
    if not all(m.finished for m in arms) or None in minutes.values():
        return None
    first, second = sorted(minutes, key=lambda name: minutes[name])[:2]
    return first if minutes[first] <= (1 - CHEAPER) * minutes[second] else None


def _common_questions(part: Sequence[Measured]) -> list[str]:
    """That all arms could measure at their last evaluations."""
    common = frozenset.intersection(*(frozenset(m.questions(m.last)) for m in part))
    return [question for question in part[0].questions(part[0].last) if question in common]


def _row(values: dict[str, float], ids: list[str]) -> Scores:
    return np.array([[values[question] for question in ids]])


def _at(evaluations: list[Evaluated], step: int, metric: str) -> dict[str, float]:
    return next((per_question(e.result, metric) for e in evaluations if e.step == step), {})


def _costs(arm: Measured) -> dict[str, Any]:
    """Of one run until its last evaluation, the mean over seeds; None where it is not known of each."""
    ends = arm.evaluations[arm.last]
    return {
        "minutes": _mean([None if e.seconds is None else e.seconds / 60 for e in ends]),
        "tokens": _mean([e.tokens for e in ends]),
        "samples": arm.samples(arm.last),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _cost_words(costs: dict[str, dict[str, Any]], cheapest: str) -> str:
    others = [f"{cost['minutes']:.1f}" for name, cost in costs.items() if name != cheapest]
    own, tokens = costs[cheapest]["minutes"], costs[cheapest]["tokens"]
    words = f"{own:.1f} minutes of training" + (f" and {tokens:.0f} tokens" if tokens is not None else "")
    return f"{words} a run, against {listing(others)} minutes"
