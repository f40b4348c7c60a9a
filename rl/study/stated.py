"""Claims about runs of other tools: their files state results, and hold neither questions nor what else would give a
result an interval. So nothing is claimed of single runs; arms of three seeds and more are compared over these."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, variance
from typing import Any

from rl.evaluate import student
from rl.evaluate.stats import LEVEL
from rl.study.insights import Insight, Kind
from rl.study.rates import Point, correlation, lower_is_better, rate, sensitivity
from rl.study.runs import Arm, Status, StudyRun
from rl.study.tables import RESULTS, is_metric, plain_name
from rl.study.words import counted, listing, number, plain, steps

FEWEST_SEEDS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Stated:
    """An arm and the finite final values of its runs."""

    arm: Arm
    values: list[float]

    @property
    def mean(self) -> float:
        return mean(self.values)


def stated_claims(arms: Sequence[Arm], metric: str) -> Iterator[Insight]:
    """What other tools' runs say, metric by metric.

    Args:
        arms: of other tools.
        metric: the only one, where a run has it; otherwise each result that one of them states.
    """
    names = dict.fromkeys(name for arm in arms for run in arm.runs for name in (*run.finals, *run.curves))
    results = [metric] if metric in names else [name for name in names if _is_result(name)]
    missing = [insight for name in results for arm in arms for run in arm.runs for insight in _no_data(arm, run, name)]
    unstated = [
        arm for arm in arms for run in arm.runs if not any(name in (*run.finals, *run.curves) for name in results)
    ]
    for arm in unstated:
        text = f"no data for run {arm.name}: its file states no result: no conclusion"
        yield Insight(kind=Kind.NO_DATA, text=text, arms=[arm.name], data={"run": arm.name})
    yield from missing
    for arm in arms:
        for run in [run for i, run in enumerate(arm.runs) if _repeats(run, arm.runs[:i])]:
            text = f"{run.name} has a seed, {run.seed}, of another run of {arm.name}: it is left out"
            yield Insight(kind=Kind.CAUTION, text=text, arms=[arm.name], data={"run": run.name, "seed": run.seed})
    known = {name: [stated for arm in arms if (stated := _stated(arm, name)).values] for name in results}
    family = sum(len(_pairs(own)) for own in known.values())
    better = {name: list(_comparisons(own, name, family)) for name, own in known.items()}
    points = {name: [(stated.arm, stated.mean) for stated in own] for name, own in known.items()}
    correlations = sum(correlation(own, name) is not None for name, own in points.items())
    for name, own in known.items():
        yield from better[name]
        if len(own) > 1 and not better[name]:
            yield _highest(own, name)
        yield from sensitivity(
            [Point(arm=s.arm, lr=lr, value=s.mean) for s in own if (lr := rate(s.arm)) is not None], name
        )
        if found := correlation(points[name], name, comparisons=max(1, correlations)):
            yield found
    if len(arms) > 1:
        yield _deploy(known, better, _primary([name for name in results if known[name]], metric))


def _primary(results: Sequence[str], metric: str) -> str | None:
    """The one that a run is chosen by: a loss of training says nothing of other problems. A bare `loss` may be one."""
    held_out = [name for name in results if not {"train", "training"} & _words(name)]
    return next((name for name in (metric, *held_out) if name in held_out and name != "loss"), None) or next(
        iter(held_out), None
    )


def _deploy(
    known: Mapping[str, Sequence[Stated]], better: Mapping[str, Sequence[Insight]], primary: str | None
) -> Insight:
    """By the primary metric, unless another one shows the opposite."""
    data: dict[str, Any] = {"choice": None, "metric": primary, "compared": any(better.values())}
    chosen = _beats_all(known[primary], better[primary]) if primary else None
    against = {
        name: insight.arms[0]
        for name, own in better.items()
        for insight in own
        if insight.kind is Kind.BETTER and chosen in insight.arms[1:]
    }
    if chosen and not against:
        text = f"deploy {chosen}, because it is shown to be better than all others by {primary}"
        return Insight(kind=Kind.DEPLOY, text=text, arms=[chosen], data=data | {"choice": chosen, "reason": primary})
    why = "results without questions or seeds have no interval"
    if chosen:
        others = listing([f"{arm} is better by {name}" for name, arm in against.items()])
        why = f"{chosen} is better than all others by {primary}, but {others}"
    elif primary and any(insight.kind is Kind.BETTER for insight in better[primary]):
        why = f"no arm is shown to be better than all others by {primary}"
    elif any(better.values()):
        why = f"no difference is shown by {primary}" if primary else "only the training itself was measured"
    text = f"the evidence does not choose a run to deploy: {why}"
    return Insight(kind=Kind.DEPLOY, text=text, data=data | {"against": against})


def final(run: StudyRun, metric: str) -> float | None:
    """What a run came to; None where the cell is empty, or the whole column a placeholder of zeros."""
    if metric in run.finals:
        return run.finals[metric]
    curve = run.curves.get(metric)
    return None if curve is None or _placeholder(run, metric) else curve.last


def _no_data(arm: Arm, run: StudyRun, metric: str) -> Iterator[Insight]:
    """Cells without a value, and values that are not finite."""
    curve, value = run.curves.get(metric), final(run, metric)
    data = {"run": run.name, "metric": metric}
    if curve is None and metric not in run.finals:
        return
    if curve is not None and curve.steps:
        empty = (
            curve.steps
            if _placeholder(run, metric)
            else [s for s, v in zip(curve.steps, curve.values, strict=True) if v is None]
        )
        if empty:
            why = f" ({run.why})" if run.why and len(empty) == len(curve.steps) else ""
            text = f"no data for run {run.name} at {steps(empty, curve.steps)}: no {metric}{why}: no conclusion"
            yield Insight(kind=Kind.NO_DATA, text=text, arms=[arm.name], data={**data, "steps": empty})
    elif value is None:
        why = f" ({run.why})" if run.why else ""
        text = f"no data for run {run.name}: no {metric}{why}: no conclusion"
        yield Insight(kind=Kind.NO_DATA, text=text, arms=[arm.name], data=data)
    if value is not None and not math.isfinite(value):
        word = plain(value)
        text = f"the {metric} of run {run.name} is {word}: it is in no comparison"
        yield Insight(kind=Kind.CAUTION, text=text, arms=[arm.name], data={**data, "value": word})


def _placeholder(run: StudyRun, metric: str) -> bool:
    """Whether a result is exactly zero, or missing, at each of several steps: it was never read."""
    curve = run.curves[metric]
    return _is_result(metric) and len(curve.values) > 1 and not any(curve.values)


def _stated(arm: Arm, metric: str) -> Stated:
    runs = [run for run in arm.runs if run.status not in (Status.DIVERGED, Status.FAILED)]
    values = [final(run, metric) for i, run in enumerate(runs) if not _repeats(run, runs[:i])]
    return Stated(arm=arm, values=[value for value in values if value is not None and math.isfinite(value)])


def _repeats(run: StudyRun, earlier: Sequence[StudyRun]) -> bool:
    """Whether its seed is one of theirs: the same seed twice is no second seed."""
    return run.seed is not None and any(other.seed == run.seed for other in earlier)


def _pairs(known: Sequence[Stated]) -> list[tuple[Stated, Stated]]:
    """Of arms with enough seeds."""
    return list(combinations([stated for stated in known if len(stated.values) >= FEWEST_SEEDS], 2))


def _comparisons(known: Sequence[Stated], metric: str, count: int) -> Iterator[Insight]:
    """Welch's t-interval over seeds of all pairs that have enough of them.

    Args:
        count: of the pairs of all metrics: one family, which all are corrected for.
    """
    for base, other in _pairs(known):
        parts = [variance(stated.values) / len(stated.values) for stated in (base, other)]
        value, error = other.mean - base.mean, math.sqrt(sum(parts))
        if error == 0:
            continue
        dfs = [len(stated.values) - 1 for stated in (base, other)]
        df = sum(parts) ** 2 / sum(part**2 / d for part, d in zip(parts, dfs, strict=True))
        half = student.quantile(LEVEL / count, df) * error
        low, high = value - half, value + half
        p_value = min(1.0, count * student.two_sided_p(value / error, df))
        corrected = f", corrected for {counted(count, 'comparison')}" if count > 1 else ""
        basis = f"95 %{corrected}; {len(other.values)} and {len(base.values)} seeds"
        between = f"{number(value, '+')} [{number(low, '+')}, {number(high, '+')}] {metric} ({basis})"
        shown = low > 0 or high < 0
        ahead = other if (value > 0) != lower_is_better(metric) else base
        behind = base if ahead is other else other
        text = f"no difference shown between {other.arm.name} and {base.arm.name}: {between}"
        if shown:
            text = f"{ahead.arm.name} is better than {behind.arm.name}: {other.arm.name} − {base.arm.name} is {between}"
        yield Insight(
            kind=Kind.BETTER if shown else Kind.NO_DIFFERENCE,
            text=text,
            arms=[ahead.arm.name, behind.arm.name],
            data={"metric": metric, "base": base.arm.name, "other": other.arm.name, "value": value, "low": low}
            | {"high": high, "p_value": p_value, "comparisons": count, "seeds": [len(base.values), len(other.values)]}
            | ({"better": ahead.arm.name} if shown else {}),
        )


def _beats_all(known: Sequence[Stated], comparisons: Sequence[Insight]) -> str | None:
    """The arm that is shown to be better than each other one, if there is one."""
    wins = dict.fromkeys((stated.arm.name for stated in known), 0)
    for insight in comparisons:
        if insight.kind is Kind.BETTER:
            wins[insight.arms[0]] += 1
    return next((name for name, count in wins.items() if count == len(known) - 1 > 0), None)


def _highest(known: Sequence[Stated], metric: str) -> Insight:
    lower = lower_is_better(metric)
    ranked = sorted(known, key=lambda stated: stated.mean, reverse=not lower)
    first, second = ranked[:2]
    text = (
        f"{'lowest' if lower else 'highest'} {metric} in this table: {first.arm.name}, {plain(first.mean)}, before "
        f"{second.arm.name}, {plain(second.mean)}; no claim that it is better: the file holds no questions "
        f"and fewer than {FEWEST_SEEDS} seeds an arm, so there is no interval"
    )
    data = {"metric": metric, "values": {stated.arm.name: stated.mean for stated in ranked}}
    return Insight(kind=Kind.NO_DIFFERENCE, text=text, arms=[stated.arm.name for stated in ranked], data=data)


def _is_result(metric: str) -> bool:
    """Not a number of training, like a gradient's norm. A name without a known word is that of a table's file."""
    return bool(_words(metric) & RESULTS) or not (is_metric(metric) or metric == "minutes")


def _words(metric: str) -> frozenset[str]:
    return frozenset(re.sub(r"@\d+", "", word) for word in plain_name(metric).split("_"))
