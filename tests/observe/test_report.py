"""The end of a run says what its evaluations hold, no more."""

from dataclasses import replace
from pathlib import Path

from rewards.verdict import Mark
from rl.core import cli
from rl.core.rundir import RunDir
from rl.core.types import Problem
from rl.evaluate.result import EvalResult, summary_json
from rl.observe.report import summary_lines
from tests.observe.recorded import new_run, step_record
from tests.results import eval_result, question_result

PROBLEMS = [Problem(id=str(i), text=f"{i}+1", gold=str(i + 1)) for i in range(20)]


def evaluation(step: int, right: int, n: int = 4) -> EvalResult:
    """`right` of the problems are answered rightly every time, the others never; problem 19 always."""
    questions = [
        question_result(p.id, [p.gold] * n, [Mark.RIGHT] * n, problem=p.text, gold=p.gold)
        if int(p.id) < right or p.id == "19"
        else question_result(p.id, [None] * n, [Mark.WRONG] * n, problem=p.text, gold=p.gold)
        for p in PROBLEMS
    ]
    return eval_result(questions, step=step, n=n)


def test_the_summary_of_a_run_has_each_set_at_the_start_the_best_and_the_end(tmp_path: Path) -> None:
    parser = cli.Parser()
    cli.add_config_flags(parser)
    run = RunDir(tmp_path / "run")
    run.create(cli.resolve(parser.parse_args(["--eval-on", "gsm8k@test"])))
    assert summary_lines(run) == []
    for step, right in ((0, 1), (5, 15), (10, 9)):
        for name in ("heldout", "gsm8k@test"):
            result = replace(evaluation(step, right if name == "heldout" else 3), set=name)
            result.save(run.eval_file(name, step))
            run.log(kind="eval", step=step, set=name, summary=summary_json(result))
    *table, best = "\n".join(summary_lines(run)).splitlines()
    rows = [row.split(" | ")[:3] for row in table[2:]]
    assert rows == [
        [f"| {name}", row, step]
        for name in ("heldout", "gsm8k@test")
        for row, step in (("start", "0"), ("best", "5"), ("end", "10"))
    ]
    assert best.startswith("best held-out pass@1: 0.800 at step 5; best of 3, so optimistic")


def test_a_replay_has_no_evaluations_and_says_where_its_time_went(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", "--replay", "runs/recorded")
    run.log(**step_record(1))
    assert summary_lines(run) == ["the learner waited 20% of its time; staleness was 4 steps at the most"]
