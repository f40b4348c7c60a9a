"""The best arm, and the checkpoint to deploy: or that the evidence does not choose."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rl.core.config import HELDOUT
from rl.evaluate.arms import Scores, arm_mean, best_of
from rl.study.insights import Insight, Kind
from rl.study.measured import Measured, Study, per_question
from rl.study.runs import Evaluated, StudyRun
from rl.study.words import as_data, counted, interval, listing, where


def best(part: Sequence[Measured]) -> Measured:
    """The arm of the highest estimate at its last evaluation."""
    return max(part, key=lambda m: float(m.scores(m.last).mean()))


def rivals(study: Study, part: Sequence[Measured]) -> list[Measured]:
    """The arms of a part that are not shown to be worse than the best one, which comes first, at their last
    evaluations."""
    first = best(part)
    beaten = {
        c.other.name if c.shown is c.base else c.base.name
        for c in study.comparisons
        if c.shown is first and not c.equal_samples
    }
    return [first, *(m for m in part if m is not first and m.name not in beaten)]


def best_arm(study: Study, part: Sequence[Measured]) -> Iterator[Insight]:
    """The best of several with its corrected interval."""
    if len(part) < 2:
        return
    common = frozenset.intersection(*(frozenset(m.questions(m.last)) for m in part))
    ids = [question for question in part[0].questions(part[0].last) if question in common]
    if not ids:
        return
    found = best_of([m.scores(m.last, ids) for m in part], noise=study.noise)
    arm, count = part[found.index], len(part)
    text = (
        f"best of {count} arms: {arm.name}, {study.metric} {interval(found.estimate)} at step {arm.last} "
        f"(95 %, corrected for having chosen it; {counted(len(ids), 'question')}, {counted(len(arm.runs), 'seed')})"
    )
    data = {"metric": study.metric, "step": arm.last, "of": count, "seeds": len(arm.runs), **as_data(found.estimate)}
    yield Insight(kind=Kind.BEST, text=text, arms=[arm.name], data=data)


def nothing_to_deploy(study: Study) -> Insight:
    text = "nothing to deploy: no arm has a result on " + where(study.set)
    return Insight(kind=Kind.DEPLOY, text=text, data={"choice": None, "reason": "no data"})


def deploy(study: Study, part: Sequence[Measured]) -> Insight:
    """Which checkpoint, and why; never one of an arm without data, or that diverged or failed."""
    arms = rivals(study, part)
    first = arms[0]
    gain = study.gains.get(first.name)
    if gain is not None and gain.low <= 0:
        text = (
            f"deploy none of them: {first.name} has the highest {study.metric}, and is not shown to be better than the "
            f"model before training ({interval(gain, '+')})"
        )
        return Insight(kind=Kind.DEPLOY, text=text, arms=[first.name], data={"choice": None, "gain": as_data(gain)})
    run, checkpoint = _checkpoint(study, first)
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
        text = f"the evidence does not choose between {listing([m.name for m in arms])}: no difference is shown. "
        text += f"The highest estimate is that of {at}"
        if all(cost["minutes"] is not None for cost in costs.values()):
            data["cheapest"] = cheapest = min(costs, key=lambda name: costs[name]["minutes"])
            text += f"; the cheapest is {cheapest}: {_cost_words(costs, cheapest)}"
    else:
        others = len(part) - 1
        what = first.name if len(first.runs) > 1 else f"the run of {first.name}"
        why = [f"{what} is shown to be better than {'the other one' if others == 1 else f'all {others} others'}"]
        why = why if others else ["it is the only arm with a result"]
        if gain:
            why.append(f"it gained {interval(gain, '+')} {study.metric} by training")
        text = f"deploy {at}, because {listing(why)}"
    if checkpoint["of"] > 1:
        value = f"{checkpoint['value']:.3f} [{checkpoint['low']:.3f}, {checkpoint['high']:.3f}]"
        text += f". Its {study.metric} is {value}, corrected for being the best of {checkpoint['of']} evaluations"
    for name, unseen in checkpoint["not_chosen_on"].items():
        text += f"; on {name}, which nothing was chosen on, {unseen['value']:.3f} "
        text += f"[{unseen['low']:.3f}, {unseen['high']:.3f}]"
    return Insight(kind=Kind.DEPLOY, text=text, arms=[m.name for m in arms], data=data)


def _checkpoint(study: Study, arm: Measured) -> tuple[StudyRun, dict[str, Any]]:
    """The best evaluation of all runs of an arm on the held-out problems, or on the study's set without such."""
    chosen_on = HELDOUT if all(run.evaluations.get(HELDOUT) for run in arm.runs) else study.set
    candidates = [
        (run, evaluated, values)
        for run in arm.runs
        for evaluated in run.evaluations[chosen_on]
        if evaluated.step > 0 and (values := per_question(evaluated.result, study.metric))
    ]
    common = frozenset.intersection(*(frozenset(values) for _, _, values in candidates))
    ids = sorted(common)
    found = best_of([_row(values, ids) for _, _, values in candidates])
    run, evaluated, _ = candidates[found.index]
    unseen = {
        name: as_data(arm_mean(_row(values, list(values))))
        for name, evaluations in run.evaluations.items()
        if name != chosen_on and (values := _at(evaluations, evaluated.step, study.metric))
    }
    data = {"step": evaluated.step, "set": chosen_on, "of": len(candidates), "samples": evaluated.samples}
    return run, {**data, "tokens": evaluated.tokens, **as_data(found.estimate), "not_chosen_on": unseen}


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
