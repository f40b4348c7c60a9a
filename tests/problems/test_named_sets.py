"""GSM8K, MATH, MATH-500 and SVAMP from their real files: counts, golds, duplicates."""

import json
from pathlib import Path

import pytest

from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.problems.sources import check_problems, load_eval_sets, load_problems


@pytest.mark.parametrize(
    ("name", "count"), [("gsm8k@train", 7473), ("gsm8k", 1319), ("math500", 500), ("svamp", 1000), ("math@test", 5000)]
)
def test_every_problem_of_a_set_is_evaluated(data_dir: str, name: str, count: int) -> None:
    config = TrainConfig(data_dir=data_dir, eval_on=name, eval_problems=0)
    problems = load_eval_sets(config)[name]
    assert len(problems) == len({p.id for p in problems}) == count
    assert [p.id for p in problems] == sorted(p.id for p in problems)


def test_golds_are_read_from_each_schema(data_dir: str) -> None:
    config = TrainConfig(data_dir=data_dir, eval_on="gsm8k@train,math@test,svamp", eval_problems=0)
    sets = load_eval_sets(config)
    golds = {p.text: p.gold for name in ("gsm8k@train", "math@test", "svamp") for p in sets[name]}
    rows = [json.loads(line) for line in Path(data_dir, "gsm8k/train.jsonl").read_text().splitlines()]
    with_comma = next(row for row in rows if "," in row["answer"].rpartition("#### ")[2])
    assert golds[with_comma["question"]] == with_comma["answer"].rpartition("#### ")[2].replace(",", "")
    assert golds["How many vertical asymptotes does the graph of $y=\\frac{2}{x^2+x-6}$ have?"] == "2"
    packs = "Each pack of dvds costs 76 dollars. If there is a discount of 25 dollars on each pack. "
    assert golds[packs + "How much do you have to pay to buy each pack?"] == "51"
    assert all(p.gold.lstrip("-").replace(".", "").isdigit() for p in sets["gsm8k@train"])


def test_every_gold_of_gsm8k_math500_and_svamp_verifies(data_dir: str) -> None:
    config = TrainConfig(data_dir=data_dir, problems="gsm8k", eval_on="gsm8k@test,math500,svamp", max_tokens=256)
    assert check_problems(config) == []
    assert len(load_problems(config, "train")) + len(load_problems(config, "heldout")) == 7473


def test_maths_bad_golds_and_duplicates_are_refused_or_dropped(data_dir: str) -> None:
    asked = {"data_dir": data_dir, "problems": "math", "eval_on": "math@test", "eval_problems": 0}
    with pytest.raises(UsageError, match=r"math: 4 of 7474 golds cannot be verified(.|\n)*gold is empty") as refused:
        check_problems(TrainConfig(**asked))
    assert "--bad-golds drop" in refused.value.fix
    with pytest.raises(UsageError, match="training problems are also evaluated, among them\n  'The points") as refused:
        check_problems(TrainConfig(**asked, bad_golds="drop"))
    assert "--duplicates drop" in refused.value.fix

    config = TrainConfig(**asked, bad_golds="drop", duplicates="drop")
    left_out = check_problems(config)
    assert left_out[0].startswith("math: 4 of 7474 problems")
    train, sets = load_problems(config, "train"), load_eval_sets(config)
    assert len(sets["math@test"]) == 5000
    evaluated = {normal(p.text) for problems in sets.values() for p in problems}
    assert not [p for p in train if normal(p.text) in evaluated]
    dropped = int(left_out[1].removeprefix("math: ").partition(" of ")[0])
    assert len(train) + dropped + len(sets["heldout"]) == 7474 - 4


def normal(text: str) -> str:
    return " ".join(text.lower().split())


def test_a_named_set_without_a_local_copy_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"no file like {tmp_path}/gsm8k/train.jsonl"):
        load_problems(TrainConfig(problems="gsm8k", data_dir=str(tmp_path)), "train")


def test_a_split_that_is_not_there_is_named(data_dir: str) -> None:
    with pytest.raises(UsageError, match="gsm8k has no split tests") as refused:
        load_eval_sets(TrainConfig(data_dir=data_dir, eval_on="gsm8k@tests"))
    assert refused.value.fix == "name one: gsm8k@test or gsm8k@train"
