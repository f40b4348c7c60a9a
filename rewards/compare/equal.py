"""Whether two answers mean the same, part by part: structure here, plain numbers exactly, formulas by algebra."""

from rewards.compare.lists import same_lists, same_matrices
from rewards.compare.outcome import UNLIKE, Algebra, NeedsAlgebraError, Outcome
from rewards.compare.quantities import same_quantities
from rewards.compare.relations import as_interval, names_differ, same_relations
from rewards.latex.answer import Answer, Choice, Collection, Expression, Matrix, Quantity, Relation, Words
from rewards.latex.limits import LimitError
from rewards.latex.numbers import Number
from rewards.latex.work import check_work

ROUNDED_DIGITS = 6
"""Significant digits from which a decimal gold stands for any exact value that rounds to it."""
REPEATING_DIGITS = 12
"""Significant digits from which a decimal answer stands for the repeating decimal that it begins."""


def same(answer: Answer, gold: Answer, algebra: Algebra | None) -> Outcome:
    """Whether an answer means the same as the gold. What cannot be compared is not equal.

    Raises:
        NeedsAlgebraError: that takes ``algebra``, and there is none.
    """
    return _Comparer(algebra).same(answer, gold)


class _Comparer:
    def __init__(self, algebra: Algebra | None) -> None:
        self._algebra = algebra

    @property
    def algebra(self) -> Algebra:
        if self._algebra is None:
            raise NeedsAlgebraError
        return self._algebra

    def same(self, answer: Answer, gold: Answer) -> Outcome:
        if answer == gold:
            return Outcome(True, "same text")
        if isinstance(answer, Choice) and isinstance(gold, Choice):
            return _same_choices(answer, gold, self)
        if isinstance(gold, Choice) and gold.text is not None:  # 12 for (B) 12, or the other way round
            return self.same(answer, gold.text)
        if isinstance(answer, Choice) and answer.text is not None:
            return self.same(answer.text, gold)
        if isinstance(answer, Relation) and isinstance(gold, Relation) and names_differ(answer, gold):
            return Outcome(False, "another variable")
        answer, gold = as_interval(answer), as_interval(gold)
        if isinstance(answer, Relation) or isinstance(gold, Relation):
            return same_relations(answer, gold, self)
        if isinstance(answer, Quantity) or isinstance(gold, Quantity):
            return same_quantities(answer, gold, self)
        if isinstance(answer, Collection) or isinstance(gold, Collection):
            return same_lists(answer, gold, self)
        if isinstance(answer, Matrix) and isinstance(gold, Matrix):
            return same_matrices(answer, gold, self)
        if isinstance(answer, Expression) and isinstance(gold, Expression):
            return _same_expressions(answer, gold, self)
        return _same_words(answer, gold)


def _same_expressions(answer: Expression, gold: Expression, by: _Comparer) -> Outcome:
    a, g = answer.number, gold.number
    if a is not None and g is not None:
        return _same_numbers(a, g)
    if a is not None and a.form == "decimal":
        return Outcome(False, "a decimal for an exact gold")
    try:
        check_work(answer.latex, gold.latex)
    except LimitError as limit:
        return Outcome(False, str(limit), "limits")
    if g is None:
        return by.algebra.same(answer.latex if a is None else str(a.value), gold.latex)
    if g.form == "decimal" and g.digits >= ROUNDED_DIGITS:
        return by.algebra.near(answer.latex, g.value, g.step / 2)
    return Outcome(False, "a formula for a plain number", "limits")


def _same_numbers(answer: Number, gold: Number) -> Outcome:
    """Exact, and in the same base. A long decimal stands for the fraction that it was rounded from."""
    if answer.base != gold.base:
        return Outcome(False, "another base")
    distance = abs(answer.value - gold.value)
    if distance == 0:
        return Outcome(True, "equal as numbers")
    if gold.form == "decimal" and answer.form == "fraction" and gold.digits >= ROUNDED_DIGITS:
        equal = distance <= gold.step / 2
        return Outcome(equal, "equal when rounded as the gold" if equal else "different numbers")
    if gold.form == "fraction" and answer.form == "decimal" and answer.digits >= REPEATING_DIGITS:
        equal = distance < answer.step
        return Outcome(equal, "equal as a repeating decimal" if equal else "different numbers")
    return Outcome(False, "different numbers")


def _same_choices(answer: Choice, gold: Choice, by: _Comparer) -> Outcome:
    if answer.letter != gold.letter:
        return Outcome(False, "another choice")
    if answer.text is not None and gold.text is not None and not by.same(answer.text, gold.text):
        return Outcome(False, "the letter and the text of different choices")
    return Outcome(True, "same choice")


def _same_words(answer: Answer, gold: Answer) -> Outcome:
    said, wanted = _spelled(answer), _spelled(gold)
    if said is None or wanted is None or (isinstance(answer, Choice) and isinstance(gold, Expression)):
        return UNLIKE  # "c" may choose C, but C is no variable c
    return Outcome(said == wanted, "same words" if said == wanted else "different words")


def _spelled(answer: Answer) -> str | None:
    match answer:
        case Words(text):
            return text
        case Choice(letter, None):
            return letter.lower()
        case Expression(latex, None) if latex.isalpha():
            return latex.lower()
    return None
