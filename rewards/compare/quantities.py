"""Numbers with units, money, per cent and scale words."""

from fractions import Fraction

from rewards.compare.outcome import Comparer, Outcome
from rewards.latex.answer import Answer, Expression, Quantity, times
from rewards.latex.read import read
from rewards.latex.units import Unit

_MEASURES = frozenset("m g s l $ € £ ° % rad oz cup unit pm am °c °f ₹ ¥".split())
"""Base units that must agree; of counted things (``red apples``) one side may say less than the other."""


def same_quantities(answer: Answer, gold: Answer, by: Comparer) -> Outcome:
    """Compare two answers, at least one of which has a unit.

    A unit that only one side names is what the question asked for, and taken at face value; but a per
    cent is also its hundredth, and so are cents. Two units have to measure the same thing, and are converted.
    """
    outcome = _same_quantities(answer, gold, by)
    return Outcome(True, "equal as quantities", outcome.by) if outcome else outcome


def _same_quantities(answer: Answer, gold: Answer, by: Comparer) -> Outcome:
    a, a_unit = _parts(answer)
    g, g_unit = _parts(gold)
    if (a_unit is None or g_unit is None) and (outcome := _letter_as_unit(answer, gold, by)) is not None:
        return outcome
    if _is_percent(a_unit) != _is_percent(g_unit):
        if a_unit is not None and g_unit is not None:
            return Outcome(False, "different units")
        return by.same(a, g) or by.same(times(a, _share(a_unit)), times(g, _share(g_unit)))
    if a_unit is None or g_unit is None:
        return by.same(a, g) or by.same(times(a, _of_money(a_unit)), times(g, _of_money(g_unit)))
    if not _compatible(a_unit, g_unit):
        return Outcome(False, "different units")
    return by.same(times(a, a_unit.factor / g_unit.factor) if a_unit.powers == g_unit.powers else a, g)


def _parts(answer: Answer) -> tuple[Answer, Unit | None]:
    return (answer.value, answer.unit) if isinstance(answer, Quantity) else (answer, None)


def _is_percent(unit: Unit | None) -> bool:
    return unit is not None and unit.powers == (("%", 1),)


def _compatible(one: Unit, other: Unit) -> bool:
    if one.powers == other.powers:
        return True
    names, others = ({name for name, _ in unit.powers} for unit in (one, other))
    return (names <= others or others <= names) and not (names | others) & _MEASURES


def _of_money(unit: Unit | None) -> Fraction:
    """75 cents are 0.75, where the question is about dollars."""
    return unit.factor if unit is not None and unit.powers == (("$", 1),) else Fraction(1)


def _share(unit: Unit | None) -> Fraction:
    return Fraction(1, 100) if _is_percent(unit) else Fraction(1)


def _letter_as_unit(answer: Answer, gold: Answer, by: Comparer) -> Outcome | None:
    r"""``5m`` is five times m, unless the other side says ``5 \text{ m}``."""
    for quantity, formula in ((answer, gold), (gold, answer)):
        if isinstance(quantity, Quantity) and isinstance(formula, Expression) and len(quantity.unit.text) == 1:
            value = formula.latex[:-1]
            if formula.latex[-1:].lower() == quantity.unit.text and value[-1:] in (*"0123456789)} ",) and value.strip():
                bare = read(value)
                return by.same(quantity.value, bare) if quantity is answer else by.same(bare, quantity.value)
    return None
