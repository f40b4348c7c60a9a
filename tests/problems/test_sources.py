"""Problems: from a file or the starter's, split by hash, issued in an order that needs no state."""

import json
from collections import Counter
from pathlib import Path

import pytest

from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.problems.models import resolve_model
from rl.problems.prompt import Prompter
from rl.problems.sources import SPLITS, check_golds, load_problems, problem_order
from rl.problems.starter import STARTER_MODEL


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def test_a_file_is_split_by_hash_and_adding_rows_moves_none(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"problem": f"{i}+1", "answer": i + 1} for i in range(300)]
    few, many = write(tmp_path / "few.jsonl", rows[:200]), write(tmp_path / "many.jsonl", rows)
    train, heldout = (
        load_problems(TrainConfig(problems=many), "train"),
        load_problems(TrainConfig(problems=many), "heldout"),
    )
    assert len(train) + len(heldout) == 300
    assert 10 <= len(heldout) <= 60
    assert {p.id for p in train}.isdisjoint(p.id for p in heldout)
    assert load_problems(TrainConfig(problems=few), "heldout") == [p for p in heldout if int(p.gold) <= 200]


def test_a_problem_that_comes_twice_counts_once(tmp_path: Path) -> None:
    row: dict[str, object] = {"problem": "1+1", "answer": "2"}
    others: list[dict[str, object]] = [{"problem": f"{i}+1", "answer": i + 1} for i in range(2, 60)]
    source = write(tmp_path / "p.jsonl", [row, row, *others])
    assert (
        len(load_problems(TrainConfig(problems=source), "train"))
        + len(load_problems(TrainConfig(problems=source), "heldout"))
        == 59
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"problem": "1+1", "answer": "2"}\n{"question": "1"}', "2 has no `problem` and `answer`"),
        ("not json", "1 is not JSON"),
        ('{"problem": "1+1", "answer": "2"}', "has no (train|heldout) problems"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError, match=what):
        _ = [load_problems(TrainConfig(problems=str(path)), split) for split in SPLITS]


def test_a_gold_that_cannot_be_verified_is_refused(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"problem": f"{i}+1", "answer": i + 1} for i in range(60)]
    check_golds(TrainConfig(problems=write(tmp_path / "good.jsonl", rows)))
    with pytest.raises(UsageError, match="cannot be verified"):
        check_golds(TrainConfig(problems=write(tmp_path / "bad.jsonl", [*rows, {"problem": "nothing", "answer": ""}])))


def test_every_epoch_is_a_permutation_of_its_own() -> None:
    problems = load_problems(TrainConfig(), "train")[:50]
    problem_of = problem_order(problems, seed=0)
    epochs = [[problem_of(i).id for i in range(50 * e + 1, 50 * e + 51)] for e in range(3)]
    assert all(Counter(epoch) == Counter(p.id for p in problems) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    again = problem_order(problems, seed=0)
    assert [again(i).id for i in (150, 7, 60)] == [problem_of(i).id for i in (150, 7, 60)]
    assert [problem_order(problems, seed=1)(i).id for i in range(1, 51)] != epochs[0]


def test_models_are_folders_or_of_the_hub(tmp_path: Path) -> None:
    assert resolve_model(TrainConfig(model="starter")) == str(STARTER_MODEL)
    assert resolve_model(TrainConfig(model=str(STARTER_MODEL))) == str(STARTER_MODEL)
    with pytest.raises(UsageError, match=r"no config\.json"):
        resolve_model(TrainConfig(model=str(tmp_path)))
    with pytest.raises(UsageError, match="is no folder, and the hub does not give it"):
        resolve_model(TrainConfig(model="not/a/hub/name"))


def test_prompts_follow_the_chat_template() -> None:
    prompter = Prompter(str(STARTER_MODEL), TrainConfig())
    problem = load_problems(TrainConfig(), "heldout")[0]
    assert prompter.text(prompter.prompt_ids(problem)) == f"{problem.text}="
