"""What a sweep makes and in which order, and what it refuses to make anew."""

import json
from pathlib import Path
from typing import Any

import pytest

from rl.core import cli
from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.study.plan import Phase, Plan, PlannedRun
from rl.study.runs import Status
from rl.study.schedule import arms_entries, check_directory, config_of, in_order, scheduled
from rl.study.sweepdir import Entry, SweepDir


def plan(*rates: float, **settings: Any) -> Plan:
    return Plan(name="p", base={"steps": 6}, grid={"lr": list(rates)}, **settings)


def begun(root: Path, made: Plan, **status: Status) -> SweepDir:
    """A sweep of this plan, some of whose runs are over."""
    sweep = SweepDir(root)
    entries = scheduled(sweep, made)
    named = {name.replace("_", "-").replace("-", ".", 1): own for name, own in status.items()}
    sweep.write(made, [e.model_copy(update={"status": named.get(e.name, e.status), "why": "so"}) for e in entries])
    return sweep


def names(entries: list[Entry]) -> list[str]:
    return [entry.name for entry in entries]


def test_every_arm_has_each_seed_and_each_arm_its_first_seed_early(tmp_path: Path) -> None:
    rows = [PlannedRun(name="b", priority=2, changes={"lr": 1e-2}), PlannedRun(name="a", priority=1)]
    made = Plan(name="p", seeds=2, grid={"lr": [1e-3, 1e-4]}, runs=rows)
    entries = scheduled(SweepDir(tmp_path / "s"), made)
    grid = ["lr0.001-seed0", "lr0.0001-seed0", "a-seed0", "lr0.001-seed1", "lr0.0001-seed1", "a-seed1"]
    assert names(in_order(entries)) == [*grid, "b-seed0", "b-seed1"]
    assert [config_of(entry).seed for entry in entries] == [0, 1] * 4


def test_more_arms_seeds_and_phases_are_added_and_what_is_over_stays(tmp_path: Path) -> None:
    sweep = begun(tmp_path / "s", plan(0.1, 0.2), lr0_1_seed0=Status.DONE)
    wider = plan(0.1, 0.2, 0.3, seeds=2, phases=[Phase(name="f")])
    entries = {entry.name: entry for entry in scheduled(sweep, wider)}
    assert list(entries) == [f"lr{lr}-seed{seed}" for lr in (0.1, 0.2, 0.3) for seed in (0, 1)]
    assert entries["lr0.1-seed0"].status is Status.DONE
    assert entries["lr0.1-seed0"].why == "so"
    assert [name for name, entry in entries.items() if entry.over] == ["lr0.1-seed0"]


def test_a_row_that_has_changed_is_refused_with_what_differs(tmp_path: Path) -> None:
    sweep = begun(tmp_path / "s", plan(0.1, 0.2))
    changed = Plan(name="p", base={"steps": 7}, grid={"lr": [0.1, 0.2]})
    with pytest.raises(UsageError, match=r"lr0\.1-seed0 of .*s has other settings: steps 6, here 7") as refused:
        scheduled(sweep, changed)
    assert "another --out" in refused.value.fix


def test_settings_that_only_follow_a_run_may_change(tmp_path: Path) -> None:
    sweep = begun(tmp_path / "s", plan(0.1))
    followed = Plan(name="p", base={"steps": 6, "wandb_tags": "x", "wandb": "off"}, grid={"lr": [0.1]})
    assert names(scheduled(sweep, followed)) == ["lr0.1-seed0"]


def test_another_plan_is_refused(tmp_path: Path) -> None:
    sweep = begun(tmp_path / "s", plan(0.1, 0.2))
    with pytest.raises(UsageError, match=r"the sweep of another plan: it has the run lr0\.2") as refused:
        scheduled(sweep, plan(0.1))
    assert "--out" in refused.value.fix


def test_a_phase_that_has_begun_keeps_its_runs_and_its_definition(tmp_path: Path) -> None:
    made = plan(0.1, phases=[Phase(name="f", points=3)])
    sweep = begun(tmp_path / "s", made)
    chosen = arms_entries(
        sweep, made, [PlannedRun(name="f-lr0.2", changes={"steps": 6, "lr": 0.2})], phase="f", base={}
    )
    sweep.write_entries([*scheduled(sweep, made), *chosen])
    again = plan(0.1, seeds=2, phases=[Phase(name="f", points=3, reason="said later")])
    entries = scheduled(sweep, again)
    assert names(entries) == ["lr0.1-seed0", "lr0.1-seed1", "f-lr0.2-seed0", "f-lr0.2-seed1"]
    assert [entry.phase for entry in entries] == ["", "", "f", "f"]
    with pytest.raises(UsageError, match=r"the phase f of .* has begun and cannot be changed"):
        scheduled(sweep, plan(0.1, phases=[Phase(name="f", points=4)]))


def test_seeds_that_the_plan_has_no_more_stay_in_their_phase(tmp_path: Path) -> None:
    """The newest phase is the last: the next one is chosen around its best."""
    made = plan(0.1, seeds=2, phases=[Phase(name="f")])
    sweep = begun(tmp_path / "s", made)
    rows = [PlannedRun(name="f-lr0.2", changes={"steps": 6, "lr": 0.2})]
    sweep.write_entries([*scheduled(sweep, made), *arms_entries(sweep, made, rows, phase="f", base={})])
    sweep.run_path("lr0.1-seed1").mkdir(parents=True)
    fewer = plan(0.1, phases=[Phase(name="f")])
    assert names(scheduled(sweep, fewer)) == ["lr0.1-seed0", "lr0.1-seed1", "f-lr0.2-seed0"]


def test_a_sweep_that_was_killed_before_its_first_run_is_begun_again(tmp_path: Path) -> None:
    sweep = SweepDir(tmp_path / "s")
    with sweep.locked():
        sweep.write(plan(0.1, 0.2), scheduled(sweep, plan(0.1, 0.2)))
    sweep.file.unlink()
    assert names(scheduled(sweep, plan(0.3))) == ["lr0.3-seed0"]
    sweep.run_path("lr0.1-seed0").mkdir()
    with pytest.raises(UsageError, match="exists and is no sweep"):
        scheduled(sweep, plan(0.3))


def run_in(entry: Entry, **settings: Any) -> None:
    values = {**entry.settings, "seed": entry.seed, **settings}
    RunDir(entry.path).create(cli.completed(values, dict.fromkeys(values, "flag")))


def test_a_directory_that_was_made_with_other_settings_is_refused(tmp_path: Path) -> None:
    entry = scheduled(SweepDir(tmp_path / "s"), plan(0.1))[0]
    check_directory(entry)
    run_in(entry, lora_rank=8, wandb="off")
    with pytest.raises(UsageError, match=r"lr0\.1-seed0 was made with other settings: lora_rank 8, here 16$"):
        check_directory(entry)


def test_a_directory_of_the_same_settings_is_taken_on(tmp_path: Path) -> None:
    entry = scheduled(SweepDir(tmp_path / "s"), plan(0.1))[0]
    run_in(entry, wandb_group="p", keep=2)
    check_directory(entry)


@pytest.mark.parametrize("content", ["", "[]", '{"runs": [{"name": "a"}]}', '{"runs": 3}', '{"runs": [3]}', "{}"])
def test_a_damaged_sweep_is_told_and_left_alone(tmp_path: Path, content: str) -> None:
    sweep = begun(tmp_path / "s", plan(0.1))
    sweep.file.write_text(content)
    with pytest.raises(UsageError, match=r"sweep\.json cannot be read"):
        sweep.entries()
    assert sweep.file.read_text() == content


def test_no_sweep(tmp_path: Path) -> None:
    assert not SweepDir.is_sweep(tmp_path)
    with pytest.raises(UsageError, match="is not a sweep"):
        SweepDir(tmp_path).entries()


def test_runs_that_were_not_started_and_runs_that_cannot_be_read_are_known(tmp_path: Path) -> None:
    sweep = begun(tmp_path / "s", plan(0.1, 0.2))
    run_in(sweep.entries()[1])
    RunDir(sweep.entries()[1].path).metrics_file.write_text("broken\n")
    planned, damaged = sweep.runs()
    assert (planned.status, planned.settings["lr"], planned.curves) == (Status.PLANNED, 0.1, {})
    assert "metrics.jsonl cannot be read" in damaged.why
    assert json.loads(sweep.file.read_text())["runs"][1]["status"] == "planned"
