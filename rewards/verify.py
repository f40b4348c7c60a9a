r"""The verifier: one completion against one gold, by the cheapest comparison that decides.

Limits on length keep everything here fast, except `rewards.compare.algebra`: that runs in a process that can be killed
(`rewards.processes`), so `verify` returns in any thread, whatever the completion says.
"""

import time
from dataclasses import replace
from functools import lru_cache

from rewards.compare import NeedsAlgebraError, same
from rewards.compare.outcome import Algebra
from rewards.extract import Mode, extract
from rewards.latex.answer import Answer, Choice, formulas
from rewards.latex.brackets import UnreadableError
from rewards.latex.limits import LimitError, check_formula, check_length, check_size
from rewards.latex.read import read
from rewards.latex.text import normalise
from rewards.processes import sandbox
from rewards.verdict import NO_ANSWER, Mark, Verdict


def verify(completion_text: str, gold: str) -> Verdict:
    r"""Mark one completion by the answer in its last ``\boxed{}``, and nothing else: what is paid will be learned.

    A gold may be a worked solution that ends in a box or ``#### gold``. One that cannot be used gives an error, never
    right or wrong; so do time-outs and too little memory. Works in any thread and process. The first answer that needs
    algebra starts a process, which takes about a second.

    Example: ``verify(r"12+21 is \boxed{33}.", "33").mark is Mark.RIGHT``
    """
    return _verify(completion_text, gold, "strict")


def verify_leniently(completion_text: str, gold: str) -> Verdict:
    """Mark one completion wherever its answer stands (`rewards.extract`): for other models, not to train."""
    return _verify(completion_text, gold, "lenient")


def check_gold(gold: str) -> str | None:
    """Why a gold cannot be used, e.g. "gold does not parse"; None if it verifies against itself. For loading data."""
    verdict = judge_gold("", gold)
    return None if verdict.mark is Mark.RIGHT else verdict.reason


def judge_gold(_: str, gold: str) -> Verdict:
    """The verdict on a gold: right, or an error that says why it cannot be used. A check for `VerifierPool`."""
    try:
        needs_algebra = any(True for _ in formulas(_read_gold(gold)))
    except LimitError as fault:
        return _gold_error(gold, fault)
    return _where_it_can_be_killed("", gold) if needs_algebra else _usable(gold)


def in_killable_process(answer: str, gold: str) -> Verdict:
    """What takes algebra, and so any time and memory: the check that `rewards.processes.sandbox` runs.

    Args:
        answer: extracted; empty to judge the gold itself (an empty box needs no algebra).
    """
    from rewards.compare import algebra

    try:
        if answer:
            return _compare(answer, gold, algebra.SympyAlgebra())
        for latex in formulas(_read_gold(gold)):
            algebra.parse_gold(latex)
    except algebra.UnusableGoldError:
        return _gold_error(gold, LimitError("does not parse"), answer or None)
    return _usable(gold)


def _where_it_can_be_killed(answer: str, gold: str) -> Verdict:
    if sandbox.inside():
        return in_killable_process(answer, gold)
    return sandbox.call("rewards.verify:in_killable_process", answer, gold)


def _verify(completion_text: str, gold: str, mode: Mode) -> Verdict:
    start = time.perf_counter()
    fault, choice = None, False
    try:
        choice = isinstance(_read_gold(gold), Choice)
    except LimitError as error:
        fault = error
    found = extract(completion_text, mode, choice=choice)
    if fault is not None:
        verdict = _gold_error(gold, fault, found.answer)
    elif found.answer is None:
        verdict = Verdict(mark=Mark.WRONG, reason=NO_ANSWER, answer=None, gold=gold)
    else:
        try:
            verdict = _compare(found.answer, gold, None)
        except NeedsAlgebraError:
            verdict = _where_it_can_be_killed(found.answer, gold)
    return replace(verdict, answer=found.answer, rule=found.rule, seconds=time.perf_counter() - start)


def _compare(answer: str, gold: str, algebra: Algebra | None) -> Verdict:
    """The comparisons, in order. Raises NeedsAlgebraError if the last one is needed and None."""

    def verdict(equal: bool, reason: str, compared: str) -> Verdict:
        mark = Mark.RIGHT if equal else Mark.WRONG
        return Verdict(mark=mark, reason=reason, answer=answer, gold=gold, compared=compared)

    try:
        wanted = _read_gold(gold)
    except LimitError as fault:
        return _gold_error(gold, fault, answer)
    try:
        check_length(answer)
        if not (said := normalise(answer)):
            return verdict(False, "empty box", "text")
        if said == _gold_latex(gold):
            return verdict(True, "same text", "text")
        check_size(said)
        outcome = same(read(said), wanted, algebra)
    except LimitError as limit:
        return verdict(False, str(limit), "limits")
    except UnreadableError:
        return verdict(False, "answer does not parse", "structure")
    return verdict(outcome.equal, outcome.how, outcome.by)


@lru_cache(maxsize=4096)
def _gold_latex(gold: str) -> str:
    """A gold, or of a worked solution what is in its box or after ``####``. Raises LimitError."""
    boxed = extract(gold).answer if r"\boxed" in gold else None
    check_length(text := gold.rpartition("####")[2] if boxed is None else boxed)
    if not (latex := normalise(text)):
        raise LimitError("is empty")
    return latex


@lru_cache(maxsize=4096)
def _read_gold(gold: str) -> Answer:
    """Read a gold, once. Raises LimitError, whose message follows "gold "."""
    try:
        latex = _gold_latex(gold)
        check_size(latex)
        answer = read(latex)
        for formula in formulas(answer):
            check_formula(formula)
    except UnreadableError:
        raise LimitError("does not parse") from None
    return answer


def _usable(gold: str) -> Verdict:
    return Verdict(mark=Mark.RIGHT, reason="can be used", answer=None, gold=gold)


def _gold_error(gold: str, fault: LimitError, answer: str | None = None) -> Verdict:
    return Verdict(mark=Mark.ERROR, reason=f"gold {fault}"[:60], answer=answer, gold=gold)
