"""The figures of a report: each takes what is measured, and is None where there is nothing to draw."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rl.core.metrics import STEP
from rl.present.document import Picture
from rl.present.ink import canvas, look, picture
from rl.present.progress import Checkpoint, Progress
from rl.present.study import Study
from rl.present.words import setting
from rl.study.runs import Arm, Curve
from rl.study.words import counted, listing

POINTS = 150
"""Of a curve, in the figure; more steps than that are averaged. The CSV holds all."""
BANDED = 7
"""Arms whose bands can be told apart in one panel."""
LINE = 0.17
"""Height of a line of the legend, in inches."""
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

    One arm alone has nothing to be told from: it is drawn over updates.

    Args:
        numbers: of the arms, which give each its look.
    """
    metric = progress.metrics[0]
    drawn = [name for name, points in progress.arms.items() if any(point.estimates[metric] for point in points)]
    if not drawn:
        return None
    axes = dict(list(AXES.items())[: 1 if len(drawn) == 1 else None])
    figure, panels = canvas(len(axes), width=5.5 if len(axes) == 1 else 3.3, height=3.2)
    banded = len(drawn) <= BANDED
    for axis, (label, cost) in zip(panels, axes.items(), strict=True):
        for name in drawn:
            points = progress.arms[name]
            measured = [(x, e) for p in points if (x := cost(p)) is not None and (e := p.estimates[metric])]
            if measured:
                xs = [x for x, _ in measured]
                own = look(numbers[name])
                axis.plot(xs, [e.value for _, e in measured], markersize=4, linewidth=1.4, **own)
                if banded:
                    lows, highs = [e.low for _, e in measured], [e.high for _, e in measured]
                    axis.fill_between(xs, lows, highs, color=own["color"], alpha=0.15, linewidth=0)
        axis.set(xlabel=label)
        low, high = axis.get_ylim()
        axis.set_ylim(max(0.0, low), min(1.0, high))
    panels[0].set(ylabel=f"{metric}, {progress.name}")
    if len(drawn) > 1:
        _name_arms(panels[0], drawn, numbers)
    band = "Bands are 95 % intervals." if banded else f"Above {BANDED} arms the intervals are in the tables only."
    each = ", a line for each arm: the mean of its runs" if len(drawn) > 1 else ""
    over = listing([label.partition(" ")[0] for label in axes])
    return picture(
        figure,
        folder / f"pass-rate-{progress.file}.png",
        alt=f"{metric} on {progress.name} of {counted(len(drawn), 'arm')} over {over}; the tables below "
        "hold the numbers",
        caption=f"{metric} on {progress.name}{each}. {band}",
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
    if len(study.arms) > 1:
        _name_arms(panels[0], [arm.name for arm in study.arms], numbers)
    steps = max(len(curve.steps) for run in study.runs for curve in run.curves.values())
    several = any(len(arm.runs) > 1 for arm in study.arms)
    line = "Training metrics by step" + (": a line is the mean of an arm's runs" if several else "")
    band = ", a band reaches from the lowest to the highest of them" if several and banded else ""
    mean = f" Means of {_bin_size(steps)} steps are drawn." if steps > POINTS else ""
    return picture(
        figure,
        folder / "curves.png",
        alt=f"training curves by step: {', '.join(names)}",
        caption=f"{line}{band}.{mean} What is not finite has no place in a figure: it is told above, under "
        "what to keep in mind.",
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
        steps, [fmean(v) for v in values], marker=own["marker"], markevery=every, markersize=3, linewidth=1.1, **style
    )
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


def draw_results(progress: Progress, numbers: Mapping[str, int], folder: Path) -> Picture | None:
    """The last result of each arm with its interval, and what it had cost; None with fewer than two to look at."""
    metric = progress.metrics[0]
    last = [(name, points[-1]) for name, points in progress.arms.items() if points]
    rows = [(name, point, estimate) for name, point in last if (estimate := point.estimates[metric])]
    if len(rows) < 2:
        return None
    figure, panels = canvas(3, height=max(2.7, 0.9 + 0.26 * len(rows)))
    for at, (name, point, estimate) in enumerate(rows):
        own = look(numbers[name]) | {"linestyle": "none"}
        span = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
        panels[0].errorbar([estimate.value], [at], xerr=span, capsize=2, **own)
        for axis, cost in ((panels[1], AXES["minutes of training"](point)), (panels[2], point.tokens)):
            if cost is not None:
                axis.errorbar([cost], [estimate.value], yerr=span, capsize=2, **own)
    panels[0].set_yticks(range(len(rows)), [name for name, _, _ in rows])
    panels[0].invert_yaxis()
    panels[0].set(xlabel=metric)
    panels[1].set(xlabel="minutes of training", ylabel=metric)
    panels[2].set(xlabel="completion tokens trained on", ylabel=metric)
    for axis in panels[1:]:
        axis.set_xlim(left=0)
    return picture(
        figure,
        folder / (f"results-{progress.file}.png" if progress.apart else "results.png"),
        alt=f"the last {metric} of each arm with its interval, and the same against minutes and tokens",
        caption=f"The last {metric} of each arm with its 95 % interval; the same against the time and the tokens of "
        "training: up and to the left is better.",
    )


def draw_sensitivity(groups: Sequence[Mapping[str, Any]], folder: Path) -> Picture:
    """The metric against the rate, on a log axis, with the basin marked where there is one.

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
        axis.set(xscale="log", xlabel="learning rate", ylabel=data["metric"], title=data["at"])
        axis.set_xticks(data["lr"], [setting(rate) for rate in data["lr"]], rotation=45)
        axis.minorticks_off()
    _legend(max(panels, key=lambda axis: len(axis.get_legend_handles_labels()[1])))
    basin = any(data["basin"] for data in groups)
    spread = any(low is not None for data in groups for low in data["low"])
    shaded = " The basin is shaded: no rate in it is shown to be worse than the best." if basin else ""
    return picture(
        figure,
        folder / "learning-rate.png",
        alt=f"the metric against the learning rate on a log axis{', with the basin marked' if basin else ''}",
        caption=f"The last result of each arm against its learning rate{', with 95 % intervals' if spread else ''}."
        f"{shaded}",
    )


def _legend(axis: Axes) -> None:
    handles, names = axis.get_legend_handles_labels()
    if names:
        _below(axis, handles, names)


def _name_arms(axis: Axes, arms: Sequence[str], numbers: Mapping[str, int]) -> None:
    """With handles of its own: of what is drawn matplotlib leaves out names that begin with an underscore."""
    _below(axis, [Line2D([], [], markersize=4, linewidth=1.4, **look(numbers[name])) for name in arms], arms)


def _below(axis: Axes, handles: Sequence[Artist], names: Sequence[str]) -> None:
    """Below the figure, which grows by it, in as many columns as the longest name allows."""
    columns = max(1, min(4, 120 // (max(map(len, names)) + 8)))
    figure = axis.figure
    assert isinstance(figure, Figure)
    figure.set_figheight(figure.get_figheight() + LINE * -(-len(names) // columns))
    figure.legend(handles, names, loc="outside lower center", ncols=columns)
