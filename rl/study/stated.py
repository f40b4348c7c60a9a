"""Claims about runs of other tools: their files state results, and hold neither questions nor what else would give a
result an interval. So nothing is claimed of single runs; arms of three seeds and more are compared over these."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, variance

from rl.evaluate import student
from rl.evaluate.stats import LEVEL
from rl.study.insights import Insight, Kind
from rl.study.rates import Point, correlation, lower_is_better, rate, sensitivity
from rl.study.runs import Arm, Status, StudyRun
from rl.study.tables import RESULTS, is_metric, plain_name
from rl.study.words import counted, number, steps

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
    chosen, compared = None, False
    for name in results:
        known = [stated for arm in arms if (stated := _stated(arm, name)).values]
        better = list(_comparisons(known, name))
        yield from better
        compared = compared or bool(better)
        if len(known) > 1 and not better:
            yield _highest(known, name)
        yield from sensitivity(
            [Point(arm=s.arm, lr=lr, value=s.mean) for s in known if (lr := rate(s.arm)) is not None], name
        )
        if found := correlation([(stated.arm, stated.mean) for stated in known], name):
            yield found
        if chosen is None and (chosen := _beats_all(known, better)):
            text = f"deploy {chosen}, because it is shown to be better than all others by {name}"
            yield Insight(kind=Kind.DEPLOY, text=text, arms=[chosen], data={"choice": chosen, "reason": name})
    if len(arms) > 1 and chosen is None:
        text = "the evidence does not choose a run to deploy: results without questions or seeds have no interval"
        text = "the evidence does not choose a run to deploy: no difference is shown" if compared else text
        yield Insight(kind=Kind.DEPLOY, text=text, data={"choice": None, "compared": compared})


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
            text = f"no data for run {run.name} at {steps(empty)}: no {metric}{why}: no conclusion"
            yield Insight(kind=Kind.NO_DATA, text=text, arms=[arm.name], data={**data, "steps": empty})
    elif value is None:
        why = f" ({run.why})" if run.why else ""
        text = f"no data for run {run.name}: no {metric}{why}: no conclusion"
        yield Insight(kind=Kind.NO_DATA, text=text, arms=[arm.name], data=data)
    if value is not None and not math.isfinite(value):
        word = "not a number" if math.isnan(value) else "infinite"
        text = f"the {metric} of run {run.name} is {word}: it is in no comparison"
        yield Insight(kind=Kind.CAUTION, text=text, arms=[arm.name], data={**data, "value": word})


def _placeholder(run: StudyRun, metric: str) -> bool:
    """Whether a result is exactly zero, or missing, at each of several steps: it was never read."""
    curve = run.curves[metric]
    return _is_result(metric) and len(curve.values) > 1 and not any(curve.values)


def _stated(arm: Arm, metric: str) -> Stated:
    values = [final(run, metric) for run in arm.runs if run.status not in (Status.DIVERGED, Status.FAILED)]
    return Stated(arm=arm, values=[value for value in values if value is not None and math.isfinite(value)])


def _comparisons(known: Sequence[Stated], metric: str) -> Iterator[Insight]:
    """Welch's t-interval over seeds of all pairs that have enough of them, corrected for their number."""
    pairs = list(combinations([stated for stated in known if len(stated.values) >= FEWEST_SEEDS], 2))
    for base, other in pairs:
        parts = [variance(stated.values) / len(stated.values) for stated in (base, other)]
        value, error = other.mean - base.mean, math.sqrt(sum(parts))
        if error == 0:
            continue
        dfs = [len(stated.values) - 1 for stated in (base, other)]
        df = sum(parts) ** 2 / sum(part**2 / d for part, d in zip(parts, dfs, strict=True))
        half = student.quantile(LEVEL / len(pairs), df) * error
        low, high = value - half, value + half
        p_value = min(1.0, len(pairs) * student.two_sided_p(value / error, df))
        corrected = f", corrected for {counted(len(pairs), 'comparison')}" if len(pairs) > 1 else ""
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
            | {"high": high, "p_value": p_value, "comparisons": len(pairs), "seeds": dfs and [d + 1 for d in dfs]}
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
        f"{'lowest' if lower else 'highest'} {metric} in this table: {first.arm.name}, {_plain(first.mean)}, before "
        f"{second.arm.name}, {_plain(second.mean)}; no claim that it is better: the file holds no questions "
        f"and fewer than {FEWEST_SEEDS} seeds an arm, so there is no interval"
    )
    data = {"metric": metric, "values": {stated.arm.name: stated.mean for stated in ranked}}
    return Insight(kind=Kind.NO_DIFFERENCE, text=text, arms=[stated.arm.name for stated in ranked], data=data)


def _is_result(metric: str) -> bool:
    """Not a number of training, like a gradient's norm. A name without a known word is that of a table's file."""
    return bool(_words(metric) & RESULTS) or not (is_metric(metric) or metric == "minutes")


def _words(metric: str) -> frozenset[str]:
    return frozenset(re.sub(r"@\d+", "", word) for word in plain_name(metric).split("_"))


def _plain(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")
