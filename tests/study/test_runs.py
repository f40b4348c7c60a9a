"""What is read of a run, and which runs are one arm."""

from pathlib import Path

import pytest

from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.study.runs import Status, arms_of, differences, read_run
from tests.observe.recorded import evaluation, log_evaluation, new_run, step_record


def recorded_run(root: Path, *flags: str, steps: int = 3) -> RunDir:
    """A run whose first and third versions are evaluated."""
    run = new_run(root, "--steps", "3", *flags)
    log_evaluation(run, evaluation(0, {"1+1": 1, "2+2": 2}))
    for step in range(1, steps + 1):
        run.log(**step_record(step, samples=4 * step, tokens=100, step_s=0.5))
    if steps >= 3:
        log_evaluation(run, evaluation(3, {"1+1": 3, "2+2": 4}))
    return run


def test_an_evaluation_knows_what_training_had_cost_until_then(tmp_path: Path) -> None:
    run = read_run(recorded_run(tmp_path / "a").root)
    before, after = run.evaluations["heldout"]
    assert (before.step, before.samples, before.tokens, before.seconds) == (0, 0, 0, 0.0)
    assert (after.step, after.samples, after.tokens, after.seconds) == (3, 12, 300, 1.5)
    assert run.curves["step_s"].measured == [(1, 0.5), (2, 0.5), (3, 0.5)]
    assert run.minutes == pytest.approx(1.5 / 60)
    assert (run.status, run.last_step) == (Status.DONE, 3)


def test_a_value_that_was_not_measured_is_none_and_not_zero(tmp_path: Path) -> None:
    run = new_run(tmp_path / "a", "--steps", "2")
    run.log(**step_record(1, mismatch_kl=1e-4))
    run.log(**step_record(2, mismatch_kl=None))
    curve = read_run(run.root).curves["mismatch_kl"]
    assert curve.values == [1e-4, None]
    assert curve.measured == [(1, 1e-4)]
    assert curve.last is None


def test_a_run_that_is_not_over_says_how_far_it_is(tmp_path: Path) -> None:
    run = read_run(recorded_run(tmp_path / "a", steps=2).root)
    assert run.status is Status.STOPPED
    assert "2 of 3 steps" in run.why
    assert [e.step for e in run.evaluations["heldout"]] == [0]


def test_a_run_that_its_own_rule_ended_is_done_and_says_why(tmp_path: Path) -> None:
    run = read_run(recorded_run(tmp_path / "a", "--token-budget", "150", steps=2).root)
    assert run.status is Status.DONE
    assert "200 completion tokens" in run.why


def test_runs_that_differ_in_their_seed_alone_are_one_arm(tmp_path: Path) -> None:
    flags = {"a": ("2e-6", "0"), "b": ("5e-4", "0"), "c": ("2e-6", "1")}
    runs = [read_run(recorded_run(tmp_path / n, "--lr", lr, "--seed", s).root, n) for n, (lr, s) in flags.items()]
    low, high = arms_of(runs)
    assert [run.name for run in low.runs] == ["a", "c"]
    assert (low.name, high.name) == ("lr 2e-6", "lr 0.0005")
    assert "seed" not in low.settings
    assert differences(runs) == {"lr": [2e-6, 5e-4, 2e-6]}
    assert arms_of(runs, {"b": "fast"})[1].name == "fast"


def test_who_follows_a_run_is_no_difference(tmp_path: Path) -> None:
    runs = [read_run(recorded_run(tmp_path / n, "--wandb-group", n).root) for n in ("a", "b")]
    assert len(arms_of(runs)) == 1
    assert differences(runs) == {}


def test_damaged_metrics_are_told_with_their_file(tmp_path: Path) -> None:
    run = recorded_run(tmp_path / "a")
    with run.metrics_file.open("a") as file:
        file.write('{"kind": "step", "step": 4, "reward"\n')
    with pytest.raises(UsageError, match=r"metrics\.jsonl"):
        read_run(run.root)


def test_a_step_without_its_time_is_told(tmp_path: Path) -> None:
    run = recorded_run(tmp_path / "a")
    run.log(kind="step", step=4, reward=0.5)
    with pytest.raises(UsageError, match="lacks what a step has"):
        read_run(run.root)
