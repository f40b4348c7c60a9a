"""The course of one number over the steps: what changed, and whether that is more than the number's own noise."""

from dataclasses import dataclass
from math import inf, sqrt
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rl.study.runs import Curve

SURE = 5.0
"""Standard errors beyond which a fall is no chance: the deepest of many is looked for, at every step of a live run."""
FEWEST = 12
"""Points below which noise cannot be told well."""
TELLING = 8
"""Points below which it cannot be told at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A fitted change over a stretch of steps with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Fall:
    """The deepest fall of a course that is smoothed over a window of steps."""

    top_step: int
    top: float
    bottom_step: int
    bottom: float
    last: float
    errors: float
    """How many standard errors deep."""

    @property
    def depth(self) -> float:
        return self.top - self.bottom

    @property
    def recovered(self) -> bool:
        """Whether more than half of it was made good by the end."""
        return self.last > self.bottom + self.depth / 2


@dataclass(frozen=True, kw_only=True)
class Course:
    """The finite values of a curve."""

    name: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    @classmethod
    def of(cls, name: str, curve: Curve) -> Self:
        steps, values = np.array(curve.steps, dtype=np.int64), np.array(curve.values, dtype=np.float64)  # None is NaN
        finite = np.isfinite(values)
        return cls(name=name, steps=steps[finite], values=values[finite])

    def __len__(self) -> int:
        return len(self.values)

    def part(self, start: int, end: int | None = None) -> Self:
        """Of its points, by position."""
        steps, values = self.steps[start:end], self.values[start:end]
        return type(self)(name=self.name, steps=steps, values=values)

    def negative(self) -> Self:
        """Of a loss, so that up is good."""
        return type(self)(name=self.name, steps=self.steps, values=-self.values)

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def noise(self) -> float:
        """The standard deviation of a point about its course, from how far a point is off the line through its
        neighbours: a trend is no noise, and by the median a jump is none."""
        bends = np.abs(np.diff(self.values, 2))
        if not len(bends):
            return 0.0
        robust = 1.4826 * float(np.median(bends)) / sqrt(6)
        return robust or float(np.sqrt(np.mean(bends**2) / 6))

    def smooth(self, window: int) -> NDArray[np.float64]:
        """Means of every `window` points in succession."""
        window = min(window, len(self))
        sums = np.concatenate([[0.0], np.cumsum(self.values)])
        return np.asarray((sums[window:] - sums[:-window]) / window)

    def change(self) -> Change:
        """From the first to the last point, by least squares; of unknown size with fewer than 3 points."""
        if len(self) < 3 or np.ptp(self.steps) == 0:
            return Change(value=0.0, low=-inf, high=inf)
        x = self.steps - self.steps.mean()
        slope = float(x @ self.values) / float(x @ x)
        residuals = self.values - self.mean - slope * x
        error = sqrt(float(residuals @ residuals) / (len(self) - 2) / float(x @ x))
        span = float(np.ptp(self.steps))
        return Change(value=slope * span, low=(slope - 1.96 * error) * span, high=(slope + 1.96 * error) * span)

    def fall(self, least_window: int = 5) -> Fall | None:
        """The deepest fall; None where there are too few points for one.

        Args:
            least_window: points that a moment is taken over at the least; longer courses are smoothed over more.
        """
        window = max(least_window, len(self) // 8)
        if len(self) < 2 * window:
            return None
        means = self.smooth(window)
        tops = np.maximum.accumulate(means[:-window])
        bottom = int(np.argmax(tops - means[window:])) + window
        top = int(np.argmax(means[: bottom - window + 1]))
        error = self.noise * sqrt(2 / window)
        depth = float(means[top] - means[bottom])
        return Fall(
            top_step=int(self.steps[top + window // 2]),
            top=float(means[top]),
            bottom_step=int(self.steps[bottom + window // 2]),
            bottom=float(means[bottom]),
            last=float(means[-1]),
            errors=depth / error if error else inf if depth > 0 else 0.0,
        )
