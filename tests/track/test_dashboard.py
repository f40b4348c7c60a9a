"""What W&B is to show of a study: as a file without a network, and at a server where there is one."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rl.core.metrics import STEP
from rl.core.rundir import RunDir
from rl.track.content import scalars
from tests.observe.recorded import evaluation, log_evaluation, new_run, step_record
from tests.track.synced import LIMIT_S, environment
from tests.track.wandb_server import Cloud, cloud

KEY = "0123456789abcdef" * 2 + "01234567"
FLAGS = ("--steps", "2", "--eval-samples", "4", "--eval-on", "gsm8k@test", "--wandb-group", "rates")


@pytest.fixture
def runs(tmp_path: Path) -> list[RunDir]:
    """Two rates of one W&B group."""
    made = [new_run(tmp_path / lr, *FLAGS, "--lr", lr) for lr in ("1e-4", "1e-3")]
    for run in made:
        for step in (0, 2):
            log_evaluation(run, evaluation(step, {"3+4": 1 + step, "1+6": 1}))
            log_evaluation(run, evaluation(step, {"2+5": 1}, set="gsm8k@test"))
        for step in (1, 2):
            run.log(**step_record(step))
    return made


def dashboard(runs: list[RunDir], out: Path, *, code: int = 0, **env: str) -> str:
    """What the command says, with this exit code and without a traceback."""
    command = [sys.executable, "-m", "rl.dashboard", *(str(run.root) for run in runs), "--out", str(out)]
    answer = subprocess.run(
        command, env=environment(runs[0], **env), capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert answer.returncode == code, answer.stderr
    assert "Traceback" not in answer.stderr
    return answer.stderr if code else answer.stdout


def drawn(layout: dict[str, Any]) -> Iterator[str]:
    for section in layout["sections"]:
        for panel in section["panels"]:
            yield from panel["metrics"]


def test_offline_the_layout_is_a_file_and_every_panel_has_its_metric(runs: list[RunDir], tmp_path: Path) -> None:
    out = tmp_path / "layout.json"
    said = dashboard(runs, out, WANDB_MODE="offline")
    assert f"the layout is {out}; it is not at W&B (offline, as asked for)" in said
    layout = json.loads(out.read_text())
    assert (layout["project"], layout["group"], layout["compared_by"]) == ("tally", "rates", ["lr"])
    names = [section["name"] for section in layout["sections"]]
    assert names == [
        *("Held-out pass@k", "pass@k on gsm8k@test", "Progress", "Training", "Sampler", "Time", "Age", "Tables")
    ]
    logged = {name for run in runs for record in run.records() for name in scalars(record)}
    not_here = {f"{metric.section}/{metric.name}" for metric in STEP} - logged
    assert {name for name in drawn(layout) if name not in not_here} <= logged
    assert {"eval/heldout/pass@1", "eval/heldout/pass@1/low", "eval/gsm8k@test/maj@4/high"} <= set(drawn(layout))
    assert layout["answer"]
    assert "No data" not in layout["claims"]
    assert layout["claims"]["What is not shown"]


def test_runs_that_do_not_log_to_wandb_are_told(runs: list[RunDir], tmp_path: Path) -> None:
    own = new_run(tmp_path / "own", "--wandb", "off")
    log_evaluation(own, evaluation(0, {"3+4": 1}))
    assert "not at W&B (its runs have --wandb off)" in dashboard([own], tmp_path / "layout.json")


def test_an_unwritable_file_is_told(runs: list[RunDir], tmp_path: Path) -> None:
    said = dashboard(runs, tmp_path / "none" / "layout.json", code=2)
    assert "cannot write" in said
    assert "fix: " in said


@pytest.fixture
def server() -> Iterator[Cloud]:
    pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed")
    with cloud() as server:
        yield server


def test_online_it_is_a_workspace_and_a_report_of_these_runs(runs: list[RunDir], tmp_path: Path, server: Cloud) -> None:
    said = dashboard(runs, tmp_path / "layout.json", WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
    workspace, report, _ = said.splitlines()
    assert workspace.startswith(f"workspace: {server.url}/me/tally?nw=")
    assert report.startswith(f"report: {server.url}/me/tally/reports/")
    assert server.views.keys() == {"project-view", "runs"}
    section = server.views["project-view"]["section"]
    layout = json.loads((tmp_path / "layout.json").read_text())
    saved = section["panelBankConfig"]["sections"]
    assert [own["name"] for own in saved] == [own["name"] for own in layout["sections"]]
    metrics = {name for own in saved for panel in own["panels"] for name in panel["config"].get("metrics", [])}
    assert metrics == set(drawn(layout))
    told = json.dumps(server.views["runs"], ensure_ascii=False)
    assert layout["answer"] in told
    assert all(text in told for texts in layout["claims"].values() for text in texts)
    for view in (section, server.views["runs"]):
        assert '"rates"' in json.dumps(view), "only runs of the group"
        assert all(f'"{run.root.name}"' in json.dumps(view) for run in runs), "and of these only those that are named"


def test_a_server_that_refuses_is_told_and_the_layout_is_kept(runs: list[RunDir], tmp_path: Path) -> None:
    pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed")
    out = tmp_path / "layout.json"
    with cloud(refuses="graphql") as server:
        said = dashboard(runs, out, code=3, WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
    assert "W&B does not take the dashboard" in said
    assert json.loads(out.read_text())["group"] == "rates"
