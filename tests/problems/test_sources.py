"""Problems from files: read, split by hash, checked, and in bounded memory."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rewards
from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.problems import stored
from rl.problems.sources import SPLITS, check_problems, load_eval_sets, load_problems

ROWS: list[dict[str, Any]] = [{"problem": f"{i}+1", "answer": i + 1} for i in range(300)]

GOOD = '{"problem": "1+1", "answer": "2"}'


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def test_a_file_is_split_by_hash_and_adding_rows_moves_none(tmp_path: Path) -> None:
    few, many = write(tmp_path / "few.jsonl", ROWS[:200]), write(tmp_path / "many.jsonl", ROWS)
    train, heldout = (load_problems(TrainConfig(problems=many), split) for split in SPLITS)
    assert len(train) + len(heldout) == 300
    assert 10 <= len(heldout) <= 60
    assert {p.id for p in train}.isdisjoint(p.id for p in heldout)
    assert list(load_problems(TrainConfig(problems=few), "heldout")) == [p for p in heldout if int(p.gold) <= 200]


def test_a_sequence_of_stored_problems_is_one_by_one_and_by_slice_the_same(tmp_path: Path) -> None:
    train = load_problems(TrainConfig(problems=write(tmp_path / "p.jsonl", ROWS)), "train")
    every = list(train)
    assert [train[i] for i in range(len(train))] == every
    assert list(train[5:50:3]) == every[5:50:3]
    assert (train[-1], list(train[:0])) == (every[-1], [])


def test_a_problem_that_comes_twice_counts_once(tmp_path: Path) -> None:
    one, other = write(tmp_path / "p.jsonl", [*ROWS[:60], ROWS[1]]), write(tmp_path / "q.jsonl", ROWS[50:80])
    assert sum(len(load_problems(TrainConfig(problems=one), split)) for split in SPLITS) == 60
    mixed = TrainConfig(problems=f"{one},{other}")
    problems = [p for split in SPLITS for p in load_problems(mixed, split)]
    assert len(problems) == len({p.id for p in problems}) == 80
    (left_out,) = check_problems(mixed)
    assert "p.jsonl: 1 of 61 rows are left out, as they repeat a problem" in left_out


def test_all_kinds_of_files_hold_the_same_problems(tmp_path: Path) -> None:
    jsonl = write(tmp_path / "p.jsonl", ROWS)
    (tmp_path / "p.json").write_text(json.dumps(ROWS, indent=1))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "p.parquet")
    with (tmp_path / "p.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["problem", "answer"])
        writer.writeheader()
        writer.writerows(ROWS)
    wanted = list(load_problems(TrainConfig(problems=jsonl), "train"))
    for name in ("p.json", "p.parquet", "p.csv"):
        assert list(load_problems(TrainConfig(problems=str(tmp_path / name)), "train")) == wanted


def test_a_spreadsheets_byte_order_mark_is_no_part_of_the_first_field(tmp_path: Path) -> None:
    for name, text in (("p.csv", "problem,answer\n1+1,2\n"), ("p.jsonl", GOOD), ("p.json", f"[{GOOD}]")):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        config = TrainConfig(eval_on=str(tmp_path / name))
        assert [p.text for p in load_eval_sets(config)[str(tmp_path / name)]] == ["1+1"]


def test_a_folder_has_splits_and_fields_have_names(tmp_path: Path) -> None:
    rows = [{"q": row["problem"], "a": row["answer"], "x": None} for row in ROWS]
    write(tmp_path / "set/train-00000-of-00002.jsonl", rows[:100])
    write(tmp_path / "set/train-00001-of-00002.jsonl", rows[100:200])
    write(tmp_path / "set/test.jsonl", rows[200:])
    name = str(tmp_path / "set")
    config = TrainConfig(problems=name, eval_on=f"{name},{name}@train", problem_field="q", answer_field="a")
    sets = load_eval_sets(config)
    assert {key: len(problems) for key, problems in sets.items() if key != "heldout"} == {
        name: 100,
        f"{name}@train": 200,
    }
    assert len(load_problems(config, "train")) + len(load_problems(config, "heldout")) == 200


def test_evaluations_take_the_first_problems_of_an_order_that_stays(tmp_path: Path) -> None:
    name = write(tmp_path / "p.jsonl", ROWS)
    every, some = (load_eval_sets(TrainConfig(problems=name, eval_on=name, eval_problems=n))[name] for n in (0, 10))
    assert list(some) == list(every)[:10] == sorted(every, key=lambda p: p.id)[:10]
    assert len(every) == 300


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("p.jsonl", GOOD + "\n" + GOOD.replace("pro", "su"), "p.jsonl:2 has no field 'problem'; it has: sublem, ans"),
        ("p.jsonl", '{"problem": "1+1", "answer": ["2"]}', "p.jsonl:1 cannot be read: .*neither text nor a number"),
        ("p.jsonl", '{"problem": " ", "answer": "2"}', "p.jsonl:1 has an empty problem"),
        ("p.jsonl", f'{GOOD}\n\n{{"problem": "1+', "p.jsonl:3 is not JSON"),
        ("p.jsonl", "not json", "p.jsonl:1 is not JSON"),
        ("p.json", f"[{GOOD}, 7]", "p.json, row 2 is no object"),
        ("p.jsonl", "", "p.jsonl has no rows"),
        ("p.csv", "problem,answer\n", "p.csv has no rows"),
        ("p.csv", "question,answer\n1,2\n", "p.csv:2 has no field 'problem'"),
        ("p.csv", "problem,answer\n1+1,2\n1,000+1,1001\n", "p.csv:3 has more cells than the first line has names"),
        ("p.csv", f"problem,answer\n{'1' * 200_000},2\n", "p.csv is not CSV after line 1: field larger than"),
        ("p.jsonl", GOOD.replace("1+1", "\\ud800"), "p.jsonl:1 cannot be read: .*surrogates"),
        ("p.jsonl", "[" * 100_000, "p.jsonl is not JSON"),
        ("p.parquet", "PAR?", "p.parquet is no Parquet file"),
        ("p.jsonl", GOOD, "has no (train|heldout) problems"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_with_the_place_and_a_fix(tmp_path: Path, name: str, text: str, what: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=what) as refused:
        check_problems(TrainConfig(problems=str(tmp_path / name)))
    assert refused.value.fix


def test_what_is_no_text_and_what_is_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_bytes(b'{"problem": "\xff"}')
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        check_problems(TrainConfig(problems=str(tmp_path / "p.jsonl")))
    with pytest.raises(UsageError, match="there is no such file"):
        check_problems(TrainConfig(problems=str(tmp_path / "nothing.jsonl")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=f"no file like {tmp_path}/empty/train.jsonl"):
        check_problems(TrainConfig(problems=str(tmp_path / "empty")))
    with pytest.raises(UsageError, match="the hub does not give the data set nobody/nothing-like-this"):
        check_problems(TrainConfig(problems="nobody/nothing-like-this"))


def test_golds_that_cannot_be_verified_are_refused_dropped_or_the_own_rewards_business(tmp_path: Path) -> None:
    bad = [{"problem": "nothing", "answer": None}, {"problem": "half", "answer": "\\frac{1}{"}]
    good, name = write(tmp_path / "good.jsonl", ROWS), write(tmp_path / "bad.jsonl", [*ROWS, *bad])
    assert check_problems(TrainConfig(problems=good)) == []
    with pytest.raises(UsageError, match=r"2 of 302 golds cannot be verified(.|\n)*'' to 'nothing': gold is empty"):
        check_problems(TrainConfig(problems=name))
    drop = TrainConfig(problems=name, bad_golds="drop")
    (left_out,) = check_problems(drop)
    assert "2 of 302 problems are left out" in left_out
    for split in SPLITS:
        assert list(load_problems(drop, split)) == list(load_problems(TrainConfig(problems=good), split))
    own = TrainConfig(problems=name, reward="tests.rewards.checks:obey")
    assert check_problems(own) == []
    assert sum(len(load_problems(own, split)) for split in SPLITS) == 302


def test_training_problems_that_are_evaluated_are_refused_or_dropped(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [{"problem": f"Add {i} and  one", "answer": i + 1} for i in range(100)])
    test = write(tmp_path / "test.jsonl", [{"problem": f"add {i} AND one\n", "answer": i + 1} for i in range(90, 110)])
    heldout = len(load_problems(TrainConfig(problems=train), "heldout"))
    asked = {"problems": train, "eval_on": test}
    with pytest.raises(UsageError, match=r"training problems are also evaluated(.|\n)*'Add 9[0-9] and  one'"):
        check_problems(TrainConfig(**asked))
    config = TrainConfig(**asked, duplicates="drop")
    (left_out,) = check_problems(config)
    remaining = {p.text for p in load_problems(config, "train")}
    assert remaining.isdisjoint(f"Add {i} and  one" for i in range(90, 100))
    dropped = 100 - heldout - len(remaining)
    assert f" {dropped} of {100 - heldout} " in left_out
    assert 1 <= dropped <= 10


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    config = TrainConfig(problems=write(path, ROWS[:100]))
    assert sum(len(load_problems(config, split)) for split in SPLITS) == 100
    write(path, ROWS[:150])
    assert sum(len(load_problems(config, split)) for split in SPLITS) == 150


def test_problems_are_read_again_by_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code that extracts golds is that of `rewards`."""
    shutil.copytree(Path(rewards.__file__).parent, tmp_path / "rewards")
    with (tmp_path / "rewards" / "extract.py").open("a") as file:
        file.write("# other rules")
    before = stored._code_version()
    monkeypatch.setattr(rewards, "__file__", str(tmp_path / "rewards" / "__init__.py"))
    assert stored._code_version.__wrapped__() != before


def test_the_starter_alone_imports_nothing_that_reads_files() -> None:
    script = (
        "import sys\n"
        "from rl.core.config import TrainConfig\n"
        "from rl.problems.sources import check_problems, load_eval_sets, load_problems\n"
        "check_problems(TrainConfig()), load_problems(TrainConfig(), 'train'), load_eval_sets(TrainConfig())\n"
        "print({'datasets', 'pyarrow', 'numpy', 'sympy', 'huggingface_hub'} & set(sys.modules))\n"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout == "set()\n"


def test_the_starter_is_the_same_beside_other_sets(tmp_path: Path) -> None:
    beside = TrainConfig(eval_on=write(tmp_path / "p.jsonl", ROWS))
    for split in SPLITS:
        assert list(load_problems(beside, split)) == list(load_problems(TrainConfig(), split))


def test_a_million_rows_need_little_memory(tmp_path: Path) -> None:
    path, cache = tmp_path / "million.jsonl", tmp_path / "hf"
    with path.open("w") as file:
        file.writelines(f'{{"problem": "{i}+1", "answer": {i + 1}}}\n' for i in range(1_000_000))
    script = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from rl.core.config import TrainConfig\n"
        "from rl.problems.order import ProblemOrder\n"
        "from rl.problems.sources import SPLITS, check_problems, load_problems\n"
        "config = TrainConfig(problems=sys.argv[1])\n"
        "check_problems(config)\n"
        "splits = [load_problems(config, split) for split in SPLITS]\n"
        "order = ProblemOrder(splits[0], seed=0)\n"
        "assert len({order(i).id for i in range(1, 1001)}) == 1000\n"
        "peak_kib = re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1]\n"
        "print(sum(map(len, splits)), peak_kib)\n"  # getrusage would count the process that started this one
    )
    command = [sys.executable, "-c", script, str(path)]
    environment = {"HF_HOME": str(cache), "PYTHONPATH": str(Path(__file__).parents[2])}
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    path.unlink()
    shutil.rmtree(cache)
    count, peak_kib = map(int, answer.stdout.split())
    assert count == 1_000_000
    assert peak_kib < 400 * 1024  # it is 250 MiB, and was 520 with all rows in memory at once
