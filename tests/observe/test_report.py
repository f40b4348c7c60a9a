"""The report says what the evaluations hold, no more."""

from pathlib import Path

import pytest

from rewards.verdict import Mark
from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.core.types import Problem
from rl.evaluate.result import EvalResult, QuestionResult
from rl.observe.console import eval_line, step_line
from rl.observe.report import draw, evaluations, gains_table, most_improved
from tests.results import eval_result

PROBLEMS = [Problem(id=str(i), text=f"{i}+1", gold=str(i + 1)) for i in range(20)]


def evaluation(step: int, right: int, n: int = 4) -> EvalResult:
    """`right` of the problems are answered rightly every time, the others never; problem 19 always."""
    questions = [
        QuestionResult(
            problem_id=p.id,
            answers=[p.gold if int(p.id) < right or p.id == "19" else None] * n,
            marks=[Mark.RIGHT if int(p.id) < right or p.id == "19" else Mark.WRONG] * n,
        )
        for p in PROBLEMS
    ]
    return eval_result(questions, step=step, n=n)


def test_the_table_has_a_row_for_each_run_against_its_own_start() -> None:
    runs = {"a": [evaluation(0, 1), evaluation(5, 9), evaluation(10, 15)], "b": [evaluation(0, 1, n=6)]}
    head, _, first, second = gains_table(runs).splitlines()
    assert "pass@4 before" in head
    assert first.startswith("| a | 20 | 10 | 10.0 [")
    assert "| 80.0 [" in first
    assert "| +70.0 [" in first
    assert "| +0.0 [" in second


def test_the_example_is_the_problem_that_gained_most() -> None:
    before, after = evaluation(0, 0), evaluation(10, 1)
    assert most_improved([before, after], PROBLEMS) == (
        "0+1 = 1: before –, –, –, – (0 of 4 right); after 1, 1, 1, 1 (4 of 4 right)"
    )
    assert most_improved([after, before], PROBLEMS) == ""


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    draw({"a": [evaluation(0, 1), evaluation(5, 9)]}, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no config\.json"):
        evaluations(RunDir(tmp_path))


def test_a_step_line_has_about_eight_numbers() -> None:
    record = {
        "step": 7,
        "reward": 0.614,
        "length": 18.24,
        "truncated": 0.031,
        "no_signal": 0.25,
        "staleness_mean": 3.25,
        "clipped_low": 0.01,
        "clipped_high": 0.005,
        "grad_norm": 0.5,
        "mismatch_kl": 2e-13,
        "step_s": 0.5,
        "wait_s": 0.1,
    }
    assert step_line(record, total=200) == (
        "step   7/200  reward 0.61  len 18.2 (3% cut)  signal 75%  stale 3.2  clip 1.5%  grad 0.50  mismatch_kl 2e-13  "
        "0.50 s (wait 20%)"
    )


def test_an_eval_line_leaves_out_what_is_missing() -> None:
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6, "n_questions": 9}
    summary = {"pass@1": estimate, "pass@2": estimate, "pass@4": None, "maj@4": estimate, "error": estimate}
    assert (
        eval_line({"step": 3, "summary": summary})
        == "eval at step 3: pass@1 0.500 [0.400, 0.600]  maj@4 0.500 [0.400, 0.600]"
    )
