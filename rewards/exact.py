r"""Plain numbers as exact rationals: integers, decimals, fractions, mixed numbers, percentages."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

MAX_LENGTH = 64
"""Characters of a plain number; what is longer is none."""

_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?:\s\d{3})+|\d+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)(?:\\?\$)?(?:"
    rf"(?P<decimal>{_DECIMAL})"
    rf"|(?P<whole>\d+(?:\s|(?=\\)))?"
    rf"(?:(?P<top>{_INTEGER})/(?P<bottom>{_INTEGER})"
    rf"|\\frac\{{(?P<top_braced>[+-]?{_DECIMAL})\}}\{{(?P<bottom_braced>[+-]?{_DECIMAL})\}}"
    rf"|\\frac(?P<top_digit>\d)(?P<bottom_digit>\d))"
    rf")(?P<percent>(?:\\%)?)"
)


@dataclass(frozen=True, slots=True)
class Number:
    """An exact number and how it was written."""

    value: Fraction
    form: Literal["integer", "decimal", "fraction"]
    percent: bool
    """``50%`` has the value 1/2."""


def number(text: str) -> Number | None:
    r"""Read a plain number from text normalised by `rewards.text`; None if it is anything else.

    Examples: ``1,234.50``, ``-\frac{3}{4}``, ``1 1/2``, ``$18``, ``12%``.
    """
    if len(text) > MAX_LENGTH or (match := _NUMBER.fullmatch(text)) is None:
        return None
    form: Literal["integer", "decimal", "fraction"]
    if match["decimal"]:
        value, form = _rational(match["decimal"]), "decimal" if "." in match["decimal"] else "integer"
    else:
        top, bottom = (
            _rational(match[part] or match[f"{part}_braced"] or match[f"{part}_digit"]) for part in ("top", "bottom")
        )
        if bottom == 0:
            return None
        value, form = _rational(match["whole"] or "0") + top / bottom, "fraction"
    value *= (-1 if match["sign"] == "-" else 1) * (Fraction(1, 100) if match["percent"] else 1)
    return Number(value, form, percent=bool(match["percent"]))


def _rational(digits: str) -> Fraction:
    return Fraction(re.sub(r"[,\s]", "", digits).removesuffix("."))
