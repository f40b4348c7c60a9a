import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rewards import bench
from rewards.bench import Rows, Timing

HOSTILE = [
    {"name": "tower", "pred": r"\boxed{9^{9^{9^{9}}}}", "gold": "42", "expected": False},
    {
        "name": "without end",
        "pred": r"\boxed{F_n = \sum_{k=0}^{n-2} F_k F_{n-k-2}}",
        "gold": r"F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}",
        "expected": False,
    },
]
ORDINARY = [(rf"\boxed{{{n}.0}}", str(n % 7)) for n in range(40)]


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    _write(tmp_path / "gsm8k/test.jsonl", [{"question": "6*7?", "answer": "6*7 is <<6*7=42>>42.\n#### 42"}] * 3)
    boxes = [r"So $x = \boxed{\frac{1}{2}}$.", "We do not know.", r"It is \boxed{x+1}.", r"\boxed{2}"]
    _write(tmp_path / "math/test.jsonl", [{"problem": "?", "solution": box} for box in boxes])
    return tmp_path


def _bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "rewards.bench", *arguments], capture_output=True, text=True)


def test_the_sets_hold_the_first_rows_that_have_a_gold(data_dir: Path) -> None:
    generations = _write(data_dir / "generations.jsonl", [{"output": "Thus 5.", "gold": "5", "label": True}])
    gsm8k, solved, others, outputs = bench.read_sets(data_dir, generations, rows=2)
    assert gsm8k == Rows("GSM8K", "rewards:verify", [(r"The answer is \boxed{42}.", "42")] * 2)
    assert [gold for _, gold in solved.rows] == [r"\frac{1}{2}", "x+1"]
    assert [gold for _, gold in others.rows] == ["x+1", r"\frac{1}{2}"]
    assert (outputs.check, outputs.rows) == ("rewards:verify_leniently", [("Thus 5.", "5")])


def test_the_command_measures_every_side_and_says_what_is_left_out(data_dir: Path) -> None:
    hostile = _write(data_dir / "hostile.jsonl", HOSTILE[:1])
    asked = ("--rows", "2", "--repeats", "1", "--adversarial", hostile, "--jobs", "40")
    done = _bench("--data-dir", data_dir, *asked)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    sets = {"GSM8K (2)": ["2", "2"], "MATH (2)": ["2", "2"], "MATH, mixed up (2)": ["0", "2"]}
    for place, (name, marks) in enumerate(sets.items()):
        assert lines[1 + 3 * place].startswith(name)
        for side, line in zip(bench.SIDES, lines[1 + 3 * place :], strict=False):
            assert f" {side} " in line
            assert line.split()[-2:] == marks
    assert "generations: left out, as no --generations FILE was given" in lines
    assert "2 hostile answers among 40 others, through a pool of 2 workers:" in lines
    assert lines[-1].startswith("measured on ")


def test_the_rate_is_of_the_median_pass_and_percentiles_are_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    passes = [Timing(seconds, [0.001] * 99 + [seconds], [True] * 100) for seconds in (0.5, 4.0, 1.0)]
    ours = [Timing(0.25, [0.002] * 100, [True] * 60 + [False] * 40)]
    bench.print_table({("A", "math-verify"): passes, ("A", "verify"): ours})
    _, theirs, mine, *_ = capsys.readouterr().out.splitlines()
    assert theirs.split() == ["A", "(100)", "math-verify", "100", "1.0", "1.00", "1.00", "4000.00", "100", "100"]
    assert mine.split() == ["verify", "400", "4.0", "2.00", "2.00", "2.00", "60", "60"]


def test_hostile_answers_harm_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.attack(ORDINARY, HOSTILE)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:4] == [
        "  falsely paid             none",
        "  changed verdicts         0 of the others",
        "  processes left           0",
    ]
    assert lines[4].endswith(" s: without end")
    assert lines[5].endswith(" MiB at 10%, 50%, 100% of the jobs")


def test_an_answer_that_is_paid_though_it_must_not_be_is_told_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert not bench.attack(ORDINARY, [{"name": "bribe", "pred": r"\boxed{1}", "gold": "1", "expected": False}])
    assert "falsely paid             bribe\n" in capsys.readouterr().out


def test_help_is_light_and_wrong_usage_exits_with_2(data_dir: Path) -> None:
    assert _bench("--help").returncode == 0
    assert _bench("--data-dir", data_dir, "--rows", "0").returncode == 2
    done = _bench("--data-dir", data_dir / "elsewhere")
    assert done.returncode == 2
    assert f"No such file or directory: '{data_dir / 'elsewhere'}{os.sep}" in done.stderr
