"""Records become columns: what is new is read once, what a resume took back is gone, what is no record is left out."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rl.core.rundir import RunDir
from rl.page.numbers import AT_ONCE, LONGEST, Numbers
from tests.observe.recorded import evaluation, log_evaluation, step_record

Write = Callable[..., None]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


@pytest.fixture
def write(file: Path) -> Write:
    """Appends a step for each number: ``write(1, 2, reward=0.5)``"""

    def append(*steps: int, **values: Any) -> None:
        with file.open("a") as out:
            out.writelines(json.dumps({"time": "now", **step_record(step, **values)}) + "\n" for step in steps)

    return append


def course(numbers: Numbers, name: str) -> dict[int, float]:
    column = numbers.columns[name]
    return dict(zip(column.steps, column.values, strict=True))


def test_only_what_is_new_is_read(file: Path, write: Write) -> None:
    numbers = Numbers(file)
    assert not numbers.read()
    write(1, 2, reward=0.25)
    assert numbers.read()
    assert not numbers.read()
    write(3, reward=0.5)
    assert numbers.read()
    assert course(numbers, "reward") == {1: 0.25, 2: 0.25, 3: 0.5}
    assert numbers.step == 3
    assert numbers.by_age.keys() == {"3", "4"}
    assert numbers.newest == "now"


def test_a_line_that_is_still_being_written_waits(file: Path, write: Write) -> None:
    write(1)
    line = json.dumps(step_record(2))
    with file.open("a") as out:
        out.write(line[:40])
    numbers = Numbers(file)
    numbers.read()
    assert numbers.step == 1
    with file.open("a") as out:
        out.write(line[40:] + "\n")
    numbers.read()
    assert numbers.step == 2
    assert numbers.left_out == 0


@pytest.mark.parametrize("at_once", [True, False], ids=["in one look", "in two looks"])
def test_what_a_resume_makes_again_counts_once(file: Path, write: Write, at_once: bool) -> None:
    numbers = Numbers(file)
    write(1, 2, 3, 4, reward=0.1)
    if not at_once:
        numbers.read()
    write(3, reward=0.9)
    numbers.read()
    assert course(numbers, "reward") == {1: 0.1, 2: 0.1, 3: 0.9}
    assert list(numbers.steps) == [1, 2, 3]
    assert numbers.rewinds == 1


def test_many_steps_are_all_there(file: Path, write: Write) -> None:
    write(*range(1, 2 * AT_ONCE + 2))
    write(AT_ONCE, lr=0.25)
    numbers = Numbers(file)
    numbers.read()
    assert list(numbers.steps) == list(range(1, AT_ONCE + 1))
    assert course(numbers, "lr")[AT_ONCE] == 0.25
    assert numbers.bytes_kept == 16 * AT_ONCE * len(numbers.columns)


def test_what_was_not_measured_has_no_value_and_what_is_not_finite_has_one(file: Path, write: Write) -> None:
    write(1, mismatch_kl=1e-13)
    write(2, mismatch_kl=None)
    write(3, mismatch_kl=math.nan, grad_norm=math.inf)
    numbers = Numbers(file)
    numbers.read()
    assert list(numbers.columns["mismatch_kl"].steps) == [1, 3]
    assert math.isnan(course(numbers, "mismatch_kl")[3])
    assert course(numbers, "grad_norm")[3] == math.inf
    assert numbers.left_out == 0


BROKEN = {
    "no JSON": b"{half\n",
    "no record": b"[1, 2]\n",
    "no text": b'{"kind": "step", "step": "\xff"}\n',
    "no step": b'{"kind": "step", "step": -1}\n',
    "too many digits": b'{"kind": "step", "step": 4, "reward": 1' + 400 * b"0" + b"}\n",
    "nested": b"[" * 100_000 + b"\n",
    "an evaluation of another version": b'{"kind": "eval", "step": 2, "set": "heldout", "summary": {"pass@1": 0.5}}\n',
    "a set that is no text": b'{"kind": "eval", "step": 2, "set": "\\ud800", "summary": {"pass@1": null}}\n',
    "too long": b" " * LONGEST + b"\n",
}


@pytest.mark.parametrize("line", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_record_is_left_out_and_told(file: Path, write: Write, line: bytes) -> None:
    write(1)
    with file.open("ab") as out:
        out.write(line)
    write(2)
    numbers = Numbers(file)
    numbers.read()
    assert list(numbers.steps) == [1, 2]
    assert numbers.left_out >= 1
    assert numbers.why_left_out
    assert not numbers.evals


def test_a_file_that_was_cut_or_is_another_one_is_read_anew(file: Path, write: Write) -> None:
    write(1, 2, 3)
    numbers = Numbers(file)
    numbers.read()
    file.unlink()
    write(7, 8, 9, 10)
    numbers.read()
    assert list(numbers.steps) == [7, 8, 9, 10]
    file.write_bytes(b"")
    write(1)
    numbers.read()
    assert list(numbers.steps) == [1]


def test_of_evaluations_and_restarts_the_records_are_there(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    log_evaluation(run, evaluation(0, {"1+1": 1}))
    log_evaluation(run, evaluation(5, {"1+1": 4}))
    log_evaluation(run, evaluation(5, {"1+1": 2}))  # made again after a crash
    run.log(kind="restart", step=5, worker="server", why="was killed by SIGKILL", attempt=1)
    run.log(kind="publish", step=5, logprob_gap=1e-7, noise=1e-7)
    numbers = Numbers(run.metrics_file)
    numbers.read()
    means = {key: record["summary"]["pass@1"]["value"] for key, record in numbers.evals.items()}
    assert means == {("heldout", 0): 0.25, ("heldout", 5): 0.5}
    assert [record["worker"] for record in numbers.restarts] == ["server"]
    assert numbers.published == {"step": 5, "logprob_gap": 1e-7, "noise": 1e-7}
