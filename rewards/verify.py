r"""The verifier: one completion against one gold, cheapest comparison first.

A comparison is a function of two normalised texts that decides, or leaves it to the next. To widen the verifier, write
another and put it in `COMPARISONS` where it belongs.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rewards import limits
from rewards.exact import number
from rewards.extract import extract
from rewards.text import normalise
from rewards.verdict import Mark, Verdict


@dataclass(frozen=True, slots=True)
class Finding:
    """What one comparison found; without a mark it leaves the decision to the next."""

    mark: Mark | None
    reason: str


Comparison = Callable[[str, str], Finding]
"""From the normalised answer and the normalised gold to a finding."""


def verify(completion_text: str, gold: str) -> Verdict:
    r"""Mark one completion.

    The answer is what `rewards.extract` finds. A gold that cannot be verified gives an error, never right or wrong; an
    answer that trips a limit is wrong. Symbolic answers need the main thread of a process, where alarms work, and may
    take seconds: an asyncio program uses `rewards.VerifierPool`. In another thread they give an error.

    Example: ``verify(r"12+21 is \boxed{33}.", "33").mark is Mark.RIGHT``
    """
    answer = extract(completion_text).answer
    if (fault := check_gold(gold)) is not None:
        return Verdict(mark=Mark.ERROR, reason=fault, answer=answer, gold=gold)
    if answer is None:
        return Verdict(mark=Mark.WRONG, reason="no boxed answer", answer=None, gold=gold)
    *_, last = compare(answer, gold)
    assert last.mark is not None, "the last comparison decides"
    return Verdict(mark=last.mark, reason=last.reason, answer=answer, gold=gold)


def check_gold(gold: str) -> str | None:
    """Why a gold cannot be used, e.g. "gold does not parse"; None if it verifies against itself. For loading data."""
    gold = normalise(gold)
    if not gold:
        return "gold is empty"
    if number(gold) is not None:
        return None
    if limits.too_large(gold):
        return "gold too large to verify"
    if limits.restates(gold):
        return "gold has an unevaluated operator"
    if not _alarms_work():
        return "not in a main thread"

    from rewards import symbolic

    try:
        symbolic.parse_gold(gold)
    except symbolic.UnparsableError:
        return "gold does not parse"
    except symbolic.SlowError:
        return "gold timed out"
    return None


def compare(answer: str, gold: str) -> Iterator[Finding]:
    """Yield what each comparison finds, until one decides."""
    answer, gold = normalise(answer), normalise(gold)
    for comparison in COMPARISONS:
        finding = comparison(answer, gold)
        yield finding
        if finding.mark is not None:
            return


def same_text(answer: str, gold: str) -> Finding:
    if not answer:
        return Finding(Mark.WRONG, "empty box")
    if answer.replace(", ", ",") == gold.replace(", ", ","):
        return Finding(Mark.RIGHT, "same text")
    return Finding(None, "not the same text")


def as_numbers(answer: str, gold: str) -> Finding:
    """Exact. Where 28% may stand for 28, and 0.333333 for 1/3, math-verify's conventions decide."""
    a, g = number(answer), number(gold)
    if a is None or g is None:
        return Finding(None, "not two plain numbers")
    if a.value == g.value:
        return Finding(Mark.RIGHT, "equal as numbers")
    if a.percent != g.percent:
        return Finding(None, "a percentage and a number")
    if {a.form, g.form} == {"fraction", "decimal"}:
        return Finding(None, "a fraction and a decimal")
    return Finding(Mark.WRONG, "different numbers")


def within_limits(answer: str, gold: str) -> Finding:
    """The policy wrote the answer, so a limit it trips is its mistake."""
    if limits.too_large(answer):
        return Finding(Mark.WRONG, "too large to verify")
    if limits.restates(answer):
        return Finding(Mark.WRONG, "unevaluated operator")
    if number(gold) is not None and limits.unevaluated(answer):
        return Finding(Mark.WRONG, "unevaluated arithmetic")
    return Finding(None, "within limits")


def by_math_verify(answer: str, gold: str) -> Finding:
    if not _alarms_work():
        return Finding(Mark.ERROR, "not in a main thread")

    from rewards import symbolic

    try:
        if symbolic.equal(answer, gold):
            return Finding(Mark.RIGHT, "equal by math-verify")
    except symbolic.UnparsableError:
        return Finding(Mark.WRONG, "answer does not parse")
    except symbolic.SlowError:
        return Finding(Mark.ERROR, "timed out")
    return Finding(Mark.WRONG, "not equal by math-verify")


COMPARISONS: tuple[Comparison, ...] = (same_text, as_numbers, within_limits, by_math_verify)


def _alarms_work() -> bool:
    """Elsewhere math-verify has no timeout, and a hostile answer holds the interpreter's lock for hours."""
    return threading.current_thread() is threading.main_thread()
