"""Numbers and lists as the sentences of a study have them."""

import re
from collections.abc import Sequence
from typing import Any

from rl.core.config import HELDOUT
from rl.evaluate.stats import Difference, Estimate


def interval(value: Difference | Estimate, sign: str = "") -> str:
    """``+0.121 [+0.080, +0.160]``, with a minus that is one."""
    return f"{number(value.value, sign)} [{number(value.low, sign)}, {number(value.high, sign)}]"


def number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.3f}".replace("-", "−")


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


def steps(values: Sequence[int]) -> str:
    """``step 20``, ``steps 20–60``."""
    return f"step {values[0]}" if len(values) == 1 else f"steps {values[0]}–{values[-1]}"


def where(set: str) -> str:
    return "the held-out problems" if set == HELDOUT else set


def as_data(value: Difference | Estimate) -> dict[str, Any]:
    """For an insight's data."""
    data: dict[str, Any] = {"value": value.value, "low": value.low, "high": value.high}
    data["questions"] = value.n_questions
    if isinstance(value, Difference):
        data |= {"p_value": value.p_value, "comparisons": value.comparisons}
    return data
