"""Evaluations made by hand, for the tests of what reads them."""

from rl.evaluate.result import EvalResult, QuestionResult


def eval_result(questions: list[QuestionResult], *, step: int, n: int) -> EvalResult:
    """An evaluation of n samples a problem; step 0 is the base model."""
    return EvalResult(
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
