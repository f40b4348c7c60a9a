"""The view of a run says what its files say: live, long after, and in a copy, and it changes none of them."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from rl.core.errors import UsageError
from rl.core.metrics import AGE, EVAL, PUBLISH, STEP, SUMMARY
from rl.core.rundir import RunDir
from rl.observe.readings import READINGS
from rl.observe.rules import silence
from rl.observe.watch import Watched, fitted, sparkline, view
from rl.watch import main
from tests.observe.recorded import evaluation, fill_ledger, log_evaluation, new_run, step_record

ROOT = Path(__file__).parents[2]
LookAt = Callable[[RunDir, int], str]
RIGHT = {"1+1": 3, "2+2": 2, "3+3": 0}


@pytest.fixture
def look_at(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> LookAt:
    """What `python -m rl.watch RUN` prints where there is no terminal, by a run and a width."""

    def printed(run: RunDir, width: int) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        main([str(run.root)])
        return capsys.readouterr().out

    return printed


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """12 of 40 steps are made; the 12th twice, as a resume does."""
    run = new_run(tmp_path / "run", "--steps", "40")
    fill_ledger(run, [("a", "b")] * 24)
    log_evaluation(run, evaluation(0, RIGHT))
    for step in (*range(1, 13), 12):
        run.log(**step_record(step, reward=step / 20))
    log_evaluation(run, evaluation(12, RIGHT | {"3+3": 4}))
    log_evaluation(run, evaluation(12, {"x": 1}, set="other set"))
    return run


@pytest.mark.parametrize("width", [80, 120])
def test_the_view_fits_and_is_plain_without_a_terminal(look_at: LookAt, run: RunDir, width: int) -> None:
    out = look_at(run, width)
    assert "\x1b" not in out
    assert max(map(len, out.splitlines()[1:])) <= width
    assert "not running on this machine; last seen at step 12" in out
    assert "step 12/40" in out
    assert "24 trained, 2 issued" in out or "2 issued, 24 trained" in out
    reward = next(line for line in out.splitlines() if line.startswith("reward"))
    assert reward.split()[:5] == ["reward", "0.60", "0.33", "0.05", "0.60"]
    assert reward.split()[5] == "▁▂▂▃▄▄▅▅▆▇▇█"
    by_age = [line.split() for line in out.splitlines()]
    assert ["now,", "stale", "3", "4"] in by_age
    assert ["ess", "94%", "85%"] in by_age
    assert ["mismatch", "2e-05", "4e-05"] in by_age
    held_out = [line.split() for line in out.splitlines() if "[" in line]
    assert held_out[0][:3] == ["heldout", "0", "41.7"]
    assert held_out[1][:2] == ["12", "75.0"]
    assert held_out[2][:4] == ["other", "set", "12", "25.0"]


def test_a_terminal_without_colour_gets_none(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    look = Watched(run).look()

    def drawn() -> str:
        console = Console(force_terminal=True, width=80, highlight=False, markup=False, color_system="standard")
        with console.capture() as capture:
            console.print(view(run, look, 80))
        return capture.get()

    monkeypatch.delenv("NO_COLOR", raising=False)
    colour = re.compile(r"\x1b\[([0-9]+;)*[349][0-9]")
    assert colour.search(drawn())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour.search(drawn())


def test_a_low_terminal_gets_the_first_readings(run: RunDir) -> None:
    def drawn(height: int) -> list[str]:
        console = Console(width=80, height=height, highlight=False, markup=False)
        with console.capture() as capture:
            console.print(fitted(console, run, Watched(run).look()))
        return capture.get().splitlines()

    whole, without_ages, low = drawn(50), drawn(25), drawn(20)
    assert len(whole) > 25
    assert any(line.startswith("now, stale") for line in whole)
    assert not any(line.startswith("now, stale") for line in without_ages)
    assert any(line.startswith("mismatch") for line in without_ages)
    assert len(low) == 20
    assert low[-1].startswith("groups ")
    assert any(line.startswith("reward") for line in low)
    assert not any(line.startswith("mismatch") for line in low)


def test_a_copy_looks_the_same_and_stays_as_it_is(look_at: LookAt, run: RunDir, tmp_path: Path) -> None:
    copy = RunDir(Path(shutil.copytree(run.root, tmp_path / "copy")))
    before = {path: path.stat().st_mtime_ns for path in copy.root.rglob("*")}
    out = look_at(copy, 80)
    assert {path: path.stat().st_mtime_ns for path in copy.root.rglob("*")} == before
    assert out.splitlines()[2:] == look_at(run, 80).splitlines()[2:]  # without the name, and how long ago


def test_what_a_replay_cannot_measure_is_left_out(look_at: LookAt, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    for step in (1, 2):
        run.log(**step_record(step, mismatch_kl=None, publish_s=None))
    lines = look_at(run, 80).splitlines()
    assert any(line.startswith("grad ") for line in lines)
    assert [line.split() for line in lines if line.startswith("mismatch")] == [["mismatch", "2e-05", "4e-05"]]


def test_a_run_that_has_just_begun_is_shown(look_at: LookAt, tmp_path: Path) -> None:
    out = look_at(new_run(tmp_path / "run"), 80)
    assert "step 0/200" in out
    assert "groups" not in out


def test_why_a_run_ended_is_said(look_at: LookAt, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", "--steps", "2")
    for step in (1, 2):
        run.log(**step_record(step))
    assert "ended: all 2 steps are made" in look_at(run, 80)


def test_the_last_evaluations_are_no_silence_to_worry_about(look_at: LookAt, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", "--steps", "2")
    for step in (1, 2):
        run.log(**step_record(step))
    longer = {"time": "2020-01-01T00:00:00+00:00"}
    run.log(**step_record(1) | longer)
    with run.locked():
        assert "! nothing for" in look_at(run, 80)
        run.log(**step_record(2) | longer)
        out = look_at(run, 80)
    assert "ending: all 2 steps are made; the last evaluations are made" in out
    assert "! nothing for" not in out


@pytest.mark.parametrize("line", ['{"kind": "eval", "step": 0, "summary": {}}', '{"kind": "step", "st'])
def test_records_that_cannot_be_read_are_told(look_at: LookAt, tmp_path: Path, line: str) -> None:
    run = new_run(tmp_path / "run")
    run.metrics_file.write_text(f"{line}\n")
    for read in (run.records, lambda: look_at(run, 80)):
        with pytest.raises(UsageError, match=r"metrics\.jsonl cannot be read") as told:
            read()
        assert "version of Tally" in told.value.fix


def test_a_resume_makes_the_steps_after_it_again(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    watched = Watched(run)
    for step in range(1, 6):
        run.log(**step_record(step))
    assert watched.look().step == 5
    run.log(**step_record(4, reward=0.9))
    look = watched.look()
    assert [(r["step"], r["reward"]) for r in look.steps] == [(1, 0.6), (2, 0.6), (3, 0.6), (4, 0.9)]


def test_a_line_that_is_still_being_written_is_read_later(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    run.log(**step_record(1))
    whole = run.metrics_file.read_bytes()
    run.metrics_file.write_bytes(whole[:-20])
    watched = Watched(run)
    assert watched.look().step == 0
    run.metrics_file.write_bytes(whole)
    assert watched.look().step == 1


def test_what_is_wrong_is_said_with_what_to_try(look_at: LookAt, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", "--max-tokens", "40")
    for step in range(1, 6):
        run.log(**step_record(step, truncated=0.5))
    (concern,) = [line for line in look_at(run, 300).splitlines() if line.startswith("! ")]
    assert concern.startswith(
        "! completions are cut off: 50% of the completions trained on lately end at the limit of 40 tokens; "
    )
    assert concern.endswith(": --max-tokens 80")


def test_a_sound_run_is_said_nothing_of(look_at: LookAt, run: RunDir) -> None:
    assert "! " not in look_at(run, 80)


def test_what_evaluations_show_is_seen_as_they_come(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    watched = Watched(run)
    run.log(**step_record(1))
    assert watched.look().evaluations == []
    shown = []
    for step, right in enumerate((2, 4, 1, 3)):
        log_evaluation(run, evaluation(step, {"1+1": right}))
        shown.append([result.step for result in watched.look().evaluations])
    assert shown == [[0], [0, 1], [0, 1, 2], [0, 1, 3]]  # the first, the best, the newest
    run.eval_file("heldout", 1).write_text("damaged")
    log_evaluation(run, evaluation(4, {"1+1": 3}))
    assert [result.step for result in watched.look().evaluations] == [0, 4]


def test_silence_is_a_concern_where_steps_are_quick() -> None:
    assert silence([step_record(1, step_s=1.0)], 29) is None
    assert silence([step_record(1, step_s=60.0)], 100) is None
    assert silence([], 100) is None
    assert str(silence([step_record(1, step_s=1.0)], 100)).startswith("nothing for 0:01:40")


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [([], 9, ""), ([1.0], 9, "▁"), ([2, 2, 2], 9, "▁▁▁"), ([1, 2, 3, 3], 2, "▁█"), ([0, 7, 0], 3, "▁█▁")],
)
def test_a_sparkline_is_the_means_of_equal_stretches(values: list[float], width: int, line: str) -> None:
    assert sparkline(values, width) == line


@pytest.mark.parametrize("label", [reading.label for reading in READINGS])
def test_what_the_step_line_shows_is_explained(label: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--explain", label.upper()])
    assert re.search(rf"\b{label}(_|\b)", capsys.readouterr().out)


def test_every_metric_is_explained() -> None:
    command = [sys.executable, "-m", "rl.watch", "--explain"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    explained = {line.split()[0] for line in out.splitlines()}
    assert {metric.name for metric in (*STEP, *AGE, *PUBLISH, *EVAL, *SUMMARY)} <= explained


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "which run?"), (["nowhere"], "is not a run"), (["--explain", "no such"], "no metric has 'no such'")],
)
def test_bad_input_is_told_without_a_traceback(arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "rl.watch", *arguments]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no config\.json"):
        Watched(RunDir(tmp_path))
