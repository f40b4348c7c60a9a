"""What a sweep does about its runs, with runs that are made at once and real processes and signals."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rl import sweep as command
from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.study.runs import Status
from rl.study.sweepdir import SweepDir
from tests.commands import Command
from tests.sweep.conftest import steps_of

FAKE = "tests.sweep.fake_sweep"
SHORT = ["--steps", "6", "--eval-every", "2"]
Start = Callable[..., Command]


def plan_file(path: Path, rows: str, **settings: Any) -> Path:
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    path.write_text("\n".join([*lines, "[base]", "steps = 6", "eval_every = 2", rows]))
    return path


def statuses(root: Path) -> dict[str, Status]:
    return {entry.name: entry.status for entry in SweepDir(root).entries()}


def test_a_grid_to_its_report_and_nothing_is_made_twice(sweep: Start, tmp_path: Path) -> None:
    root = tmp_path / "s"
    command = ["--lr", "1e-4,1e-3,1e-2", *SHORT, "--refine", "1", "--out", str(root)]
    code, out, err = sweep(FAKE, *command).finish()
    assert (code, err) == (0, "")
    made = statuses(root)
    assert list(made)[:3] == ["lr0.0001-seed0", "lr0.001-seed0", "lr0.01-seed0"]
    finer = [name for name in made if name.startswith("finer1-")]
    assert finer == [f"finer1-lr{lr}-seed0" for lr in ("0.000215", "0.000464", "0.00215", "0.00464")]
    assert set(made.values()) == {Status.DONE}
    assert "phase finer1: 4 arms around lr0.001, pass@1 0.750" in out
    assert (root / "report" / "insights.json").exists()
    configs = {name: RunDir(root / "runs" / name).config() for name in made}
    assert {config.wandb_group for config in configs.values()} == {"starter-lr"}
    written = {path: path.stat().st_mtime_ns for path in root.glob("runs/**/*")}

    code, out, err = sweep(FAKE, *command).finish()
    assert (code, err) == (0, "")
    assert "starts" not in out
    assert {path: path.stat().st_mtime_ns for path in root.glob("runs/**/*")} == written


def test_runs_go_by_priority_and_never_more_than_asked_side_by_side(sweep: Start, tmp_path: Path) -> None:
    rows = "\n".join(
        f'[[run]]\nname = "{name}"\npriority = {priority}\nchanges = {{ lr = {lr} }}'
        for name, priority, lr in (("last", 3, 1e-2), ("first", 1, 1e-3), ("second", 2, 1e-4))
    )
    plan = plan_file(tmp_path / "plan.toml", rows, seeds=2, parallel=1)
    code, out, _ = sweep(FAKE, str(plan), "--out", str(tmp_path / "s")).finish()
    assert code == 0
    events = [line.split(":")[0] for line in out.splitlines() if line.endswith(": starts") or ": done after" in line]
    runs = ["first-seed0", "first-seed1", "second-seed0", "second-seed1", "last-seed0", "last-seed1"]
    assert events == [name for name in runs for _ in ("starts", "done")]


def test_runs_that_fail_diverge_or_die_do_not_stop_the_others(sweep: Start, tmp_path: Path) -> None:
    rows = "\n".join(
        f'[[run]]\nname = "{name}"\nchanges = {{ wandb_tags = "{name}", batch = {8 * i} }}'
        for i, name in enumerate(("fail", "diverge", "die", "well"), start=1)
    )
    plan = plan_file(tmp_path / "plan.toml", rows)
    root = tmp_path / "s"
    code, out, err = sweep(FAKE, str(plan), "--out", str(root)).finish()
    assert code == 3
    assert "1 of 4 runs failed: fail-seed0" in err
    assert "go on with: python -m rl.sweep" in err
    assert list(statuses(root).values()) == [Status.FAILED, Status.DIVERGED, Status.DONE, Status.DONE]
    failed, diverged, died, _ = SweepDir(root).entries()
    assert failed.why == "the disk is full; fix: make room"
    assert "not finite" in diverged.why
    assert "resumed" in (root / "logs" / "die-seed0.log").read_text()
    assert steps_of(died.path) == 6
    assert (root / "report" / "report.html").exists()

    before = (root / "logs" / "diverge-seed0.log").read_text()
    code, out, _ = sweep(FAKE, str(plan), "--out", str(root)).finish()  # what failed is tried again, and nothing else
    assert code == 3
    assert [line for line in out.splitlines() if "goes on" in line] == ["fail-seed0: goes on; 3 of 6 steps are made"]
    assert (root / "logs" / "diverge-seed0.log").read_text() == before


def waiting(tmp_path: Path) -> tuple[Path, Path, Path]:
    """(plan, sweep, the run that waits at step 3)"""
    rows = '[[run]]\nname = "a"\nchanges = { wandb_tags = "wait" }\n[[run]]\nname = "b"\nchanges = { lr = 1e-3 }'
    root = tmp_path / "s"
    return plan_file(tmp_path / "plan.toml", rows), root, root / "runs" / "a-seed0"


def at_step_3(run: Path) -> Callable[[], bool]:
    return lambda: (run / "metrics.jsonl").exists() and steps_of(run) == 3


def test_a_killed_sweep_leaves_no_process_and_goes_on(sweep: Start, tmp_path: Path) -> None:
    plan, root, run = waiting(tmp_path)
    killed = sweep(FAKE, str(plan), "--out", str(root))
    killed.wait_for(at_step_3(run), "step 3")
    killed.wait_for(lambda: statuses(root)["b-seed0"] is Status.DONE, "the end of b")
    killed.process.kill()
    killed.assert_nothing_left()
    assert statuses(root) == {"a-seed0": Status.RUNNING, "b-seed0": Status.DONE}
    broken_off = SweepDir(root).runs()[0]
    assert broken_off.status is Status.STOPPED
    assert "was killed" in broken_off.why

    (run / "go").touch()
    code, out, err = sweep(FAKE, str(plan), "--out", str(root)).finish()
    assert (code, err) == (0, "")
    assert "a-seed0: goes on; 3 of 6 steps are made" in out
    assert "b-seed0" not in out.partition("\n\n")[0]
    assert set(statuses(root).values()) == {Status.DONE}
    assert [r["step"] for r in RunDir(run).records() if r["kind"] == "step"] == [1, 2, 3, 4, 5, 6]


def test_a_run_whose_records_are_damaged_is_told_and_the_others_go_on(sweep: Start, tmp_path: Path) -> None:
    plan, root, run = waiting(tmp_path)
    killed = sweep(FAKE, str(plan), "--out", str(root))
    killed.wait_for(at_step_3(run), "step 3")
    killed.process.kill()
    killed.assert_nothing_left()
    (run / "metrics.jsonl").write_text("damaged\n")
    code, _, err = sweep(FAKE, str(plan), "--out", str(root)).finish()
    assert (code, statuses(root)) == (3, {"a-seed0": Status.FAILED, "b-seed0": Status.DONE})
    assert "1 of 2 runs failed: a-seed0" in err
    assert "metrics.jsonl cannot be read" in SweepDir(root).entries()[0].why
    assert (run / "metrics.jsonl").read_text() == "damaged\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_when_interrupted_the_runs_save_and_it_says_how_to_go_on(
    sweep: Start, tmp_path: Path, number: signal.Signals
) -> None:
    plan, root, run = waiting(tmp_path)
    stopped = sweep(FAKE, str(plan), "--out", str(root))
    stopped.wait_for(at_step_3(run), "step 3")
    stopped.process.send_signal(number)
    code, out, err = stopped.finish()
    assert (code, err) == (130, "")
    assert out.splitlines()[-1] == f"stopped. Go on with: python -m rl.sweep {plan} --out {root}"
    entry = SweepDir(root).entries()[0]
    assert (entry.status, entry.why) == (Status.PLANNED, "3 of 6 steps are made")


def test_a_run_whose_newest_record_is_damaged_is_ended_and_the_others_go_on(sweep: Start, tmp_path: Path) -> None:
    plan, root, run = waiting(tmp_path)
    started = sweep(FAKE, str(plan), "--out", str(root))
    started.wait_for(at_step_3(run), "step 3")
    with (run / "metrics.jsonl").open("a") as file:
        file.write("damaged\n")
    code, _, err = started.finish()
    assert (code, statuses(root)) == (3, {"a-seed0": Status.FAILED, "b-seed0": Status.DONE})
    assert "1 of 2 runs failed: a-seed0" in err
    assert "metrics.jsonl cannot be read" in SweepDir(root).entries()[0].why


def test_a_run_whose_records_are_damaged_at_its_end_has_failed(sweep: Start, tmp_path: Path) -> None:
    plan, root, run = waiting(tmp_path)
    started = sweep(FAKE, str(plan), "--out", str(root))
    started.wait_for(at_step_3(run), "step 3")
    with (run / "metrics.jsonl").open("r+") as file:  # what the sweep has read already
        file.write("x")
    (run / "go").touch()
    code, _, err = started.finish()
    assert (code, statuses(root)) == (3, {"a-seed0": Status.FAILED, "b-seed0": Status.DONE})
    assert "1 of 2 runs failed: a-seed0" in err


@pytest.mark.parametrize(("damaged", "waits"), [("a", Status.FAILED), ("b", Status.DONE)])
def test_an_evaluation_that_cannot_be_read_ends_its_own_run_alone(
    sweep: Start, tmp_path: Path, damaged: str, waits: Status
) -> None:
    """Both runs are compared with each other; a waits, and b is its rival."""
    plan, root, run = waiting(tmp_path)
    plan.write_text(f"stop_beaten = true\n{plan.read_text()}")
    started = sweep(FAKE, str(plan), "--out", str(root))
    started.wait_for(at_step_3(run), "step 3")
    started.wait_for(lambda: statuses(root)["b-seed0"] is Status.DONE, "the end of b")
    (root / "runs" / f"{damaged}-seed0" / "evals" / "step-000002.json").write_text("damaged")
    (run / "go").touch()
    code, _, _ = started.finish()
    assert (code, statuses(root)) == (3 if damaged == "a" else 0, {"a-seed0": waits, "b-seed0": Status.DONE})
    assert (root / "report" / "report.html").exists()


def test_a_sweep_that_cannot_be_written_to_is_told_and_not_reported_on(sweep: Start, tmp_path: Path) -> None:
    root = tmp_path / "s"
    assert sweep(FAKE, "--lr", "1e-3,1e-4", *SHORT, "--out", str(root)).finish()[0] == 0
    (root / "report").rename(tmp_path / "report")
    (root / "logs").rename(tmp_path / "logs")
    (root / "logs").touch()
    with pytest.raises(UsageError, match="cannot write the sweep"):
        command.main(["--lr", "1e-3,1e-4", *SHORT, "--out", str(root)])
    assert not (root / "report").exists()


def test_a_sweep_in_progress_is_not_entered_twice(sweep: Start, tmp_path: Path) -> None:
    plan, root, run = waiting(tmp_path)
    first = sweep(FAKE, str(plan), "--out", str(root))
    first.wait_for(at_step_3(run), "step 3")
    code, _, err = sweep(FAKE, str(plan), "--out", str(root)).finish()
    assert code == 2
    assert "is in progress" in err
    assert first.process.poll() is None


def test_a_beaten_run_is_ended_halfway_and_keeps_its_evaluations(sweep: Start, tmp_path: Path) -> None:
    bad = 'name = "bad"\nchanges = { lr = 1e-5, wandb_tags = "until beaten" }'
    rows = f'[[run]]\nname = "good"\nchanges = {{ lr = 1e-3 }}\n[[run]]\n{bad}'
    plan = plan_file(tmp_path / "plan.toml", rows, stop_beaten=True)
    root = tmp_path / "s"
    started = sweep(FAKE, str(plan), "--out", str(root), "--steps", "40")
    started.wait_for(lambda: SweepDir.is_sweep(root) and statuses(root)["good-seed0"] is Status.DONE, "the good run")
    (root / "runs" / "bad-seed0" / "go").touch()
    code, _, err = started.finish()
    assert (code, err) == (0, "")
    entry = SweepDir(root).entries()[1]
    assert entry.status is Status.BEATEN
    assert entry.why.startswith("beaten by good-seed0: held-out pass@1 is -0.")
    assert "corrected for 20 tests" in entry.why
    read = SweepDir(root).runs()[1]
    assert len(read.evaluations["heldout"]) > 2
    assert read.why == entry.why


def test_a_seed_is_not_beaten_by_a_better_one_of_its_arm(sweep: Start, tmp_path: Path) -> None:
    """The other arm is the clock: its run is over only after the sweep has looked at the weak one."""
    rows = '[[run]]\nname = "a"\nchanges = { wandb_tags = "weak", lr = 1e-3, steps = 4, eval_every = 1 }\n'
    rows += '[[run]]\nname = "b"\npriority = 2\nchanges = { wandb_tags = "wait", batch = 64 }'
    root = tmp_path / "s"
    plan = plan_file(tmp_path / "plan.toml", rows, seeds=2, stop_beaten=True)
    started = sweep(FAKE, str(plan), "--out", str(root))
    started.wait_for(lambda: SweepDir.is_sweep(root) and statuses(root)["a-seed0"] is Status.DONE, "the better seed")
    runs = root / "runs"
    started.wait_for(at_step_3(runs / "a-seed1"), "step 3 of the weak one")
    for name in ("b-seed0", "b-seed1"):
        started.wait_for(at_step_3(runs / name), f"step 3 of {name}")
        (runs / name / "go").touch()
        started.wait_for(lambda name=name: statuses(root)[name] is Status.DONE, f"the end of {name}")  # type: ignore[misc]
    (runs / "a-seed1" / "go").touch()
    code, _, err = started.finish()
    assert (code, err) == (0, "")
    assert set(statuses(root).values()) == {Status.DONE}
