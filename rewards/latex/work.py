r"""Problems restated instead of solved: what an answer leaves to its reader to compute."""

import math
import re
from functools import lru_cache

from rewards.latex.brackets import UnreadableError, closes_at, groups, split, tokens
from rewards.latex.limits import COMMAND, OPERATORS, LimitError, check_formula
from rewards.latex.names import FUNCTIONS, GREEK
from rewards.latex.numbers import number

_DERIVATIVE = re.compile(r"\\frac\{d\b[^{}]*\}\{d ?[a-z]")

_NUMERIC = re.compile(r"(?:[\d\s.+*/^(){}!-]|\\frac|\\cdot)*\d(?:[\d\s.+*/^(){}!-]|\\frac|\\cdot)*")
"""What has a rational value and no name in it."""
_FACTOR = re.compile(r"\d+(?:\.\d+)?(?= ?[a-zA-Z\\(])|\(?\d+\)|\\frac\{\d+\}\{\d+\}")
"""A factor that begins with a number: of ``2 \\cdot 4\\pi`` both, of ``3 \\cdot 2^n`` one."""
_TIMES_AFTERWARDS = re.compile(
    # 2\pi 6, 3x(2), \frac{60}{360}72
    r"(?<!_)(?<!_\{)\d[^+\-^_]*(?:(?<![a-zA-Z\\])[a-zA-Z]|\)|\\pi|\}) ?(?:\d+(?!\^?\{)|\(\d+\))"
    r"|(?:(?<![\w}^])\d+(?:\.\d+)?|\\frac\{\d+\}\{\d+\}|\(-?\d+\)) ?[(\[]-?\d[^()+-]*[)\]]"  # 2(3x), (2)(3x)
    r"|\d \d"
)
_POWER = re.compile(r"(?<![\d.])\d+\^(?:\d|\{\d+\})")
_FRACTIONAL_POWER = re.compile(r"\^\{?[^{}]*(?:/|\\frac)")
_ROOT = re.compile(r"\\sqrt(?:\[2\])?\{(\d{1,15})\}")
_CONSTANT = re.compile(r"\\[a-zA-Z]+|[ei]")
_PRODUCT_OF_SUMS = re.compile(r"\)(?: ?\(| ?\\cdot ?\(| ?\*\(|\^)")


def check_work(answer: str, gold: str) -> None:
    """Raises LimitError unless the answer is a formula that leaves no more to compute than the gold does."""
    try:
        check_formula(answer)
        more = operations(answer) - operations(gold)
    except UnreadableError:
        raise LimitError("answer does not parse") from None
    except LimitError as limit:
        raise LimitError("answer does not parse" if str(limit) == "does not parse" else str(limit)) from None
    if more:
        raise LimitError("unevaluated operation")


@lru_cache(maxsize=4096)
def operations(latex: str) -> frozenset[str]:
    r"""The work that a formula leaves to its reader: sums, remainders, factorials, arithmetic between plain numbers, …

    Roots, fractions, and functions of variables are no work: ``\frac{\sqrt{3}}{2}`` is how that number is written.
    Raises UnreadableError.
    """
    commands = set(COMMAND.findall(latex))
    found = commands & OPERATORS
    for operation, sign in (
        ("derivative", _DERIVATIVE.search(latex)),
        ("factorial", "!" in latex),
        ("power", _POWER.search(latex)),
    ):
        if sign:
            found.add(operation)
    if any(math.isqrt(int(n)) ** 2 == int(n) for n in _ROOT.findall(latex)):
        found.add("root")
    if not (commands.intersection(GREEK) or any(map(str.isalpha, _CONSTANT.sub("", latex)))):
        found |= _on_constants(latex, commands)
    if _TIMES_AFTERWARDS.search(latex):
        found.add("multiplication")
    for group in groups(latex):
        terms = [term.strip() for term in split(group, "+", "-") if term.strip()]
        if sum(map(_is_numeric, terms)) > 1 or (len(terms) > 1 and any(map(_is_bracket, terms))):
            found.add("addition")
        if any(_has_numeric_factors(term) for term in terms):
            found.add("multiplication")
    return frozenset(found)


def _on_constants(latex: str, commands: set[str]) -> set[str]:
    r"""Of a formula without variables: ``\cos 30°``, ``|3-4i|``, ``(1+i)(2-i)``, ``\sqrt{2}\sqrt{3}``."""
    found = {name.removeprefix("arc").replace("ln", "log") for name in commands.intersection(FUNCTIONS)}
    if "|" in latex:
        found.add("absolute value")
    if _PRODUCT_OF_SUMS.search(latex):
        found.add("product of sums")
    if re.search(r"e\^\{[^{}]*i", latex):
        found.add("polar form")
    if any(_roots(term) > 1 for group in groups(latex) for term in split(group, "+", "-", "/")):
        found.add("product of roots")
    return found


def _roots(term: str) -> int:
    return sum(level == 0 and token == r"\sqrt" for token, _, level in tokens(term))


def _is_numeric(term: str) -> bool:
    """Whether it is a rational number, computed or not."""
    if number(term) is not None:
        return True
    return _NUMERIC.fullmatch(term) is not None and _FRACTIONAL_POWER.search(term) is None


def _has_numeric_factors(term: str) -> bool:
    """Whether two numbers are left to be multiplied."""
    if number(term) is not None:
        return False
    factors = [factor.strip() for factor in split(term, "*", r"\cdot")]
    return sum(_is_numeric(factor) or _FACTOR.match(factor) is not None for factor in factors) > 1


def _is_bracket(term: str) -> bool:
    return term.startswith("(") and closes_at(term) == len(term)
