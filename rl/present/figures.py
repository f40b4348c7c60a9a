"""The figures of a report: each takes what is measured, and is None where there is nothing to draw."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from rl.core.metrics import STEP
from rl.present.document import Picture
from rl.present.ink import canvas, look, picture
from rl.present.progress import Checkpoint, Progress
from rl.present.study import Study
from rl.present.words import setting
from rl.study.runs import Arm, Curve

POINTS = 150
"""Of a curve, in the figure; more steps than that are averaged. The CSV holds all."""
BANDED = 7
"""Arms whose bands can be told apart in one panel."""
SIDE = 1.12
"""Factor by which the shaded basin reaches beyond its rates, so that one rate is seen, too."""
DULL = ("staleness_max", "reward_trained")
"""Training metrics that say nothing beside another that is drawn."""
AXES: dict[str, Callable[[Checkpoint], float | None]] = {
    "updates": lambda point: point.step,
    "samples consumed": lambda point: point.samples,
    "minutes of training": lambda point: None if point.seconds is None else point.seconds / 60,
}


def draw_progress(progress: Progress, numbers: Mapping[str, int], folder: Path) -> Picture | None:
    """The metric over updates, samples and time: what looks better by one may be worse by another.

    Args:
        numbers: of the arms, which give each its look.
    """
    metric = progress.metrics[0]
    if not any(point.estimates[metric] for points in progress.arms.values() for point in points):
        return None
    figure, panels = canvas(len(AXES), height=3.2)
    banded = len(progress.arms) <= BANDED
    for axis, (label, cost) in zip(panels, AXES.items(), strict=True):
        for name, points in progress.arms.items():
            measured = [(x, e) for p in points if (x := cost(p)) is not None and (e := p.estimates[metric])]
            if measured:
                xs = [x for x, _ in measured]
                own = look(numbers[name])
                axis.plot(xs, [e.value for _, e in measured], markersize=4, linewidth=1.4, label=name, **own)
                if banded:
                    lows, highs = [e.low for _, e in measured], [e.high for _, e in measured]
                    axis.fill_between(xs, lows, highs, color=own["color"], alpha=0.15, linewidth=0)
        axis.set(xlabel=label, ylim=(0, 1))
    panels[0].set(ylabel=f"{metric}, {progress.name}")
    _legend(panels[0])
    band = "Bands are 95 % intervals." if banded else f"Above {BANDED} arms the intervals are in the tables only."
    return picture(
        figure,
        folder / f"pass-rate-{progress.file}.png",
        alt=f"{metric} on {progress.name} of {len(progress.arms)} arms over updates, samples and minutes; "
        "the tables below hold the numbers",
        caption=f"{metric} on {progress.name}, a line for each arm: the mean of its runs. {band}",
    )


def draw_curves(study: Study, numbers: Mapping[str, int], folder: Path) -> Picture | None:
    """Training metrics by step: the mean over the runs of an arm, and from the lowest to the highest of them."""
    names = curve_names(study)
    if not names:
        return None
    columns = min(3, len(names))
    figure, panels = canvas(columns, -(-len(names) // columns))
    banded = len(study.arms) <= BANDED
    for axis, name in zip(panels, names, strict=False):
        for arm in study.arms:
            _draw_curve(axis, arm, name, look(numbers[arm.name]), banded)
        axis.set(title=_titled(name), xlabel="step")
    for axis in panels[len(names) :]:
        axis.set_visible(False)
    _legend(panels[0])
    steps = max(len(curve.steps) for run in study.runs for curve in run.curves.values())
    band = ", a band reaches from the lowest to the highest of them" if banded else ""
    mean = f" Means of {_bin_size(steps)} steps are drawn." if steps > POINTS else ""
    return picture(
        figure,
        folder / "curves.png",
        alt=f"training curves by step: {', '.join(names)}",
        caption=f"Training metrics by step: a line is the mean of an arm's runs{band}.{mean} What is not finite has no "
        "place in a figure: it is told above, under what to keep in mind.",
    )


def curve_names(study: Study) -> list[str]:
    """What is drawn: what changed during training, of ours only what says something about learning."""
    shown = [metric.name for metric in STEP if metric.section in ("train", "sampler") and metric.name not in DULL]
    ours = [name for name in shown if any(_changes(run.curves.get(name)) for run in study.runs)]
    foreign = dict.fromkeys(name for run in study.runs if not run.ours for name in run.curves if name not in shown)
    return ours + list(foreign)[: max(0, 15 - len(ours))]


def _changes(curve: Curve | None) -> bool:
    return curve is not None and len({value for _, value in curve.measured}) > 1


def _titled(name: str) -> str:
    units = {metric.name: metric.unit for metric in STEP}
    return f"{name} ({unit})" if (unit := units.get(name)) not in (None, "", name) else name


def _draw_curve(axis: Axes, arm: Arm, name: str, own: dict[str, Any], banded: bool) -> None:
    curves = [_binned(curve) for run in arm.runs if (curve := run.curves.get(name))]
    steps = sorted({step for curve in curves for step in curve})
    values = [[curve[step] for curve in curves if step in curve] for step in steps]
    if not steps:
        return
    style = {"color": own["color"], "linestyle": own["linestyle"]}
    every = max(1, len(steps) // 8)
    axis.plot(
        steps, [fmean(v) for v in values], marker=own["marker"], markevery=every, markersize=3, linewidth=1.1, **style,
        label=arm.name,
    )  # fmt: skip
    if len(curves) > 1 and banded:
        lows, highs = [min(v) for v in values], [max(v) for v in values]
        axis.fill_between(steps, lows, highs, color=own["color"], alpha=0.15, linewidth=0)


def _binned(curve: Curve) -> dict[int, float]:
    """step → value, of the finite ones; of a long curve the means of bins, at their last step."""
    finite = [(step, value) for step, value in curve.measured if math.isfinite(value)]
    size = _bin_size(len(curve.steps))
    bins: dict[int, list[float]] = {}
    for step, value in finite:
        bins.setdefault(-(-step // size) * size, []).append(value)
    return {step: fmean(values) for step, values in bins.items()}


def _bin_size(steps: int) -> int:
    return -(-steps // POINTS)


def draw_results(
    rows: Sequence[tuple[str, Checkpoint]], metric: str, numbers: Mapping[str, int], folder: Path
) -> Picture | None:
    """The last result of each arm with its interval, and what it had cost."""
    rows = [(name, point) for name, point in rows if point.estimates[metric]]
    if not rows:
        return None
    figure, panels = canvas(3, height=max(2.7, 0.9 + 0.26 * len(rows)))
    for at, (name, point) in enumerate(rows):
        estimate = point.estimates[metric]
        assert estimate
        own = look(numbers[name]) | {"linestyle": "none"}
        span = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
        panels[0].errorbar([estimate.value], [at], xerr=span, capsize=2, **own)
        for axis, cost in ((panels[1], AXES["minutes of training"](point)), (panels[2], point.tokens)):
            if cost is not None:
                axis.errorbar([cost], [estimate.value], yerr=span, capsize=2, label=name, **own)
    panels[0].set_yticks(range(len(rows)), [name for name, _ in rows])
    panels[0].invert_yaxis()
    panels[0].set(xlabel=metric)
    panels[1].set(xlabel="minutes of training", ylabel=metric)
    panels[2].set(xlabel="completion tokens trained on", ylabel=metric)
    for axis in panels[1:]:
        axis.set_xlim(left=0)
    return picture(
        figure,
        folder / "results.png",
        alt=f"the last {metric} of each arm with its interval, and the same against minutes and tokens",
        caption=f"The last {metric} of each arm with its 95 % interval; the same against the time and the tokens of "
        "training: up and to the left is better.",
    )


def draw_sensitivity(groups: Sequence[Mapping[str, Any]], folder: Path) -> Picture:
    """The metric against the rate, on a log axis, with the basin marked.

    Args:
        groups: the data of the insights about it (`rl.study.rates`), for each group of arms that are alike otherwise.
    """
    figure, panels = canvas(len(groups), width=5.5 if len(groups) == 1 else 3.6, height=3.2)
    for axis, data in zip(panels, groups, strict=True):
        own = look(0)
        if data["basin"]:
            low, high = data["basin"]
            axis.axvspan(low / SIDE, high * SIDE, color=look(2)["color"], alpha=0.15, linewidth=0, label="basin")
        axis.plot(data["lr"], data["value"], **own)
        spans = [row for row in zip(data["lr"], data["low"], data["high"], strict=True) if None not in row]
        if spans:
            rates, lows, highs = zip(*spans, strict=True)
            axis.vlines(rates, lows, highs, color=own["color"], linewidth=1)
        for at, rate in enumerate(data["broken"]):
            axis.axvline(rate, color=look(1)["color"], linestyle=":", label="" if at else "diverged or failed")
        axis.set(xscale="log", xlabel="learning rate", ylabel=data["metric"])
        axis.set_xticks(data["lr"], [setting(rate) for rate in data["lr"]], rotation=45)
        axis.minorticks_off()
    _legend(max(panels, key=lambda axis: len(axis.get_legend_handles_labels()[1])))
    return picture(
        figure,
        folder / "learning-rate.png",
        alt="the metric against the learning rate on a log axis, with the basin marked, as the sentences above say",
        caption="The last result of each arm against its learning rate, with 95 % intervals. The basin, where "
        "there are intervals to tell it by, is shaded: no rate in it is shown to be worse than the best.",
    )


def _legend(axis: Axes) -> None:
    """Below the figure, in as many columns as its longest name allows."""
    handles, names = axis.get_legend_handles_labels()
    if not names:
        return
    longest = max(map(len, names))
    axis.figure.legend(handles, names, loc="outside lower center", ncols=max(1, min(4, 120 // (longest + 8))))
