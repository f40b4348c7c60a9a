"""Numbers and lists as the sentences of a study have them."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rl.core.config import HELDOUT
from rl.evaluate.stats import Difference, Estimate


def interval(value: Difference | Estimate, sign: str = "") -> str:
    """``+0.121 [+0.080, +0.160]``, with a minus that is one."""
    return f"{number(value.value, sign)} [{number(value.low, sign)}, {number(value.high, sign)}]"


def number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.3f}".replace("-", "−")


def plain(value: float) -> str:
    """Four significant digits, and all of those before the point: ``0.0005``, ``1e-07``, ``12345``, ``infinite``."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    text = f"{abs(value):.0f}" if 1000 <= abs(value) < 1e12 else f"{abs(value):.4g}"
    return f"−{text}" if value < 0 else text


def short(value: Any) -> str:
    """A setting: 2e-06 → ``2e-6``; a path or a hub name by its last part."""
    if isinstance(value, float):
        return re.sub(r"e([-+])0", r"e\1", f"{value:g}")
    return str(value).rpartition("/")[2]


def listing(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def counted(n: int, noun: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def steps(values: Sequence[int], among: Sequence[int] = ()) -> str:
    """``step 20``, ``steps 20, 60–100``: see `spans`."""
    return f"step{'' if len(values) == 1 else 's'} {spans(values, among)}"


def spans(values: Sequence[int], among: Sequence[int] = ()) -> str:
    """Rising numbers, as a range only where none is left out.

    Example: ``spans([3, 5, 6, 7]) == "3, 5–7"``, ``spans([20, 60, 80], among=[20, 40, 60, 80]) == "20, 60–80"``

    Args:
        among: all that there are, rising; all whole numbers unless given.
    """
    place = {value: i for i, value in enumerate(among)} or {value: value for value in values}
    found: list[list[int]] = []
    for value in values:
        if found and place[value] == place[found[-1][1]] + 1:
            found[-1][1] = value
        else:
            found.append([value, value])
    return ", ".join(str(low) if low == high else f"{low}–{high}" for low, high in found)


def at_steps(ends: Mapping[str, int]) -> str:
    """``at step 60``; of names with different steps ``a and b at step 20, c at step 60``."""
    by_step: dict[int, list[str]] = {}
    for name, step in ends.items():
        by_step.setdefault(step, []).append(name)
    if len(by_step) == 1:
        return f"at step {next(iter(by_step))}"
    return ", ".join(f"{listing(names)} at step {step}" for step, names in sorted(by_step.items()))


def where(set: str) -> str:
    return "the held-out problems" if set == HELDOUT else set


def as_data(value: Difference | Estimate) -> dict[str, Any]:
    """For an insight's data."""
    data: dict[str, Any] = {"value": value.value, "low": value.low, "high": value.high}
    data["questions"] = value.n_questions
    if isinstance(value, Difference):
        data |= {"p_value": value.p_value, "comparisons": value.comparisons}
    return data
