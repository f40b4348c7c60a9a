"""Values as a report writes them: what was not measured is said in words, and never looks like a zero."""

from typing import Any

from rl.evaluate.stats import Difference, Estimate
from rl.study import words

NO_DATA = "no data"


def number(value: float | None) -> str:
    """Four significant digits, or that there is none."""
    return NO_DATA if value is None else words.plain(value)


def interval(estimate: Estimate | Difference | None, sign: str = "") -> str:
    """Example: ``0.673 [0.610, 0.732]``"""
    return words.interval(estimate, sign) if estimate else NO_DATA


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
