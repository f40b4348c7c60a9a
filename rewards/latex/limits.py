r"""What is never handed to sympy: text that costs it seconds or gigabytes, and what is no formula.

What passes and still hangs is killed by `rewards.processes`.
The figures refuse none of the golds of MATH and GSM8K.
"""

import re

from rewards.latex.names import FUNCTIONS, GREEK

MAX_LENGTH = 1_000
"""Characters of an answer."""
MAX_FORMULA = 400
"""Characters of one formula in it."""
MAX_POWER = 1_000
"""What the exponents of a power in a power may multiply to."""

_TOO_LARGE = re.compile(
    r"\d{60}"
    r"|\d{5}\s*!|![\s)}\]]*!"  # factorials of large numbers, and of factorials
    r"|\\binom\s*\{[^{}]*\d{5}"
    r"|[\d.]{6}\^\{?\d{3}"
    r"|(?:[+-] ?){4}|(?:\\[a-z]+ ?){5}"  # x----x, \sin\sin\sin…
)
_MAX_COUNTS = {"=": 24, ",": 200, "&": 64, "|": 12, "_": 24, "°": 6, "/": 12, "(": 30, r"\pm": 3}
_EXPONENT = re.compile(r"([)}]?)\^ ?(?:(\{)|[-+]?(?:\d+!*|[a-zA-Z]!*|\\[a-zA-Z]+)(\^)?)")
_LARGE_EXPONENT = re.compile(r"\d{5}|!")

OPERATORS = frozenset(
    "sum prod int iint iiint oint lim limsup liminf det gcd lcm max min sup inf deg dim Gamma binom mod pmod div "
    "lfloor lceil partial arg Re Im".split()
)
_MARKS = frozenset("vec hat bar overline overrightarrow tilde angle triangle".split())
_NOTATION = (
    frozenset([*FUNCTIONS, *GREEK])
    | _MARKS
    | frozenset("emptyset exp sqrt frac cdot pi infty rfloor rceil ldots".split())
)
COMMAND = re.compile(r"\\([a-zA-Z]+)")
_CHARACTERS = re.compile(r"[a-zA-Z0-9_\s+*/^(){}\[\]|.,!'°=-]*")
_MARKED_DIGIT = re.compile(r"\d ?[_']")


class LimitError(Exception):
    """Its only argument is the reason, for a verdict."""


def check_length(text: str) -> None:
    """Raises LimitError if a text, as it was written, is too long for an answer."""
    if len(text) > MAX_LENGTH:
        raise LimitError("too large to verify")


def check_size(latex: str) -> None:
    """Raises LimitError if evaluating canonical text might take long. Linear time."""
    too_many = any(latex.count(mark) > most for mark, most in _MAX_COUNTS.items())
    if too_many or _TOO_LARGE.search(latex) or _has_tower(latex):
        raise LimitError("too large to verify")


def check_formula(latex: str) -> None:
    """Raises LimitError unless a text has only what formulas are made of."""
    commands = set(COMMAND.findall(latex))
    if _MARKED_DIGIT.search(latex):
        raise LimitError("does not parse")
    if commands - _NOTATION - OPERATORS or not _CHARACTERS.fullmatch(COMMAND.sub("", latex)):
        raise LimitError("does not parse")
    if len(latex) > MAX_FORMULA:
        raise LimitError("too large to verify")
    if "infty" in commands and latex.lstrip("+-") != r"\infty":
        raise LimitError("does not parse")


def is_formula(latex: str) -> bool:
    """Whether `check_formula` has nothing against it."""
    try:
        check_formula(latex)
    except LimitError:
        return False
    return True


def _has_tower(latex: str) -> bool:
    """Whether exponents are large, or on top of each other; ``e^{x^2}`` is neither."""
    product = 1
    for match in _EXPONENT.finditer(latex):
        if match[3]:  # 9^9^9
            return True
        exponent = _group(latex, match.end() - 1) if match[2] else match[0]
        inner = exponent.partition("^")[2] if match[2] else ""
        if _LARGE_EXPONENT.search(exponent) or (match[2] and "^" in exponent and not _is_small_tower(exponent, inner)):
            return True
        if match[1]:
            product *= max((abs(int(n)) for n in re.findall(r"\d+", exponent)), default=1)
    return product > MAX_POWER


def _is_small_tower(exponent: str, above: str) -> bool:
    return "^" not in above and any(map(str.isalpha, COMMAND.sub("", exponent))) and not re.search(r"\d{2}", exponent)


def _group(latex: str, start: int) -> str:
    """The group that opens at a place, up to its closing brace or the end."""
    depth = 0
    for end in range(start, len(latex)):
        depth += (latex[end] == "{") - (latex[end] == "}")
        if depth == 0:
            break
    return latex[start : end + 1]
