"""Equations, inequalities and chains of them."""

import re
from fractions import Fraction

from rewards.compare.assignments import assignment
from rewards.compare.outcome import UNLIKE, Comparer, Outcome
from rewards.latex.answer import Answer, Choice, Collection, Expression, Quantity, Relation, Words
from rewards.latex.limits import LimitError, is_formula
from rewards.latex.names import is_name, is_phrase, is_variable
from rewards.latex.numbers import Number
from rewards.latex.read import read
from rewards.latex.work import check_work

_FLIPPED = {"<": ">", ">": "<", r"\leq": r"\geq", r"\geq": r"\leq", "=": "=", r"\neq": r"\neq"}
_RISING, _FALLING = {"<", r"\leq"}, {">", r"\geq"}
_EQUALITIES = {"=", r"\approx", r"\in"}
_CONSTANT = re.compile(r"\\(?:sqrt|frac|pi|cdot|binom|sin|cos|tan|log|ln)(?![a-zA-Z])|(?<![a-zA-Z])[ei](?![a-zA-Z])")


def same_relations(answer: Answer, gold: Answer, by: Comparer) -> Outcome:
    """Compare two answers, at least one of which is a relation.

    A name on one side only, as in ``x = 5`` for ``5``, is left out; two names must be the same one.
    """
    named = assignment(gold)
    related = _same_relation(answer, gold, by) if isinstance(answer, Relation) and isinstance(gold, Relation) else None
    if related:
        return related
    if isinstance(answer, Relation):
        own = assignment(answer)
        if named is None and own is not None and (isinstance(gold, Words | Choice) or _is_reversed(own[0])):
            return UNLIKE  # odd = even
        return _chain(answer, named[1] if named is not None else gold, by)
    assert isinstance(gold, Relation)
    if named is not None:
        return by.same(answer, named[1])
    if set(gold.operators) <= _EQUALITIES and all(map(_is_number, gold.parts)):  # 0.56 = 56\%
        return next((found for part in gold.parts if (found := by.same(answer, part))), Outcome(False, "not equal"))
    return UNLIKE


def _is_reversed(name: str) -> bool:
    """Whether it is ``(y,x)``: without a name a pair is (x, y)."""
    letters = name.strip("()").split(",")
    return name.startswith("(") and all(map(str.isalpha, letters)) and letters != sorted(letters)


def as_interval(answer: Answer) -> Answer:
    r"""``-2 \leq x < 7`` as ``[-2, 7)``, and ``x > 5`` as ``(5, \infty)``; anything else as it is."""
    if not isinstance(answer, Relation):
        return answer
    operators, parts, texts = answer.operators, answer.parts, answer.texts
    if set(operators) <= _FALLING:
        operators, parts, texts = (
            tuple(_FLIPPED[operator] for operator in reversed(operators)),
            parts[::-1],
            texts[::-1],
        )
    if not set(operators) <= _RISING:
        return answer
    names = [is_variable(text) for text in texts]
    if names == [False, True, False]:
        low, high = parts[0], parts[2]
    elif names == [True, False]:
        low, high, operators = read(r"-\infty"), parts[1], ("<", *operators)
    elif names == [False, True]:
        low, high, operators = parts[0], read(r"\infty"), (*operators, "<")
    else:
        return answer
    return Collection(
        "brackets", (low, high), ("[" if operators[0] != "<" else "(") + ("]" if operators[1] != "<" else ")")
    )


def _is_number(answer: Answer) -> bool:
    return isinstance(answer, Quantity) or (isinstance(answer, Expression) and answer.number is not None)


def _has_letters(answer: Answer) -> bool:
    return isinstance(answer, Expression) and any(map(str.isalpha, _CONSTANT.sub("", answer.latex)))


def names_differ(answer: Relation, gold: Relation) -> bool:
    """Whether two assignments or inequalities speak of different things."""
    ours, theirs = ({text.replace(" ", "") for text in side.texts if is_name(text)} for side in (answer, gold))
    return len(ours) == len(theirs) == 1 and not _may_be_same_name(*ours, *theirs)


def _may_be_same_name(one: str, other: str) -> bool:
    """``y = 2x`` may stand for ``f(x) = 2x``, and words for a variable; otherwise a name is not another."""
    of_y = (one == "y") != (other == "y") and "(" in one + other
    return one == other or of_y or is_phrase(one) or is_phrase(other)


def _chain(answer: Relation, gold: Answer, by: Comparer) -> Outcome:
    r"""Every value of ``x = \frac{1}{2} = 0.5`` has to be the gold, so that ``41 = 42`` is paid for neither.

    Left out is a name in front, or behind. Before the last value may stand the work that leads to it, and after
    ``\approx`` what a value rounds to.
    """
    if not set(answer.operators) <= _EQUALITIES:
        return UNLIKE
    values, texts, operators = list(answer.parts), answer.texts, list(answer.operators)
    if is_name(texts[0]):
        del values[0], operators[0]
    elif is_name(texts[-1]) and operators[-1] == "=":
        del values[-1], operators[-1]
    different = Outcome(False, "a chain of different values")
    exact = values[: operators.index(r"\approx") + 1] if r"\approx" in operators else values
    if not exact:
        return UNLIKE
    if not all(_rounds_to(exact[-1], value, by) for value in values[len(exact) :]):
        return different
    *before, last = exact
    if not all(_leads_to(value, gold, by) if _is_work(value) else by.same(value, gold) for value in before):
        return different
    return by.same(last, gold)


def _is_work(answer: Answer) -> bool:
    r"""Whether a value is on the way to the one after it: arithmetic like ``\sqrt{16}`` or ``2 + 2``."""
    return isinstance(answer, Expression) and answer.number is None and not _has_letters(answer)


def _leads_to(work: Answer, gold: Answer, by: Comparer) -> bool:
    if isinstance(gold, Quantity):
        gold = gold.value
    if not isinstance(work, Expression) or not isinstance(gold, Expression):
        return False
    if not is_formula(work.latex):
        return False
    value = gold.latex if gold.number is None else str(gold.number.value)
    return bool(by.algebra.same(work.latex, value, restated=True))


def _rounds_to(exact: Answer, rounded: Answer, by: Comparer) -> bool:
    if isinstance(exact, Quantity) and isinstance(rounded, Quantity):
        exact, rounded = exact.value, rounded.value
    if not isinstance(exact, Expression) or not isinstance(rounded, Expression) or rounded.number is None:
        return False
    number = rounded.number
    if exact.number is not None:
        return abs(exact.number.value - number.value) <= _precision(number)
    return is_formula(exact.latex) and bool(by.algebra.near(exact.latex, number.value, _precision(number)))


def _precision(number: Number) -> Fraction:
    """How far a rounded value may be from the exact one: one in its last place, but no more than a tenth of it."""
    return min(number.step, abs(number.value) / 10)


def _same_relation(answer: Relation, gold: Relation, by: Comparer) -> Outcome:
    """Side by side, in either direction; one equation or inequality also as a multiple of the other."""
    flipped = tuple(_FLIPPED.get(operator, "") for operator in reversed(answer.operators))
    for operators, parts in ((answer.operators, answer.parts), (flipped, answer.parts[::-1])):
        if operators == gold.operators and all(by.same(a, g) for a, g in zip(parts, gold.parts, strict=True)):
            return Outcome(True, "equal side by side")
    named = assignment(gold)
    if (
        len(gold.operators) != 1
        or gold.operators[0] not in _FLIPPED
        or (named is not None and not _has_letters(named[1]))
    ):
        return Outcome(False, "another relation")  # 2x = 6 does not solve it: x = 3 does
    try:
        check_work(f"{answer.texts[0]}-({answer.texts[1]})", f"{gold.texts[0]}-({gold.texts[1]})")
    except LimitError as limit:
        return Outcome(False, str(limit), "limits")
    either_way = gold.operators[0] in ("=", r"\neq")
    for operators, texts in ((answer.operators, answer.texts), (flipped, answer.texts[::-1])):
        if operators == gold.operators:
            return by.algebra.same_relation((texts[0], texts[1]), (gold.texts[0], gold.texts[1]), either_way=either_way)
    return Outcome(False, "another relation")
