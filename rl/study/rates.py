"""How a result goes with the learning rate: sensitivity with its basin, and correlation."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rl.core.config import TrainConfig
from rl.evaluate.arms import arm_mean
from rl.evaluate.correlation import FEWEST, pearson, spearman
from rl.evaluate.stats import Estimate
from rl.study.insights import Insight, Kind
from rl.study.measured import Comparisons, Measured
from rl.study.runs import NOT_COMPUTED, SEED, Arm, Status
from rl.study.tables import plain_name
from rl.study.words import at_steps, listing, number, short

FEWEST_RATES = 3
NAMED = 4
"""Arms, at most, that a correlation names."""
LR = "lr"
_SETTINGS = [name for name in TrainConfig.model_fields if name not in (LR, SEED) and name not in NOT_COMPUTED]
"""What else a result may come from; a table of another tool has columns that are none of these."""
_LOWER_IS_BETTER = frozenset(("loss", "perplexity", "ppl"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """An arm's result at its learning rate; of another tool it has no interval."""

    arm: Arm
    lr: float
    value: float
    estimate: Estimate | None = None


def sensitivity(points: Sequence[Point], metric: str, study: Comparisons | None = None) -> Iterator[Insight]:
    """The metric against the log of the rate, of arms that differ in nothing else; three rates at least.

    Args:
        study: that the points are of; without it they have no intervals, and the rates no basin.
    """
    groups: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.lr):
        groups.setdefault(_without_rate(point.arm), []).append(point)
    told = [group for group in groups.values() if len({point.lr for point in group}) >= FEWEST_RATES]
    apart = _other_settings([group[0].arm for group in told])
    for group in told:
        yield _sensitivity(group, metric, study, listing([f"{n} {group[0].arm.settings.get(n)}" for n in apart]))


def _sensitivity(group: Sequence[Point], metric: str, study: Comparisons | None, at: str) -> Insight:
    """Args: at: what tells the group from the others; empty where there is one alone."""
    lower = lower_is_better(metric)
    top = min(group, key=lambda point: point.value if lower else -point.value)
    worse = _worse_than(top, study) if study else frozenset()
    broken = _broken(study, group) if study else []
    basin = _around(group, top, worse) if study else []
    edge, beyond = _edge(group, top, broken)
    text = f"{metric} against lr{f' at {at}' if at else ''}: {'lowest' if lower else 'highest'} at lr {short(top.lr)}"
    text += f"; the basin is {_range(basin)}: no rate in it is shown to be worse than the best" if basin else ""
    text += "" if basin else "; no intervals, so no basin is shown"
    if behind := [point.lr for point in group if point.arm.name in worse]:
        text += f"; shown to be worse: {listing([short(lr) for lr in behind])}"
    if broken:
        text += f"; diverged or failed: {listing([short(lr) for lr in broken])}"
    steps = {m.name: m.last for m in study.measured if m.name in {point.arm.name for point in group}} if study else {}
    text += f"; each at its last evaluation: {at_steps(steps)}" if len(set(steps.values())) > 1 else ""
    if basin and study and min(len(m.runs) for m in study.measured) == 1:
        text += "; one seed: of these runs, not of the rates"
    if edge:
        text += f". The best is the {edge} rate tried, and a better one may lie beyond: try --lr {short(beyond)}"
    data = {
        "metric": metric,
        "at": at,
        "lr": [point.lr for point in group],
        "value": [point.value for point in group],
        "low": [point.estimate.low if point.estimate else None for point in group],
        "high": [point.estimate.high if point.estimate else None for point in group],
        "best": top.lr,
        "basin": [basin[0].lr, basin[-1].lr] if basin else None,
        "worse": behind,
        "broken": broken,
        "edge": edge,
        "steps": steps,
        "try": beyond,
    }
    return Insight(kind=Kind.SENSITIVITY, text=text, arms=[point.arm.name for point in group], data=data)


def correlation(points: Sequence[tuple[Arm, float]], metric: str, *, comparisons: int = 1) -> Insight | None:
    """Of the log of the rate with a metric, over arms; None with fewer than three rates.

    Args:
        points: arms with the metric's values. Those without a rate, and values that are not finite, are left out.
        comparisons: how many correlations the study has: the intervals are corrected for them.
    """
    known = [(arm, lr, value) for arm, value in points if (lr := rate(arm)) and math.isfinite(value)]
    if len({lr for _, lr, _ in known}) < FEWEST_RATES:
        return None
    logs, values = [math.log10(lr) for _, lr, _ in known], [value for _, _, value in known]
    line, ranks = pearson(logs, values, comparisons=comparisons), spearman(logs, values, comparisons=comparisons)
    if line is None or ranks is None:
        return None
    whose = listing([arm.name for arm, _, _ in known]) if line.n <= NAMED else f"{line.n} arms"
    text = f"log lr and {metric} over {whose}: Pearson {number(line.value, '+')}"
    if line.low is None or line.high is None:
        text += f", Spearman {number(ranks.value, '+')}; too few for an interval (it takes {FEWEST}): no conclusion"
    else:
        text += f" [{number(line.low, '+')}, {number(line.high, '+')}], Spearman {number(ranks.value, '+')}"
        if ranks.low is not None and ranks.high is not None:
            text += f" [{number(ranks.low, '+')}, {number(ranks.high, '+')}]"
        text += f" (95 %{f', corrected for {comparisons} correlations' if comparisons > 1 else ''})"
        text += "; no correlation is shown" if line.low <= 0 <= line.high else ""
    others = _other_settings([arm for arm, _, _ in known])
    if others:
        text += f"; {listing(others)} {'differ' if len(others) > 1 else 'differs'}, too, and may be the cause"
    if left_out := len(points) - len(known):
        text += f"; {left_out} without a rate or a finite value {'is' if left_out == 1 else 'are'} left out"
    data: dict[str, Any] = {"metric": metric, "setting": LR, "log": True, "n": line.n, "left_out": left_out}
    data["comparisons"] = comparisons
    data["pearson"] = {"value": line.value, "low": line.low, "high": line.high}
    data["spearman"] = {"value": ranks.value, "low": ranks.low, "high": ranks.high}
    data |= {"lr": [lr for _, lr, _ in known], "values": values, "other_settings": others}
    return Insight(kind=Kind.CORRELATION, text=text, arms=[arm.name for arm, _, _ in known], data=data)


def lower_is_better(metric: str) -> bool:
    """By its words: of losses and perplexities, of other tools too."""
    return bool(set(plain_name(metric).split("_")) & _LOWER_IS_BETTER)


def rate(arm: Arm) -> float | None:
    """Its learning rate, where it has one that is a number above 0."""
    value = arm.settings.get(LR)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value > 0 else None


def points(study: Comparisons, part: Sequence[Measured]) -> list[Point]:
    """The arms of a part with a rate."""
    found = []
    for m in part:
        if (lr := rate(m.arm)) is not None:
            estimate = arm_mean(m.scores(m.last), noise=study.noise)
            found.append(Point(arm=m.arm, lr=lr, value=estimate.value, estimate=estimate))
    return found


def _without_rate(arm: Arm) -> str:
    return json.dumps({name: arm.settings.get(name) for name in _SETTINGS}, default=str)


def _worse_than(top: Point, study: Comparisons) -> frozenset[str]:
    own = [c for c in study.comparisons if not c.equal_samples and c.shown and c.shown.name == top.arm.name]
    return frozenset((c.base if c.shown is c.other else c.other).name for c in own)


def _around(group: Sequence[Point], top: Point, worse: frozenset[str]) -> list[Point]:
    """The neighbours of the best, to the first on each side that is shown to be worse."""
    first = last = group.index(top)
    while first > 0 and group[first - 1].arm.name not in worse:
        first -= 1
    while last < len(group) - 1 and group[last + 1].arm.name not in worse:
        last += 1
    return list(group[first : last + 1])


def _broken(study: Comparisons, group: Sequence[Point]) -> list[float]:
    """Rates of arms of this group of which every run diverged or failed: these are no edge of the grid."""
    key = _without_rate(group[0].arm)
    return sorted(
        lr
        for arm in study.arms
        if (lr := rate(arm)) is not None
        and all(run.status in (Status.DIVERGED, Status.FAILED) for run in arm.runs)
        and _without_rate(arm) == key
    )


def _edge(group: Sequence[Point], top: Point, broken: Sequence[float]) -> tuple[str | None, float | None]:
    """Which edge of the grid the best rate lies at, and the next rate beyond it: as far as its neighbour, and a decade
    at the most."""
    rates = sorted({point.lr for point in group})
    if top.lr == rates[0] and not any(lr < top.lr for lr in broken):
        return "lowest", float(f"{top.lr / min(rates[1] / top.lr, 10):.2g}")
    if top.lr == rates[-1] and not any(lr > top.lr for lr in broken):
        return "highest", float(f"{top.lr * min(top.lr / rates[-2], 10):.2g}")
    return None, None


def _range(basin: Sequence[Point]) -> str:
    if len(basin) == 1:
        return f"lr {short(basin[0].lr)} alone"
    return f"lr {short(basin[0].lr)} to {short(basin[-1].lr)}"


def _other_settings(arms: Sequence[Arm]) -> list[str]:
    """That differ between arms, beside the rate."""
    return [name for name in _SETTINGS if any(arm.settings.get(name) != arms[0].settings.get(name) for arm in arms)]
