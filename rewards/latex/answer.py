"""The kinds of answers there are."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, TypeGuard

from rewards.latex.names import is_name
from rewards.latex.numbers import Number
from rewards.latex.units import Unit


@dataclass(frozen=True, slots=True)
class Expression:
    """A number or a formula, for arithmetic or algebra."""

    latex: str
    number: Number | None


@dataclass(frozen=True, slots=True)
class Quantity:
    value: "Answer"
    unit: Unit


@dataclass(frozen=True, slots=True)
class Words:
    """Lower case, single spaces, no punctuation."""

    text: str


@dataclass(frozen=True, slots=True)
class Choice:
    """An option of a multiple-choice question: its letter, and its text where that is given."""

    letter: str
    text: "Answer | None"


@dataclass(frozen=True, slots=True)
class Collection:
    """Several answers: a list without brackets, or what is between brackets."""

    kind: Literal["list", "set", "union", "brackets", "ratio"]
    parts: tuple["Answer", ...]
    brackets: str = ""
    """The opening and the closing one, ``[)`` for a half-open interval; empty without."""


@dataclass(frozen=True, slots=True)
class Matrix:
    rows: tuple[tuple["Answer", ...], ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """``parts[0] operators[0] parts[1] operators[1] …``"""

    parts: tuple["Answer", ...]
    operators: tuple[str, ...]
    texts: tuple[str, ...]
    """The parts as they were written: a side may be a name, ``f(x)`` or ``|AB|``, and no formula."""


Answer = Expression | Quantity | Words | Choice | Collection | Matrix | Relation


def formulas(answer: Answer) -> Iterator[str]:
    """The formulas in an answer that are not plain numbers; names of values left out."""
    match answer:
        case Expression(latex, None):
            yield latex
        case Quantity(value, _):
            yield from formulas(value)
        case Collection(_, parts, _):
            for part in parts:
                yield from formulas(part)
        case Matrix(rows):
            for row in rows:
                for cell in row:
                    yield from formulas(cell)
        case Choice(_, option) if option is not None:
            yield from formulas(option)
        case Relation(parts, _, texts):
            for part, text in zip(parts, texts, strict=True):
                if not is_name(text):
                    yield from formulas(part)


def is_list(answer: Answer) -> TypeGuard[Collection]:
    """Whether it is several answers without brackets around them."""
    return isinstance(answer, Collection) and answer.kind == "list"


def times(value: Answer, factor: Fraction) -> Answer:
    """A number or formula multiplied, or all parts of a collection or matrix; words as they are."""
    match value:
        case Collection(kind, parts, brackets) if factor != 1:
            return Collection(kind, tuple(times(part, factor) for part in parts), brackets)
        case Matrix(rows) if factor != 1:
            return Matrix(tuple(tuple(times(cell, factor) for cell in row) for row in rows))
    if factor == 1 or not isinstance(value, Expression):
        return value
    if value.number is not None:
        number = replace(value.number, value=value.number.value * factor, step=value.number.step * factor)
        return Expression(str(number.value), number)
    return Expression(rf"\frac{{{factor.numerator}}}{{{factor.denominator}}}({value.latex})", None)
