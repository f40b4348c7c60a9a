"""The result of an evaluation: estimates by hand, what is missing, what cannot be compared, and the file."""

import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from rewards.verdict import Mark
from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.core.types import Problem
from rl.evaluate.result import (
    EvalResult,
    QuestionResult,
    compare,
    format_sets,
    format_table,
    hash_problems,
    load_sets,
    summary,
)
from rl.evaluate.stats import estimate_mean, paired_difference
from tests.results import eval_result, question_result

MARKS = {"r": Mark.RIGHT, "w": Mark.WRONG, "n": Mark.WRONG, "e": Mark.ERROR}
ANSWERS = {"r": "7", "w": "8", "n": None, "e": "?"}


def question(problem_id: str, samples: str) -> QuestionResult:
    """One letter for each sample: r(ight), w(rong), n(o answer, so wrong), e(rror of the verifier)."""
    return question_result(problem_id, [ANSWERS[letter] for letter in samples], [MARKS[letter] for letter in samples])


def evaluation(*samples: str, n: int = 4, step: int = 0) -> EvalResult:
    return eval_result([question(f"q{i}", text) for i, text in enumerate(samples)], step=step, n=n)


def test_the_summary_of_hand_computed_questions():
    estimates = summary(evaluation("rwww", "rrww", "rwwn", "nnnn"))
    assert list(estimates) == ["pass@1", "pass@2", "pass@4", "maj@4", "error", "no_answer"]
    assert estimates["pass@1"] == estimate_mean([1 / 4, 1 / 2, 1 / 4, 0])
    assert estimates["pass@2"] == estimate_mean([1 / 2, 5 / 6, 1 / 2, 0])
    assert estimates["pass@4"] == estimate_mean([1, 1, 1, 0])
    assert estimates["maj@4"] == estimate_mean([0, 1 / 2, 0, 0])
    assert estimates["error"] == estimate_mean([0, 0, 0, 0])
    assert estimates["no_answer"] == estimate_mean([0, 0, 1 / 4, 1])


def test_ks_are_the_powers_of_two_up_to_n_unless_given():
    twelve = evaluation("rwwwwwwwwwww", n=12)
    assert [name for name in summary(twelve) if name.startswith("pass")] == [
        "pass@1",
        "pass@2",
        "pass@4",
        "pass@8",
    ]
    assert [name for name in summary(twelve, ks=[3, 12]) if name.startswith("pass")] == ["pass@3", "pass@12"]


def test_an_error_is_missing_and_not_wrong():
    result = evaluation("rwee", "rrrr", "eeee", "")
    assert result.missing == ["q2", "q3"]
    estimates = summary(result)
    assert estimates["pass@1"] == estimate_mean([1 / 2, 1])
    assert estimates["pass@2"] == estimate_mean([1, 1])
    assert estimates["pass@4"] == estimate_mean([1])  # q0 has only two verified samples
    assert estimates["maj@4"] == estimate_mean([1 / 2, 1])  # and votes with these two
    assert estimates["error"] == estimate_mean([1 / 2, 0, 1])


def test_without_a_single_verified_sample_there_is_no_estimate():
    estimates = summary(evaluation("eeee", ""))
    assert estimates.pop("error") == estimate_mean([1])
    assert set(estimates.values()) == {None}


def test_the_comparison_is_paired_by_question_and_not_by_position():
    base = evaluation("rwww", "rrww", "wwww")
    other = evaluation("rrrr", "rrrw", "rrww", step=8)
    reordered = replace(other, questions=other.questions[::-1])
    expected = paired_difference({"a": 1 / 4, "b": 1 / 2, "c": 0}, {"a": 1, "b": 3 / 4, "c": 1 / 2})
    assert compare(base, other).pass_at_1 == compare(base, reordered).pass_at_1 == expected
    assert compare(base, other).left_out == []


def test_a_question_that_one_of_both_could_not_measure_is_left_out_and_named():
    base = evaluation("rwww", "eeee", "wwww")
    other = evaluation("rrrr", "rrrr", "eeee", "rrrr", step=8)
    comparison = compare(base, other)
    assert comparison.pass_at_1 == paired_difference({"q0": 1 / 4}, {"q0": 1})
    assert comparison.left_out == ["q1", "q2", "q3"]


def test_nothing_measured_in_both_gives_no_difference():
    comparison = compare(evaluation("rrrr", "eeee"), evaluation("eeee", "rrrr"))
    assert comparison.pass_at_1 is None
    assert comparison.left_out == ["q0", "q1"]


def test_another_number_of_samples_can_be_compared():
    assert compare(evaluation("rwww"), evaluation("rw", n=2)).pass_at_1.value == 1 / 4


@pytest.mark.parametrize(
    ("field", "value"),
    [("problems", "cd" * 32), ("temperature", 0.7), ("max_tokens", 128), ("extraction", "lenient")],
)
def test_what_was_measured_differently_is_not_compared(field: str, value: object):
    changed = {"problems_sha256" if field == "problems" else field: value}
    base, other = evaluation("rrrr"), replace(evaluation("rrrr", step=8), **changed)
    with pytest.raises(UsageError, match=f"step 8 cannot be compared .*: {field} is {value} in") as error:
        compare(base, other)
    assert "evaluate both" in error.value.fix
    with pytest.raises(UsageError, match=field):
        format_table({"base": base, "run": other})


def test_the_table():
    base = evaluation(*["rwww", "wwww"] * 25)
    better = evaluation(*["rrww", "rrrr"] * 25, step=8)
    broken = evaluation(*["eeee"] * 50, step=16)
    lines = format_table({"base": base, "lr-5e-4": better, "broken": broken}).splitlines()
    assert lines[0] == "|  | step | questions | pass@1 % | pass@4 % | maj@4 % | pass@1 − first | p |"
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    intervals = summary(base)
    p1 = intervals["pass@1"]
    assert cells[0][:4] == ["base", "0", "50/50", f"12.5 [{100 * p1.low:.1f}, {100 * p1.high:.1f}]"]
    assert cells[0][6:] == ["–", "–"]
    assert [cell.split()[0] for cell in cells[1]] == [
        "lr-5e-4",
        "8",
        "50/50",
        "75.0",
        "100.0",
        "75.0",
        "+62.5",
        "<0.001",
    ]
    assert cells[1][6] == "+62.5 [+48.9, +71.3]"
    assert cells[2] == ["broken", "16", "0/50", "–", "–", "–", "–", "–"]


def test_the_table_compares_at_the_k_that_all_rows_have():
    head = format_table({"base": evaluation("rwww"), "run": evaluation("rw", n=2, step=8)}).splitlines()[0]
    assert "pass@2 %" in head
    assert "maj@2 %" in head


def test_the_file_gives_back_the_same_result(tmp_path: Path):
    result = evaluation("rwne", "", step=8)
    path = tmp_path / "step-8.json"
    result.save(path)
    assert EvalResult.load(path) == result
    assert msgspec.json.decode(path.read_bytes())["questions"][0] == {
        "problem_id": "q0",
        "problem": "3+4",
        "gold": "7",
        "completions": [r"\boxed{7}", r"\boxed{8}", "?", r"\boxed{?}"],
        "answers": ["7", "8", None, "?"],
        "marks": ["right", "wrong", "wrong", "error"],
        "reasons": ["right by hand", "wrong by hand", "wrong by hand", "error by hand"],
        "rules": [],
        "compared": [],
        "verify_seconds": [],
    }


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "step-8.json"
    old, new = evaluation("rrrr", step=8), evaluation("wwww", step=8)
    old.save(path)

    def killed(source: Path, target: Path) -> None:
        assert EvalResult.load(path) == old, "the new bytes must not be written in place"
        assert EvalResult.load(source) == new, "what is moved must be whole"
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        new.save(path)
    assert EvalResult.load(path) == old


def test_a_save_replaces_and_leaves_nothing_else(tmp_path: Path):
    path = tmp_path / "step-8.json"
    evaluation("rrrr", step=8).save(path)
    evaluation("wwww", step=8).save(path)
    assert EvalResult.load(path) == evaluation("wwww", step=8)
    assert list(tmp_path.iterdir()) == [path]


def as_json(**changes: object) -> bytes:
    return msgspec.json.encode({**msgspec.to_builtins(evaluation("rw", n=2)), **changes})


one = msgspec.to_builtins(question("q0", "rw"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "truncated"),
        (as_json()[:-20], "truncated"),
        (b"[]", "Expected `object`"),
        (as_json(step="eight"), r"\$\.step"),
        (as_json(questions=[{**one, "marks": ["right", "maybe"]}]), "maybe"),
        (as_json(questions=[{**one, "answers": ["7"]}]), "q0: 1 answers but 2 marks"),
        (as_json(questions=[one, one]), "a problem_id occurs twice"),
        (as_json(samples_per_problem=1), "more than 1 samples"),
    ],
)
def test_a_broken_file_is_named_with_the_reason(tmp_path: Path, content: bytes, reason: str):
    path = tmp_path / "step-8.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"step-8\.json is not an evaluation's result: .*{reason}") as error:
        EvalResult.load(path)
    assert "evaluate" in error.value.fix


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(UsageError, match=r"step-9\.json: No such file") as error:
        EvalResult.load(tmp_path / "step-9.json")
    assert error.value.fix


def test_the_hash_of_problems_is_of_ids_and_golds_in_any_order():
    first, second = Problem(id="a", text="1+1", gold="2"), Problem(id="b", text="1+2", gold="3")
    assert hash_problems([first, second]) == hash_problems([second, first])
    assert hash_problems([first, second]) != hash_problems([first])
    assert hash_problems([first, second]) != hash_problems([first, replace(second, gold="4")])
    assert hash_problems([first, second]) != hash_problems([first, replace(second, id="c")])
    assert len(hash_problems([first])) == 64


def test_several_sets_are_one_table_and_each_is_compared_with_its_own_first_row():
    heldout = {"start": evaluation("rwww", "rrww"), "end": evaluation("rrrr", "rrrr", step=8)}
    further = {"start": replace(evaluation("wwww"), problems_sha256="cd" * 32), "end": evaluation("wwww", step=8)}
    further["end"] = replace(further["end"], problems_sha256="cd" * 32)
    head, rule, *rows = format_sets({"heldout": heldout, "gsm8k@test": further}).splitlines()
    assert head.startswith("| set |  | step | questions |")
    assert rule.startswith("| --- | --- | ---: |")
    assert [row.split(" | ")[0] for row in rows] == ["| heldout", "| heldout", "| gsm8k@test", "| gsm8k@test"]
    plain = format_table(further).splitlines()[2:]
    assert rows[2:] == [f"| gsm8k@test {row}" for row in plain]
    assert format_sets({"heldout": heldout}) == format_table(heldout)


def test_on_a_narrow_terminal_rows_are_columns() -> None:
    sets = {"heldout": {"start": evaluation("rwww", "rrww"), "end": evaluation("rrrr", "rrrr", step=8)}}
    table = format_sets(sets)
    assert format_sets(sets, width=120) == table
    lines = format_sets(sets, width=80).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) <= 80
    assert [line.split()[0] for line in lines] == [
        *("heldout", "step", "questions", "pass@1", "pass@4", "maj@4", "pass@1", "p")
    ]
    assert lines[0].split() == ["heldout", "start", "end"]
    assert all(cell.strip() in format_sets(sets, width=80) for cell in table.splitlines()[3].split("|"))
    two = format_sets(sets | {"gsm8k@test": sets["heldout"]}, width=80)
    assert two.split("\n\n")[0].splitlines() == lines
    assert two.split("\n\n")[1].startswith("gsm8k@test")


def test_sets_are_found_under_their_own_names(tmp_path: Path):
    run = RunDir(tmp_path)
    run.evals.mkdir()
    names = ["data/my set.jsonl", "gsm8k@test", "heldout"]
    for name in names:
        for step in (8, 0):
            replace(evaluation("rw", n=2, step=step), set=name).save(run.eval_file(name, step))
    assert run.eval_file("heldout", 8) == run.evals / "step-000008.json"
    assert {path.name for path in run.evals.iterdir()} >= {"gsm8k@test", "data%2Fmy%20set.jsonl"}
    found = load_sets(run.evals)
    assert next(iter(found)) == "heldout"
    assert sorted(found) == names
    assert all([result.step for result in results] == [0, 8] for results in found.values())
