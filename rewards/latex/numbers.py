r"""Plain numbers as exact rationals, in every notation that has one value: ``1,234.50``, ``-\frac{3}{4}``, ``1 1/2``,
``1.5*10^{3}``, ``0.\overline{3}``, ``204_5``, ``forty-two``."""

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

MAX_LENGTH = 100
"""Characters of a plain number; what is longer is none."""

_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.\d*)?|\.\d+)"
_SIGNED = rf"[+-]?{_DECIMAL}"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?) ?(?:"
    rf"(?P<repeating>\d*\.\d*)"
    rf"(?:\\(?:overline|bar|dot)\{{(?P<period>\d+)\}}|\((?P<bracketed>\d+)\)|(?P<dots> ?\\ldots))"
    rf"|(?P<mantissa>{_DECIMAL})(?:[eE](?P<e>[+-]?\d{{1,3}}))?"
    rf"(?: ?(?:\*|\\cdot) ?10\^(?:(?P<digit>\d)|\{{(?P<power>[+-]?\d{{1,3}})\}}))?"
    rf"|10\^(?:(?P<bare_digit>\d)|\{{(?P<bare_power>[+-]?\d{{1,3}})\}})"
    rf"|(?P<digits>[0-9A-Z]+(?:\.[0-9A-Z]+)?)_(?:(?P<base_digit>\d)|\{{(?P<base>\d\d?)\}})"
    rf"|(?P<whole>\d+(?: |(?=\\)))?"
    rf"(?:(?P<top>{_INTEGER})/(?P<bottom>{_INTEGER})|\\frac\{{(?P<over>{_SIGNED})\}} ?\{{(?P<under>{_SIGNED})\}})"
    rf")"
)

_REPETITION = re.compile(r"(\d)\1\1+$|(\d{2,}?)\2+$")
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
NUMBER_WORDS = {**{word: n for n, word in enumerate(_SMALL)}, **{word: 10 * n for n, word in enumerate(_TENS, 2)}}
_SCALES = {"billion": 10**9, "million": 10**6, "thousand": 10**3}


@dataclass(frozen=True, slots=True)
class Number:
    """An exact number and how it was written."""

    value: Fraction
    form: Literal["integer", "decimal", "fraction", "power"]
    digits: int = 0
    """Significant ones, of a decimal."""
    step: Fraction = Fraction(0)
    """What one more in the last place of a decimal would add."""
    base: int = 10


def number(text: str) -> Number | None:
    """Read a plain number from text normalised by `rewards.latex.text`; None if it is anything else."""
    if text.isdecimal() and len(text) <= MAX_LENGTH:
        return Number(Fraction(int(text)), "integer")
    if len(text) > MAX_LENGTH or (match := _NUMBER.fullmatch(text)) is None:
        return None
    found = _unsigned(match)
    if found is None or match["sign"] != "-":
        return found
    return replace(found, value=-found.value)


def number_in_words(text: str) -> int | None:
    """The value of ``twelve`` or ``three hundred and forty-two``; None for any other words."""
    words, total = text.lower().replace("-", " ").split(), 0
    for name, scale in _SCALES.items():
        if name in words:
            at = words.index(name)
            if (value := _below_thousand(words[:at], after_and=False)) is None:
                return None
            total, words = total + value * scale, words[at + 1 :]
    if not words:
        return total or None
    value = _below_thousand(words, after_and=total > 0)
    return None if value is None else total + value


def _below_thousand(words: list[str], *, after_and: bool) -> int | None:
    value = 0
    if "hundred" in words:
        hundreds, words = words[: words.index("hundred")], words[words.index("hundred") + 1 :]
        if len(hundreds) != 1 or not 0 < NUMBER_WORDS.get(hundreds[0], 0) < 10:
            return None
        value, after_and = 100 * NUMBER_WORDS[hundreds[0]], True
        if not words:
            return value
    if after_and and words[:1] == ["and"]:
        words = words[1:]
    numbers = [NUMBER_WORDS.get(word, -1) for word in words]
    match numbers:
        case [small] if small >= 0:
            return value + small
        case [tens, ones] if tens >= 20 and 0 < ones < 10:
            return value + tens + ones
    return None


def _unsigned(match: re.Match[str]) -> Number | None:
    if match["repeating"] is not None:
        return _repeating(match)
    if match["mantissa"]:
        return _decimal(match)
    if power := match["bare_digit"] or match["bare_power"]:
        return Number(Fraction(10) ** int(power), "power")
    if match["digits"]:
        return _in_base(match["digits"], int(match["base_digit"] or match["base"]))
    top, bottom = _rational(match["top"] or match["over"]), _rational(match["bottom"] or match["under"])
    if bottom == 0 or (match["whole"] and top >= bottom):
        return None
    return Number(_rational(match["whole"] or "0") + top / bottom, "fraction")


def _decimal(match: re.Match[str]) -> Number:
    mantissa = re.sub("[, ]", "", match["mantissa"])
    power = match["digit"] or match["power"]
    scale = Fraction(10) ** (int(match["e"] or 0) + int(power or 0))
    _, point, places = mantissa.partition(".")
    form: Literal["power", "decimal", "integer"] = "power" if match["e"] or power else "decimal" if point else "integer"
    return Number(
        _rational(mantissa) * scale, form, len(mantissa.replace(".", "").lstrip("0")), scale / 10 ** len(places)
    )


def _repeating(match: re.Match[str]) -> Number | None:
    r"""``0.1\overline{6}``, ``0.1(6)``; before ``\ldots`` repeats what is there twice, or three times a digit."""
    whole, _, places = match["repeating"].partition(".")
    period = match["period"] or match["bracketed"]
    if period is None:
        if (found := _REPETITION.search(places)) is None:
            return None
        period = found[1] or found[2]
    fixed = _rational(f"{whole or '0'}.{places}")
    return Number(fixed + Fraction(int(period), 10 ** len(places) * (10 ** len(period) - 1)), "fraction")


def _in_base(digits: str, base: int) -> Number | None:
    whole, _, places = digits.partition(".")
    try:
        return Number(Fraction(int(whole + places, base), base ** len(places)), "integer", base=base)
    except ValueError:  # no such base, or no such digit in it
        return None


def _rational(digits: str) -> Fraction:
    return Fraction(re.sub("[, ]", "", digits).removesuffix("."))
