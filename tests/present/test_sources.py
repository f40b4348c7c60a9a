"""What a report is asked for: sources that are named twice, sweeps side by side, another set, metric or base."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from rl import report as command
from rl.core.errors import UsageError
from rl.present.report import write_report
from rl.present.study import read_study
from rl.present.terminal import what_next
from rl.study.insights import Kind
from rl.study.plan import Plan
from rl.study.runs import Status
from rl.study.sweepdir import Entry, SweepDir
from tests.present.studies import EVERY, SAMPLES, STEPS, recorded_run

BASE = {"batch": 16, "group_size": 2, "steps": STEPS, "eval_every": EVERY, "eval_samples": SAMPLES}


def planned(root: Path, arm: str, *, criteria: list[str] | None = None, **changes: object) -> SweepDir:
    """A sweep of one arm with one run, which is done."""
    sweep = SweepDir(root)
    plan = Plan.model_validate({"name": root.name, "base": BASE, "run": [{"name": arm, "changes": changes}]})
    path = sweep.run_path(f"{arm}-seed0")
    entry = Entry(name=path.name, arm=arm, seed=0, path=path, criteria=criteria or [], settings=BASE | changes)
    sweep.write(plan, [entry.model_copy(update={"status": Status.DONE})])
    recorded_run(path, *(part for name, value in changes.items() for part in (f"--{name}", str(value))))
    return sweep


def test_a_run_that_is_named_twice_is_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = recorded_run(tmp_path / "run").root
    (tmp_path / "link").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    for again in (run, Path("run"), run / ".." / "run", tmp_path / "link"):
        study = read_study([run, again])
        assert len(study.runs) == 1
        assert any(i.kind is Kind.CAUTION and i.data.get("seeds") == 1 for i in study.insights), "one seed is one"


def test_sources_keep_their_order(tmp_path: Path) -> None:
    one, other = (recorded_run(tmp_path / lr, "--lr", lr).root for lr in ("1e-4", "1e-3"))
    assert read_study([other, one, other]).sources == [other, one]


@pytest.mark.parametrize("run_first", [True, False])
def test_a_run_beside_its_own_sweep_is_one_run_as_the_sweep_tells_of_it(tmp_path: Path, run_first: bool) -> None:
    sweep = planned(tmp_path / "sweep", "small", lr="1e-4")
    sources = [sweep.run_path("small-seed0"), sweep.root]
    study = read_study(sources if run_first else sources[::-1])
    assert [run.name for run in study.runs] == ["sweep/small-seed0"]
    assert study.runs[0].status is Status.DONE


def test_two_sweeps_keep_their_criteria(tmp_path: Path) -> None:
    one = planned(tmp_path / "one", "small", criteria=["no non-finite loss"], lr="1e-4")
    other = planned(tmp_path / "other", "small", criteria=["pass@1 >= 0.99"], lr="1e-3")
    judged = [i for i in read_study([one.root, other.root]).insights if i.kind is Kind.CRITERION]
    assert sorted(i.data["criterion"] for i in judged) == ["no non-finite loss", "pass@1 >= 0.99"]


def test_the_command_that_made_the_report_makes_it_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [recorded_run(tmp_path / f"lr {lr}", "--lr", lr).root for lr in ("1e-4", "1e-3")]
    folder = tmp_path / "out put"
    given = [*map(str, runs), "--metric", f"maj@{SAMPLES}", "--base", "lr 0.001", "--out", str(folder)]
    command.main(given)
    text = (folder / "report.md").read_text()
    made = text.partition("This report is made by: ")[2].splitlines()[0].replace("\\", "")
    again = shlex.split(made)
    assert again[:3] == ["python", "-m", "rl.report"]
    assert sorted(again[3:]) == sorted(given)
    shutil.rmtree(folder)
    command.main(again[3:])
    assert (folder / "report.md").read_text() == text
    assert "the report is" in capsys.readouterr().out


def test_arms_are_compared_on_the_set_and_by_the_metric_that_are_asked_for(tmp_path: Path) -> None:
    runs = [recorded_run(tmp_path / lr, "--lr", lr).root for lr in ("1e-4", "1e-3")]
    write_report(read_study(runs, metric=f"pass@{SAMPLES}"), tmp_path / "out")
    claims = json.loads((tmp_path / "out" / "insights.json").read_text())
    assert {claim["data"]["metric"] for claim in claims if claim["kind"] == "best"} == {f"pass@{SAMPLES}"}
    assert f"| pass@{SAMPLES} before | after | gain |" in (tmp_path / "out" / "report.md").read_text()
    with pytest.raises(UsageError, match="no run has an evaluation on 'gsm8k'") as caught:
        read_study(runs, set="gsm8k")
    assert caught.value.fix == "name one of: heldout"
    with pytest.raises(UsageError, match="no arm 'lr 1' to compare with"):
        read_study(runs, base="lr 1")


@pytest.mark.parametrize("recorded", ['{"a": 1}', '[{"git_commit": "abc"}]', '["x"]', "7"])
def test_a_record_of_launches_that_is_none_is_no_data(tmp_path: Path, recorded: str) -> None:
    run = recorded_run(tmp_path / "run")
    run.provenance_file.write_text(recorded)
    text = write_report(read_study([run.root]), tmp_path / "out").with_name("report.md").read_text()
    assert text.splitlines()[-1].endswith("| no data |")


def test_a_chosen_run_of_another_tool_has_no_command(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    rows = [f"{arm},{seed},{rate},{value}" for arm, rate, value in (("a", 0.1, 0.9), ("b", 0.2, 0.1)) for seed in "012"]
    table.write_text("\n".join(["name,seed,lr,accuracy", *(f"{r}{i}" for i, r in enumerate(rows))]))
    study = read_study([table])
    assert any(i.kind is Kind.DEPLOY and i.data["choice"] for i in study.insights)
    assert what_next(study) == ""
