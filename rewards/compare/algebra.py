"""Equality of formulas by sympy, read by math-verify's parser. Importing this module costs a second.

It can hang or take gigabytes, whatever the limits before it: only processes that can be killed call it
(`rewards.processes`). Sympy objects stay in this module: printing, logging or pickling a hostile one can hang.
"""

import re
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache, wraps
from random import Random
from typing import Any, ParamSpec

import math_verify
import sympy
from latex2sympy2_extended import latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from sympy.core.function import AppliedUndef

from rewards.compare.outcome import Outcome
from rewards.latex.brackets import split

_DIGITS = 15
"""Of the values that are compared; sympy follows cancellation to a hundred."""
_POINTS = (1, 4, 8, 8)
"""Sets of values for so many variables, and for more: any two of the first seven take all signs."""
_ENOUGH = 2
"""Points where both formulas have a value; with fewer they are simplified."""
_AS_WRITTEN = ConversionConfig(interpret_simple_eq_as_assignment=False, lowercase_symbols=False)


_DEGREES = re.compile(r"(\d+(?:\.\d+)?) ?°")
_MARKED = re.compile(
    r"\\(vec|hat|bar|overline|overrightarrow|tilde|angle|triangle)(?![a-zA-Z]) ?(?:\{([a-zA-Z]+)\}|([A-Z]+|[a-z]))"
)
"""A letter with a mark is a name of its own."""
Arguments = ParamSpec("Arguments")
_NO_VALUE = (ArithmeticError, AttributeError, NotImplementedError, RecursionError, TypeError, ValueError)
"""What sympy raises for formulas without a value at a point, e.g. the cotangent of 0."""


class UnparsableError(Exception):
    """A formula has no reading."""


class UnusableGoldError(Exception):
    """A gold has no reading, or no value."""


def _decided(comparison: Callable[Arguments, Outcome]) -> Callable[Arguments, Outcome]:
    """What has no reading or no value is not equal to a gold that has."""

    @wraps(comparison)
    def decided(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Outcome:
        try:
            return comparison(*args, **kwargs)
        except UnparsableError:
            return Outcome(False, "answer does not parse", "algebra")
        except _NO_VALUE:
            return _outcome(False)

    return decided


class SympyAlgebra:
    """The `rewards.compare.outcome.Algebra` of processes that can be killed. All methods raise UnusableGoldError."""

    @_decided
    def same(self, answer: str, gold: str, *, restated: bool = False) -> Outcome:
        g = parse_gold(gold)
        a = _parse(answer)
        if not restated and _has_like_terms(answer, a) and not _has_like_terms(gold, g):
            return Outcome(False, "unevaluated operation", "algebra")
        return _outcome(_equal(a, g))

    @_decided
    def same_relation(self, answer: tuple[str, str], gold: tuple[str, str], *, either_way: bool) -> Outcome:
        g = parse_gold(_difference(gold))
        return _outcome(_proportional(_parse(_difference(answer)), g, either_way=either_way))

    @_decided
    def near(self, answer: str, gold: Fraction, tolerance: Fraction) -> Outcome:
        value = _parse(answer)
        if value.free_symbols or _kind(value) != "real":
            return _outcome(False)
        beyond = abs(value - sympy.Rational(*gold.as_integer_ratio())) - sympy.Rational(*tolerance.as_integer_ratio())
        return _outcome(bool(beyond.evalf(_DIGITS) <= 0))


@lru_cache(maxsize=1024)
def parse_gold(gold: str) -> Any:
    """Read a gold, once. Raises UnusableGoldError, also if it has no value (1/0)."""
    try:
        expression = _parse(gold)
    except UnparsableError as error:
        raise UnusableGoldError from error
    if expression.has(sympy.zoo, sympy.nan):
        raise UnusableGoldError
    return expression


def _difference(sides: tuple[str, str]) -> str:
    return f"{sides[0]}-({sides[1]})"


def _outcome(equal: bool) -> Outcome:
    return Outcome(equal, "equal by algebra" if equal else "not equal by algebra", "algebra")


def _parse(latex: str) -> Any:
    latex = _DEGREES.sub(r"(\1\\cdot\\frac{\\pi}{180})", latex).replace("'", "_{p}")
    latex = _MARKED.sub(lambda name: f"v_{{{zlib.crc32((name[1] + (name[2] or name[3])).encode())}}}", latex)
    try:
        expression = latex2sympy(latex, is_real=True, normalization_config=None, conversion_config=_AS_WRITTEN)
        exact = {number: sympy.Rational(str(number)) for number in expression.atoms(sympy.Float)}
        return expression.xreplace({**exact, sympy.Symbol("i", real=True): sympy.I})
    except MemoryError:
        raise
    except Exception as error:  # of many kinds, plain Exception among them
        raise UnparsableError from error


def _equal(a: Any, g: Any) -> bool:
    if a == g:
        return True
    if not isinstance(a, sympy.Expr) or not isinstance(g, sympy.Expr):
        return bool(math_verify.verify(g, a, timeout_seconds=None, raise_on_error=False))
    if a.has(sympy.oo, -sympy.oo) or g.has(sympy.oo, -sympy.oo):
        return False
    if (a - g).atoms(AppliedUndef):
        return bool(sympy.simplify(a - g) == 0)
    compared = 0
    for x, y in _values(a, g):
        if not _is_zero(x - y):
            return False
        compared += 1
    if compared >= _ENOUGH or (compared and not (a.free_symbols | g.free_symbols)):
        return True
    return bool(a.free_symbols) and bool(sympy.simplify(a - g) == 0)


def _proportional(a: Any, g: Any, *, either_way: bool) -> bool:
    pairs = [(x, y) for x, y in _values(a, g) if not _is_zero(x) and not _is_zero(y)]
    if len(pairs) <= _ENOUGH or not all(_is_zero(x * pairs[0][1] - pairs[0][0] * y) for x, y in pairs):
        return False
    return either_way or bool((pairs[0][0] / pairs[0][1]).evalf(_DIGITS).is_positive)


def _has_like_terms(latex: str, expression: Any) -> bool:
    r"""Whether a sum was left to be done: ``\frac{\pi}{2}+\frac{\pi}{3}``, ``2x+3x``."""
    if "|" in latex or not isinstance(expression, sympy.Expr):
        return False
    terms = [term for term in split(latex, "+", "-") if term.strip()]
    return len(terms) > 1 and len(terms) > len(sympy.Add.make_args(expression.doit()))


def _values(a: sympy.Expr, g: sympy.Expr) -> Iterator[tuple[sympy.Expr, sympy.Expr]]:
    """Both formulas at the same points, where both are defined there and are real numbers, or neither is."""
    variables = sorted(a.free_symbols | g.free_symbols, key=lambda symbol: symbol.name)
    draw = Random(zlib.crc32(str(variables).encode()))  # the same for the same question, and nobody's roots
    for point in range(_POINTS[min(len(variables), 3)]):
        at = {}
        for place, variable in enumerate(variables, 1):
            sign = (-1) ** (point & (place % 8)).bit_count()  # Walsh functions: any two take all signs
            at[variable] = sympy.Rational(sign * draw.randrange(5, 50), draw.randrange(5, 20))
        x, y = a.subs(at), g.subs(at)
        kinds = {_kind(x), _kind(y)}
        if len(kinds) == 1 and None not in kinds:
            yield x, y


def _kind(number: sympy.Expr) -> str | None:
    """Whether a number is real or complex; None if it has no finite value."""
    value = number.evalf(_DIGITS)
    real, imaginary = value.as_real_imag()
    if not (real.is_Float or real.is_Rational) or not (imaginary.is_Float or imaginary.is_Rational):
        return None
    return "real" if _is_zero(imaginary) else "complex"


def _is_zero(number: sympy.Expr) -> bool:
    """Whether a number is zero, or so close that a hundred digits do not tell."""
    parts = number.evalf(_DIGITS).as_real_imag()
    return all(part == 0 or (part.is_Float and part._prec == 1) for part in parts)
