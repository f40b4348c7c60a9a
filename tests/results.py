"""Evaluations made by hand, for the tests of what reads them."""

from rewards.verdict import Mark
from rl.evaluate.result import EvalResult, QuestionResult


def eval_result(questions: list[QuestionResult], *, step: int, n: int, set: str = "heldout") -> EvalResult:
    """An evaluation of n samples a problem; step 0 is the base model."""
    return EvalResult(
        set=set,
        step=step,
        adapter_sha256=None if step == 0 else f"{step:064x}",
        model="tiny",
        problems="arithmetic",
        problems_sha256="ab" * 32,
        samples_per_problem=n,
        temperature=1.0,
        max_tokens=64,
        questions=questions,
        seconds=1.5,
    )


def question_result(
    problem_id: str, answers: list[str | None], marks: list[Mark], *, problem: str = "3+4", gold: str = "7"
) -> QuestionResult:
    """A question by its answers and their marks; the completions and reasons follow from them."""
    return QuestionResult(
        problem_id=problem_id,
        problem=problem,
        gold=gold,
        completions=["?" if answer is None else rf"\boxed{{{answer}}}" for answer in answers],
        answers=answers,
        marks=marks,
        reasons=[f"{mark} by hand" for mark in marks],
    )
