"""Values as a report writes them: what was not measured is said in words, and never looks like a zero."""

import math
from collections.abc import Sequence
from typing import Any

from rl.evaluate.stats import Difference, Estimate
from rl.study import words

NO_DATA = "no data"


def number(value: float | None) -> str:
    """Four significant digits, and all of those before the point: ``0.0005``, ``1e-07``, ``12345``, ``infinite``."""
    if value is None:
        return NO_DATA
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    text = f"{abs(value):.0f}" if 1000 <= abs(value) < 1e12 else f"{abs(value):.4g}"
    return f"−{text}" if value < 0 else text


def interval(estimate: Estimate | Difference | None, sign: str = "") -> str:
    """Example: ``0.673 [0.610, 0.732]``"""
    return words.interval(estimate, sign) if estimate else NO_DATA


def p_value(difference: Difference | None) -> str:
    if difference is None:
        return NO_DATA
    return "<0.001" if difference.p_value < 0.001 else f"{difference.p_value:.3f}"


def setting(value: Any) -> str:
    """A value of a configuration, as it would be typed."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case float():
            return words.short(value)
        case _:
            return str(value)


def steps(values: Sequence[int]) -> str:
    """Example: ``3, 5–9, 12``"""
    spans: list[list[int]] = []
    for step in values:
        if spans and step == spans[-1][1] + 1:
            spans[-1][1] = step
        else:
            spans.append([step, step])
    return ", ".join(str(low) if low == high else f"{low}–{high}" for low, high in spans)
