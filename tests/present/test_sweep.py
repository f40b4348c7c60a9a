"""The report of a sweep knows the plan: names, priorities, reasons, criteria, and what was never started."""

from pathlib import Path

import pytest

from rl.core.errors import UsageError
from rl.present.report import write_report
from rl.present.study import read_study
from rl.study.plan import Plan
from rl.study.runs import Status
from rl.study.sweepdir import Entry, SweepDir
from tests.present.studies import recorded_run

CRITERIA = ["pass@1 >= 0.60", "grad_norm stays < 100", "no non-finite loss"]


@pytest.fixture
def sweep(tmp_path: Path) -> SweepDir:
    """Two arms with one run each; the second was not started."""
    sweep = SweepDir(tmp_path / "buffers")
    rows = [{"name": "small", "changes": {"buffer": 16}}, {"name": "large", "changes": {"buffer": 32}}]
    base = {"batch": 16, "group_size": 2, "steps": 40, "eval_every": 10, "eval_samples": 4}
    plan = Plan.model_validate({"name": "buffers", "reason": "Does a larger buffer help?", "base": base, "run": rows})
    entries = [
        Entry(
            name=f"{arm}-seed0",
            arm=arm,
            seed=0,
            path=sweep.run_path(f"{arm}-seed0"),
            priority=priority,
            reason=f"the {arm} one",
            criteria=CRITERIA,
            settings=base | {"buffer": buffer},
            status=status,
        )
        for arm, buffer, priority, status in (("small", 16, 2, Status.DONE), ("large", 32, 1, Status.PLANNED))
    ]
    sweep.write(plan, entries)
    recorded_run(sweep.run_path("small-seed0"), gain=2.5)
    return sweep


def test_it_shows_the_plan_and_judges_its_criteria(sweep: SweepDir) -> None:
    text = write_report(read_study([sweep.root]), sweep.report).with_name("report.md").read_text()
    assert text.startswith("# Report: buffers\n")
    assert "Does a larger buffer help?" in text
    assert "| small-seed0 | small | done | 40 | 2 |  | 2 | the small one |" in text
    assert "| large-seed0 | large | planned | no data | no data |  | 1 | the large one |" in text
    judged = [
        row.split(" | ")
        for row in text.partition("## Success criteria")[2].partition("##")[0].splitlines()
        if row.startswith("| ")
    ]
    outcomes = {(arm.strip("| "), criterion.replace("\\", "")): outcome for arm, criterion, outcome, *_ in judged[2:]}
    assert outcomes == {("small", criterion): "met" for criterion in CRITERIA} | {
        ("large", criterion): "not measured" for criterion in CRITERIA
    }


def test_two_sweeps_keep_their_runs_apart(sweep: SweepDir) -> None:
    other = SweepDir(sweep.root.with_name("again"))
    entries = [entry.model_copy(update={"path": other.run_path(entry.name)}) for entry in sweep.entries()]
    other.write(sweep.plan(), entries)
    study = read_study([sweep.root, other.root])
    names = {f"{root}/{arm}-seed0" for root in ("buffers", "again") for arm in ("small", "large")}
    assert {run.name for run in study.runs} == names
    assert study.title == "buffers and again"


def test_a_sweep_without_a_run_is_told(tmp_path: Path) -> None:
    empty = SweepDir(tmp_path / "empty")
    empty.write(Plan.model_validate({"name": "empty", "run": [{"name": "a"}]}), [])
    with pytest.raises(UsageError, match="has no run"):
        read_study([empty.root])
