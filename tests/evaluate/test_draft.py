"""An evaluation that was killed goes on with what it has, and never with what belongs to another."""

from dataclasses import replace
from pathlib import Path

import pytest

from rewards.verdict import Mark
from rl.evaluate.draft import Counter, Draft, path_of
from rl.evaluate.result import EvalResult, QuestionResult
from tests.results import eval_result, question_result

PINNED = replace(eval_result([], step=8, n=2), seconds=0.0)


def question(name: str) -> QuestionResult:
    return question_result(name, ["7", None], [Mark.RIGHT, Mark.WRONG])


@pytest.fixture
def final(tmp_path: Path) -> Path:
    """Of a set's folder that is not there yet, with a draft of two questions."""
    final = tmp_path / "gsm8k@test" / "step-000008.json"
    draft = Draft(final, PINNED)
    assert draft.answered == []
    draft.add(question("a"))
    draft.add(question("b"))
    return final


def test_what_was_answered_is_there_again(final: Path) -> None:
    assert Draft(final, PINNED).answered == [question("a"), question("b")]


def test_what_is_answered_is_counted_from_where_the_last_look_ended(final: Path) -> None:
    counter = Counter(final)
    assert [counter.answered(), counter.answered()] == [2, 2]
    draft = Draft(final, PINNED)
    draft.add(question("c"))
    assert counter.answered() == 3
    draft.finish(final, [question("a")], seconds=1.0)
    assert counter.answered() == 3
    assert Counter(final).answered() == 0


def test_a_line_that_was_being_written_is_dropped_and_the_next_is_whole(final: Path) -> None:
    path = path_of(final)
    path.write_bytes(path.read_bytes()[:-5])
    draft = Draft(final, PINNED)
    assert draft.answered == [question("a")]
    draft.add(question("c"))
    assert Draft(final, PINNED).answered == [question("a"), question("c")]


@pytest.mark.parametrize(
    "changed", [{"adapter_sha256": "cd" * 32}, {"problems_sha256": "cd" * 32}, {"samples_per_problem": 4}]
)
def test_a_draft_of_something_else_is_begun_anew(final: Path, changed: dict[str, object]) -> None:
    assert Draft(final, replace(PINNED, **changed)).answered == []
    assert Counter(final).answered() == 0


def test_a_finished_evaluation_leaves_no_draft(final: Path) -> None:
    result = Draft(final, PINNED).finish(final, [question("a"), question("b")], seconds=3.0)
    assert EvalResult.load(final) == result
    assert (result.step, result.seconds, len(result.questions)) == (8, 3.0, 2)
    assert [path.name for path in final.parent.iterdir()] == [final.name]
