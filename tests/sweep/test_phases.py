"""Phases that a sweep chooses by itself: when, around what, and what they may not touch."""

from pathlib import Path
from typing import Any

from rl.core import cli
from rl.core.rundir import RunDir
from rl.study.runs import Status
from rl.study.sweepdir import SweepDir
from tests.sweep.test_campaign import FAKE, SHORT, Start, plan_file, statuses

RATES = ["--lr", "1e-4,1e-3,1e-2", *SHORT]


def rows(**changes: str) -> str:
    """An arm each, of this name and with these changes, and then a phase."""
    arms = [f'[[run]]\nname = "{name}"\nchanges = {{ {own} }}' for name, own in changes.items()]
    return "\n".join([*arms, '[[phase]]\nname = "finer"\npoints = 2'])


def test_a_phase_waits_for_runs_that_have_failed(sweep: Start, tmp_path: Path) -> None:
    text = rows(best='lr = 1e-3, wandb_tags = "fail"', worse="lr = 1e-4", worst="lr = 1e-5")
    text += '\nchanges = { wandb_tags = "" }'
    plan, root = plan_file(tmp_path / "plan.toml", text), tmp_path / "s"
    code, out, err = sweep(FAKE, str(plan), "--out", str(root)).finish()
    assert code == 3
    assert "phase finer waits for best-seed0 (failed: the disk is full; fix: make room)" in out
    assert f"go on with: python -m rl.sweep {plan} --out {root}" in err
    assert list(statuses(root)) == ["best-seed0", "worse-seed0", "worst-seed0"]
    assert (root / "report" / "report.html").exists()

    (root / "runs" / "best-seed0" / "go").touch()
    code, out, err = sweep(FAKE, str(plan), "--out", str(root)).finish()
    assert (code, err) == (0, "")
    assert "phase finer: 2 arms around best, pass@1 0.750" in out
    assert set(statuses(root).values()) == {Status.DONE}


def test_an_arm_that_diverged_is_left_out_of_the_choice_and_named(sweep: Start, tmp_path: Path) -> None:
    text = rows(wild='lr = 1e-3, wandb_tags = "diverge"', worse="lr = 1e-4", worst="lr = 1e-5")
    plan = plan_file(tmp_path / "plan.toml", text)
    code, out, err = sweep(FAKE, str(plan), "--out", str(tmp_path / "s")).finish()
    assert (code, err) == (0, "")
    assert "phase finer: 2 arms around worse, pass@1 0.625; left out: wild (diverged)" in out


def test_values_beyond_the_range_of_a_setting_are_left_out_and_named(sweep: Start, tmp_path: Path) -> None:
    schedule = 'schedule = "linear", lr_floor'
    text = rows(low=f"{schedule} = 0.1, lr = 1e-5", mid=f"{schedule} = 0.9") + '\nrefine = "lr_floor"\nspan = 2'
    plan, root = plan_file(tmp_path / "plan.toml", text), tmp_path / "s"
    code, out, err = sweep(FAKE, str(plan), "--out", str(root)).finish()
    assert (code, err) == (0, "")
    assert "phase finer: 1 arms around mid" in out
    assert "left out: finer-lr-floor1.8 (--lr-floor 1.8 (plan): Input should be less than or equal to 1)" in out
    assert list(statuses(root)) == ["low-seed0", "mid-seed0", "finer-lr-floor0.45-seed0"]


def test_a_phase_never_takes_the_place_of_a_run(sweep: Start, tmp_path: Path) -> None:
    text = rows(low="lr = 1e-4", best="lr = 1e-3", high="lr = 1e-2").replace("points = 2", "points = 3")
    text = text.replace('"high"', '"finer-lr0.000316"')
    plan, root = plan_file(tmp_path / "plan.toml", text), tmp_path / "s"
    code, _, err = sweep(FAKE, str(plan), "--out", str(root)).finish()
    assert code == 2
    assert "phase finer: the sweep has another run finer-lr0.000316-seed0" in err
    assert statuses(root) == dict.fromkeys(("low-seed0", "best-seed0", "finer-lr0.000316-seed0"), Status.DONE)
    assert SweepDir(root).entries()[2].settings["lr"] == 1e-2
    assert (root / "report" / "report.html").exists()


def test_a_phase_never_goes_on_with_a_directory_of_other_settings(sweep: Start, tmp_path: Path) -> None:
    root = tmp_path / "s"
    assert sweep(FAKE, *RATES, "--out", str(root)).finish()[0] == 0
    values: dict[str, Any] = {"lr": 0.5, "steps": 6, "eval_every": 2}
    other = RunDir(root / "runs" / "finer1-lr0.000464-seed0")
    other.create(cli.completed(values, dict.fromkeys(values, "flag")))
    code, _, err = sweep(FAKE, *RATES, "--refine", "1", "--out", str(root)).finish()
    assert code == 2
    assert "finer1-lr0.000464-seed0 was made with other settings: lr 0.5, here 0.000464" in err
    assert len(statuses(root)) == 3
    assert not other.metrics_file.exists()


def test_the_server_has_room_for_the_runs_of_later_phases(sweep: Start, tmp_path: Path) -> None:
    root = tmp_path / "s"
    code, out, _ = sweep(FAKE, "--lr", "1e-4", *SHORT, "--refine", "1", "--parallel", "3", "--out", str(root)).finish()
    assert code == 0
    assert "phase finer1: 4 arms around" in out
    assert SweepDir(root).logs.joinpath("server-0.log").read_text().startswith("for 3 policies")
