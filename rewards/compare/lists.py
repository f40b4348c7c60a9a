"""Lists, sets, tuples, intervals, unions, ratios and matrices."""

import re
from collections.abc import Sequence

from rewards.compare.assignments import assignment
from rewards.compare.outcome import UNLIKE, Comparer, Outcome
from rewards.latex.answer import Answer, Collection, Expression, Matrix, is_list
from rewards.latex.read import read


def same_lists(answer: Answer, gold: Answer, by: Comparer) -> Outcome:
    """Compare two answers, at least one of which has several parts."""
    answer, gold = _of_one(_vector(answer)), _of_one(_vector(gold))
    if not isinstance(answer, Collection) and not isinstance(gold, Collection):
        return by.same(answer, gold)
    if not isinstance(gold, Collection):
        return _with_one(answer, gold, by)
    if not isinstance(answer, Collection):
        if gold.kind == "ratio" and len(gold.parts) == 2 and isinstance(answer, Expression) and not _is_integer(answer):
            return _same_ratios(Collection("ratio", (answer, read("1"))), gold, by)
        return Outcome(False, "fewer answers than the gold") if gold.kind in ("list", "set") else UNLIKE
    kinds = {answer.kind, gold.kind}
    if kinds == {"ratio"}:
        return _same_ratios(answer, gold, by)
    if kinds in ({"union"}, {"union", "list"}):  # x < 1 or x > 2
        return _in_any_order(answer.parts, gold.parts, by)
    if kinds <= {"list", "set"}:
        return _unordered(answer, gold, by)
    if kinds == {"brackets"} and answer.brackets == gold.brackets:
        return _in_order(answer.parts, gold.parts, by)
    if kinds == {"brackets", "list"} and "()" in (answer.brackets, gold.brackets):
        if _names_are_out_of_order(answer.parts) or _names_are_out_of_order(gold.parts):
            return Outcome(False, "names in another order")
        return _in_order(_values(answer.parts), _values(gold.parts), by)
    return Outcome(False, "other brackets") if kinds <= {"brackets", "list", "set"} else UNLIKE


def same_matrices(answer: Matrix, gold: Matrix, by: Comparer) -> Outcome:
    """Compare cell by cell."""
    if [len(row) for row in answer.rows] != [len(row) for row in gold.rows]:
        return Outcome(False, "another shape")
    return _in_order([cell for row in answer.rows for cell in row], [cell for row in gold.rows for cell in row], by)


def _vector(answer: Answer) -> Answer:
    """A matrix of one column or row as a tuple; any other answer as it is."""
    if not isinstance(answer, Matrix) or 1 not in (len(answer.rows), max(map(len, answer.rows))):
        return answer
    return Collection("brackets", tuple(cell for row in answer.rows for cell in row), "()")


def _of_one(answer: Answer) -> Answer:
    """The one element of a set of one; any other answer as it is."""
    if isinstance(answer, Collection) and answer.kind == "set" and len(answer.parts) == 1:
        return answer.parts[0]
    return answer


def _names_are_out_of_order(parts: Sequence[Answer]) -> bool:
    """Whether parts are assigned to ``y`` and ``x``: as a pair they are (x, y)."""
    names = [pair[0] for part in parts if (pair := assignment(part)) is not None]
    return all(name[0].isalpha() for name in names) and (names != sorted(names) or len(set(names)) < len(names))


def _with_one(answer: Answer, gold: Answer, by: Comparer) -> Outcome:
    """Several parts against a gold of one."""
    assert isinstance(answer, Collection)
    if answer.kind == "ratio" and len(answer.parts) == 2 and not _is_integer(gold):
        return _same_ratios(answer, Collection("ratio", (gold, read("1"))), by)
    if answer.kind not in ("list", "set"):
        return UNLIKE
    names = {pair[0] for part in answer.parts if (pair := assignment(part)) is not None}
    if len(names) < 2 and all(by.same(part, gold) for part in answer.parts):
        return Outcome(True, "equal, said more than once")
    return Outcome(False, "several answers")


def _is_integer(answer: Answer) -> bool:
    return isinstance(answer, Expression) and answer.number is not None and answer.number.form == "integer"


def _unordered(answer: Collection, gold: Collection, by: Comparer) -> Outcome:
    """A list without brackets has no order, nor has a set; a list of ``x = 1, y = 2`` is compared by its names."""
    a, g = _records(answer.parts), _records(gold.parts)
    if a is not None and g is not None:
        if set(a[0]) != set(g[0]):
            return Outcome(False, "different variables")
        names = sorted(g[0])
        return _in_any_order(_tuples(a, names), _tuples(g, names), by)
    if a is None and g is None:
        return _in_any_order(_values(answer.parts), _values(gold.parts), by)
    if any(assignment(part) is not None for part in (gold if a is not None else answer).parts):
        return Outcome(False, "different variables")
    # Only one side names its variables: their order is what counts.
    rows = a or g
    assert rows is not None
    if len(rows) == 1:
        values = tuple(rows[0].values())
        return _in_order(values, gold.parts, by) if a is not None else _in_order(answer.parts, values, by)
    tuples = _tuples(rows, list(rows[0]))
    return _in_any_order(tuples, gold.parts, by) if a is not None else _in_any_order(answer.parts, tuples, by)


def _records(parts: Sequence[Answer]) -> list[dict[str, Answer]] | None:
    """``x=1, y=2; x=3, y=4`` as its rows, if the parts are assignments to more than one variable."""
    flat = [inner for part in parts for inner in (part.parts if is_list(part) else (part,))]
    pairs = [pair for part in flat if (pair := assignment(part)) is not None]
    names = [name for name, _ in pairs]
    width = len(set(names))
    # x_1 = 2, x_2 = 3 are solutions of one x
    subscripted = all("_" in name for name in names) and {name[0] for name in names} <= set("xyz")
    if len(pairs) != len(flat) or width < 2 or subscripted or names != names[:width] * (len(names) // width):
        return None
    return [dict(pairs[at : at + width]) for at in range(0, len(pairs), width)]


def _tuples(rows: list[dict[str, Answer]], names: list[str]) -> list[Answer]:
    return [Collection("brackets", tuple(row[name] for name in names), "()") for row in rows]


def _values(parts: Sequence[Answer]) -> list[Answer]:
    """The parts without the names that they are assigned to; lists in the list flattened."""
    values = [pair[1] if (pair := assignment(part)) is not None else part for part in parts]
    return [inner for value in values for inner in (value.parts if is_list(value) else (value,))]


def _in_order(answer: Sequence[Answer], gold: Sequence[Answer], by: Comparer) -> Outcome:
    if len(answer) != len(gold):
        return _miscounted(answer, gold)
    for a, g in zip(answer, gold, strict=True):
        if not (outcome := by.same(a, g)):
            return outcome
    return Outcome(True, "equal part by part")


def _in_any_order(answer: Sequence[Answer], gold: Sequence[Answer], by: Comparer) -> Outcome:
    if len(answer) != len(gold):
        return _miscounted(answer, gold)
    left = list(answer)
    for g in sorted(gold, key=lambda part: part not in left):  # what is there to the letter needs no algebra
        found = g if g in left else next((a for a in left if by.same(a, g)), None)
        if found is None:
            return Outcome(False, "different parts")
        left.remove(found)
    return Outcome(True, "equal in any order")


def _miscounted(answer: Sequence[Answer], gold: Sequence[Answer]) -> Outcome:
    return Outcome(False, f"{'fewer' if len(answer) < len(gold) else 'more'} answers than the gold")


def _same_ratios(answer: Collection, gold: Collection, by: Comparer) -> Outcome:
    """``6:4`` is ``3:2``; but ``1:00`` is a time, and not ``2:00``."""
    if _in_order(answer.parts, gold.parts, by):
        return Outcome(True, "equal part by part")
    time = _time(gold)
    if time is not None:
        return Outcome(_time(answer) == time, "same time" if _time(answer) == time else "different times")
    a, g = (
        [part.number.value for part in ratio.parts if isinstance(part, Expression) and part.number]
        for ratio in (answer, gold)
    )
    if len(answer.parts) != len(gold.parts):
        return _miscounted(answer.parts, gold.parts)
    if not len(a) == len(g) == len(gold.parts) or 0 in (*a, *g):
        return Outcome(False, "different parts")
    equal = len({x / y for x, y in zip(a, g, strict=True)}) == 1
    return Outcome(equal, "equal as ratios" if equal else "different ratios")


def _time(ratio: Collection) -> tuple[str, ...] | None:
    """Hours, minutes and seconds of ``20:34``."""
    texts = [part.latex for part in ratio.parts if isinstance(part, Expression)]
    if not 2 <= len(texts) == len(ratio.parts) <= 3 or not all(re.fullmatch(r"[0-5]\d", text) for text in texts[1:]):
        return None
    return (texts[0].zfill(2), *texts[1:], "00")[:3]
