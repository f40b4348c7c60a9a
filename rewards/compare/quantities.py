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
    if a_unit is None or g_unit is None:
        if (reread := _letter_as_unit(answer, gold, by)) is not None:
            return reread
        outcome, of_a, of_g = by.same(a, g), _left_out(a_unit), _left_out(g_unit)
        return outcome if outcome or of_a == of_g == 1 else by.same(times(a, of_a), times(g, of_g))
    if not _compatible(a_unit, g_unit):
        return Outcome(False, "different units")
    return by.same(times(a, a_unit.factor / g_unit.factor) if a_unit.powers == g_unit.powers else a, g)


def _parts(answer: Answer) -> tuple[Answer, Unit | None]:
    return (answer.value, answer.unit) if isinstance(answer, Quantity) else (answer, None)


def _compatible(one: Unit, other: Unit) -> bool:
    if one.powers == other.powers:
        return True
    names, others = ({name for name, _ in unit.powers} for unit in (one, other))
    return (names <= others or others <= names) and not (names | others) & _MEASURES


def _left_out(unit: Unit | None) -> Fraction:
    """What a number is multiplied by where its unit is left out: 28 % is also 0.28, and 75 cents are 0.75 dollars."""
    match unit:
        case Unit((("%", 1),)):
            return Fraction(1, 100)
        case Unit((("$", 1),), factor):
            return factor
    return Fraction(1)


def _letter_as_unit(answer: Answer, gold: Answer, by: Comparer) -> Outcome | None:
    r"""``5m`` is five times m, unless the other side says ``5 \text{ m}``."""
    for quantity, formula in ((answer, gold), (gold, answer)):
        if isinstance(quantity, Quantity) and isinstance(formula, Expression) and len(quantity.unit.text) == 1:
            value = formula.latex[:-1]
            if formula.latex[-1:].lower() == quantity.unit.text and value[-1:] in (*"0123456789)} ",) and value.strip():
                bare = read(value)
                return by.same(quantity.value, bare) if quantity is answer else by.same(bare, quantity.value)
    return None
