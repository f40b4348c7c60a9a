"""What a run says fits its terminal, and tells a slow run from one that stands still."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rl.core.config import TrainConfig
from rl.core.rundir import RunDir
from rl.observe import console as module
from rl.observe.console import TrainConsole
from rl.observe.readings import clock, eval_line, seconds_left, step_line
from tests.observe.recorded import step_record

PUBLISHED = {"kind": "publish", "step": 0}
ESTIMATE = {"value": 0.5, "low": 0.4, "high": 0.6, "n_questions": 9}


def test_a_step_line_has_about_ten_numbers() -> None:
    assert step_line(step_record(7), total=200) == (
        "step   7/200  reward 0.60  signal  75%  len  18  cut  3%  sec 0.50  wait 20% sampler  clip 1.5%  stale 3  "
        "grad 0.50  mismatch 2e-13"
    )


def test_what_a_replay_cannot_measure_is_left_out() -> None:
    line = step_line(step_record(7, mismatch_kl=None, publish_s=None), total=200)
    assert f"{line}  mismatch 2e-13" == step_line(step_record(7), total=200)


@pytest.mark.parametrize("width", [40, 80, 100])
def test_a_narrow_terminal_gets_the_first_numbers_of_the_line(width: int) -> None:
    whole, line = (step_line(step_record(7), total=200, width=columns) for columns in (130, width))
    assert len(line) <= width
    assert whole.startswith(f"{line}  ")
    assert whole.endswith("mismatch 2e-13")


def test_lines_stand_under_one_another() -> None:
    small = step_line(step_record(7, no_signal=1.0, truncated=0.0, length=3, wait_s=0.0), total=200, width=120)
    large = step_line(step_record(107, no_signal=0.0, truncated=0.9, length=999, wait_s=0.4), total=200, width=120)
    assert len(small) == len(large)
    assert small.index("grad") == large.index("grad")


def test_an_eval_line_leaves_out_what_is_missing() -> None:
    summary = {"pass@1": ESTIMATE, "pass@2": ESTIMATE, "pass@4": None, "maj@4": ESTIMATE, "error": ESTIMATE}
    assert eval_line({"step": 3, "set": "heldout", "summary": summary}) == (
        "eval at step 3: pass@1 0.500 [0.400, 0.600]  maj@4 0.500 [0.400, 0.600]"
    )


def test_an_eval_line_names_a_further_set_and_says_that_nothing_could_be_measured() -> None:
    record = {"step": 3, "set": "gsm8k@test", "summary": {"pass@1": None, "maj@1": None}}
    assert eval_line(record) == "eval at step 3 on gsm8k@test: nothing could be measured"


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({}, 190 * 2.0),
        ({"max_minutes": 1.0}, 60 - 10 * 2.0),
        ({"token_budget": 1200}, 2 * 2.0),
        ({"token_budget": 900}, 0.0),
    ],
)
def test_the_time_left_is_that_to_the_first_of_all_ends(changes: dict[str, Any], left: float) -> None:
    steps = [step_record(step, step_s=2.0, tokens=100) for step in range(1, 11)]
    assert seconds_left(steps, TrainConfig(steps=200, **changes)) == pytest.approx(left)


def test_the_pace_is_that_of_the_last_steps() -> None:
    steps = [step_record(1, step_s=600.0), *(step_record(step, step_s=1.0) for step in range(2, 32))]
    assert seconds_left(steps, TrainConfig(steps=41)) == 10.0
    assert seconds_left([], TrainConfig()) is None
    assert clock(3661.4) == "1:01:01"


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time as the console sees it: a test sets it."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    yield now
    monkeypatch.undo()


def test_silence_is_told_from_slow_steps(
    seconds: list[float], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = TrainConsole(RunDir(tmp_path), TrainConfig(steps=9), 0, [])
    said.show(PUBLISHED)
    seconds[0] = 29
    assert not said.overdue
    seconds[0] = 31
    assert said.overdue
    said.say_overdue("32 issued")
    assert not said.overdue  # once is enough for now
    seconds[0] = 63
    assert said.overdue

    said.show(step_record(1, step_s=60.0))
    seconds[0] = 63 + 179
    assert not said.overdue  # a step takes that long here
    seconds[0] = 63 + 181
    assert said.overdue
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "no step for 31 s; groups so far: 32 issued"
    assert lines[1].startswith("step 1/9  reward 0.60  ")
    assert lines[1].endswith("mismatch 2e-13")  # without a terminal nothing is left out


def test_while_models_load_no_step_is_overdue(seconds: list[float], tmp_path: Path) -> None:
    said = TrainConsole(RunDir(tmp_path), TrainConfig(steps=9), 0, [])
    seconds[0] = 600
    assert not said.overdue
    said.show(PUBLISHED)
    seconds[0] = 629
    assert not said.overdue
    seconds[0] = 631
    assert said.overdue


def test_a_resumed_run_knows_the_pace_from_before(seconds: list[float], tmp_path: Path) -> None:
    past = [
        step_record(1, step_s=60.0),
        step_record(2, step_s=900.0),
        {"kind": "eval", "step": 0, "set": "heldout", "summary": {"pass@1": None}},
    ]
    said = TrainConsole(RunDir(tmp_path), TrainConfig(steps=9), 1, past)  # the second step is to be made again
    said.show(PUBLISHED)
    seconds[0] = 179
    assert not said.overdue
    seconds[0] = 181
    assert said.overdue


def test_what_is_wrong_is_said_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    console = TrainConsole(RunDir(tmp_path), TrainConfig(steps=60), 0, [])
    for step in range(1, 41):
        console.show(step_record(step, truncated=0.5 if step > 10 else 0.0))
    lines = capsys.readouterr().out.splitlines()
    (said,) = [number for number, line in enumerate(lines) if line.startswith("! ")]
    assert lines[said].startswith("! completions are cut off: 25% of the completions trained on lately")
    assert lines[said].endswith(": --max-tokens 80")
    assert lines[said - 1].startswith("step 20/60 ")
