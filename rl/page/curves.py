"""Curves as the page draws them: as few points as a screen has room for, with nothing lost that sticks out.

Steps are put into buckets of equal width, a power of two. Of each bucket a curve has the least and the most value, so
that a spike of a single step is seen, and the trend at its end: the mean of the last steps with a 95 % interval.
"""

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rl.evaluate.stats import LEVEL
from rl.evaluate.student import quantile
from rl.observe.readings import RECENT
from rl.page.numbers import Column, Numbers

BUCKETS = 256
"""The most of a curve."""
FEWEST = 6
"""Points of a trend that has an interval."""
CORRELATION = 1 + 2 * (4 / 9 + 1 / 36)
"""Second differences of noise are correlated, by −2/3 with the next and by 1/6 with that after it: m of them tell its
variance with m / this degrees of freedom."""

Floats = NDArray[np.float64]


def width_for(steps: int) -> int:
    """Steps in a bucket, so that there are `BUCKETS` of them at the most."""
    width = 1
    while -(-steps // width) > BUCKETS:
        width *= 2
    return width


def window_for(steps: int) -> int:
    """Steps that a trend is the mean of: no fewer than are in a bucket."""
    return max(RECENT, width_for(steps))


def curves(numbers: Numbers, known: str = "") -> dict[str, Any]:
    """All curves of a run as JSON, or only what was added to them.

    Args:
        known: the `key` of what was sent before.

    Returns:
        key: says what was sent, for the next call; from: the first bucket that is sent, those before it stay as they
        are; width: of a bucket; steps: the last one of each bucket; series: metric → `least`, `most`, `mean`, `low` and
        `high` of each bucket, NaN for none, and `broken`: values that are not finite.
    """
    width = width_for(numbers.step)
    buckets = -(-numbers.step // width)
    state = f"{numbers.rewinds}-{width}"
    before, _, sent = known.rpartition("-")
    ours = before == state and sent.isdecimal() and len(sent) <= len(str(BUCKETS))
    first = min(int(sent), buckets) if ours else 0
    first = max(0, first - 1)  # the last one that was sent may have grown
    edges = np.append(np.arange(first, buckets) * width, numbers.step)
    measured = {name: column for name, column in numbers.columns.items() if len(column)}
    with np.errstate(all="ignore"):  # a log may hold any number
        series = {name: _series(column, edges, window_for(numbers.step)) for name, column in measured.items()}
    return {
        "key": f"{state}-{buckets}",
        "from": first,
        "width": width,
        "steps": edges[1:].tolist(),
        "series": series,
    }


def _series(column: Column, edges: NDArray[np.int64], window: int) -> dict[str, Any]:
    """Of the buckets between two edges each: after the one, and up to the other."""
    steps, values = np.array(column.steps), np.array(column.values)
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    places = np.searchsorted(steps, edges, side="right")
    full = np.flatnonzero(np.diff(places))
    series = {name: np.full(len(edges) - 1, np.nan) for name in ("least", "most", "mean", "low", "high")}
    if len(full):
        starts, ends = places[full], places[full + 1]
        series["least"][full] = np.minimum.reduceat(values, starts)
        series["most"][full] = np.maximum.reduceat(values, starts)
        mean, error = trend(values, ends - 1, window)
        series["mean"][full], series["low"][full], series["high"][full] = mean, mean - error, mean + error
    return {name: _short(of) for name, of in series.items()} | {"broken": int(len(finite) - finite.sum())}


def trend(values: Floats, places: NDArray[np.int64], window: int) -> tuple[Floats, Floats]:
    """The mean of the last `window` values at each place, with half of its 95 % interval: NaN of too few values.

    The interval is that of independent noise about any course that is straight over three points: its variance is told
    by second differences, of which a trend is no part.
    """
    padded = np.concatenate([np.full(window - 1, np.nan), values])
    windows = sliding_window_view(padded, window)[places]
    n = np.minimum(places + 1, window)
    mean = np.nansum(windows, axis=1) / n
    bends = np.diff(windows, 2, axis=1)
    variance = np.nansum(bends**2, axis=1) / 6 / np.maximum(n - 2, 1)
    quantiles = {int(k): quantile(LEVEL, (k - 2) / CORRELATION) for k in np.unique(n) if k >= FEWEST}
    half = np.array([quantiles.get(int(k), np.nan) for k in n]) * np.sqrt(variance / n)
    return mean, half


def _short(values: Floats) -> list[float]:
    """Five digits: a screen has no more, and they are sent."""
    return [float(f"{value:.5g}") for value in values.tolist()]
