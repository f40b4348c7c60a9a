"""A report says what its runs hold: what is better and by how much, what is not known, and where it comes from."""

import csv
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.present.report import write_report
from rl.present.study import read_study
from tests.observe.recorded import new_run, step_record
from tests.present.studies import recorded_run

FILES = {"report.html", "report.md", "insights.json", "runs.csv", "evaluations.csv", "curves.csv"}


def report(*sources: Path, out: Path) -> str:
    """The Markdown of the sources' report."""
    write_report(read_study(list(sources)), out)
    return (out / "report.md").read_text()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def rates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rates with two seeds; 1e-4 gains most."""
    root = tmp_path_factory.mktemp("rates")
    for lr, gain in (("1e-5", 0.0), ("1e-4", 2.5), ("1e-3", 0.5)):
        for seed in "01":
            recorded_run(root / f"lr{lr}-seed{seed}", "--lr", lr, "--seed", seed, gain=gain)
    return root


@pytest.fixture(scope="module")
def reported(rates: Path) -> Path:
    """The folder of their report."""
    report(*sorted(rates.iterdir()), out=rates.with_name("report"))
    return rates.with_name("report")


def test_it_begins_with_the_answer_and_has_every_part_in_order(reported: Path) -> None:
    text = (reported / "report.md").read_text()
    answer = text.splitlines()[2]
    assert answer.startswith("**Deploy lr1e-4-seed")
    assert "lr 1e-4 is shown to be better" in answer.replace("0.0001", "1e-4")
    headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        *("What the evidence says", "What to keep in mind", "Configuration", "Runs", "Pass rate at each checkpoint"),
        *("Training curves", "Results, and what they cost", "Learning rate", "Completions"),
        "Provenance",
    ]


def test_every_file_is_written_and_every_picture_that_is_named(reported: Path) -> None:
    names = {path.name for path in reported.iterdir()}
    pictures = {"pass-rate-heldout.png", "curves.png", "results.png", "learning-rate.png"}
    assert names == FILES | pictures
    text = (reported / "report.md").read_text()
    assert all(f"]({name})" in text for name in pictures)
    assert (reported / "pass-rate-heldout.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_claimed_is_data_and_is_in_the_page(reported: Path) -> None:
    claims = json.loads((reported / "insights.json").read_text())
    assert {"deploy", "best", "better", "sensitivity", "correlation"} <= {claim["kind"] for claim in claims}
    text = (reported / "report.md").read_text()
    better = [claim["text"] for claim in claims if claim["kind"] == "better"]
    assert better
    assert all(claim in text for claim in better)


def test_the_csv_files_hold_the_runs_their_evaluations_and_their_steps(reported: Path, rates: Path) -> None:
    runs = rows(reported / "runs.csv")
    assert sorted(run["run"] for run in runs) == sorted(path.name for path in rates.iterdir())
    assert [run["lr"] for run in runs] == ["1e-05", "1e-05", "0.0001", "0.0001", "0.001", "0.001"]
    first = {row["step"]: row for row in rows(reported / "evaluations.csv") if row["metric"] == "pass@1"}
    assert set(first) == {"0", "10", "20", "30", "40"}
    assert float(first["40"]["low"]) <= float(first["40"]["value"]) <= float(first["40"]["high"])
    assert (first["40"]["samples"], first["40"]["tokens"], float(first["40"]["seconds"])) == ("640", "7680", 120.0)
    curve = [row for row in rows(reported / "curves.csv") if row["run"] == "lr1e-4-seed0"]
    recorded = [r for r in RunDir(rates / "lr1e-4-seed0").records() if r["kind"] == "step"]
    assert [float(row["reward"]) for row in curve] == [record["reward"] for record in recorded]


def test_a_table_by_samples_does_not_put_different_batches_at_the_same_step_beside_each_other(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    recorded_run(small, batch=16)
    recorded_run(large, batch=64)
    text = report(small, large, out=tmp_path / "out")
    table = text.partition("within so many samples consumed")[2].strip().splitlines()[:4]
    assert table[0] == "| arm | 160 samples | 320 samples | 480 samples | 640 samples | 2560 samples |"
    assert [row.count("at step 40") for row in table[2:]] == [2, 1]
    assert table[3].count("at step 10") == 1  # 640 samples of the large batch
    assert "640 samples at step 40" in text


def test_two_problem_sets_are_shown_apart_and_not_compared(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    recorded_run(one, "--lr", "1e-4")
    run = recorded_run(other, "--lr", "1e-3")
    for path in run.evals.glob("*.json"):
        path.write_text(path.read_text().replace("ab" * 32, "cd" * 32).replace("arithmetic", "geometry"))
    text = report(one, other, out=tmp_path / "out")
    assert "pass@1 on held-out problems of arithmetic (abababab) by updates" in text
    assert "pass@1 on held-out problems of geometry (cdcdcdcd) by updates" in text
    assert "Not measured alike, so shown apart and not compared" in text
    assert "better than lr" not in text


def test_a_run_that_cannot_be_read_is_left_out_with_words_and_alone_it_is_refused(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    recorded_run(whole)
    with recorded_run(broken).metrics_file.open("a") as file:
        file.write('{"kind": "step", "step"\n')
    text = report(whole, broken, out=tmp_path / "out")
    assert "Left out: " in text
    assert "metrics.jsonl cannot be read" in text
    assert [run["run"] for run in rows(tmp_path / "out" / "runs.csv")] == ["whole"]
    with pytest.raises(UsageError, match=r"metrics\.jsonl cannot be read"):
        read_study([broken])
    with pytest.raises(UsageError, match="nothing of these can be read"):
        read_study([broken, tmp_path / "nothing"])


def test_a_run_without_evaluations_has_no_data_and_no_zero(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", "--steps", "2")
    run.log(**step_record(1))
    run.log(**step_record(2))
    text = report(run.root, out=tmp_path / "out")
    assert "no data for run run" in text
    assert "nothing was measured at any step" in text
    assert rows(tmp_path / "out" / "evaluations.csv") == []


def test_values_that_are_not_finite_are_words_and_break_no_page(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", "--steps", "4")
    for step, loss in enumerate((0.1, math.nan, math.nan, math.inf), start=1):
        run.log(**step_record(step, loss=loss, grad_norm=0.5 * step))
    text = report(run.root, out=tmp_path / "out")
    assert "run: loss is not a number or infinite at steps 2–4" in text
    assert "| run | infinite | 2 |" in text
    assert not re.search(r"\bnan\b", (tmp_path / "out" / "report.html").read_text(), re.IGNORECASE)


def test_a_column_of_zeros_is_no_data_without_rank_and_without_claim(tmp_path: Path) -> None:
    table = tmp_path / "pass rate.csv"
    table.write_text(
        "Step,Batch 64,Buffer 256,2x LR (NEW)\n20,0.556,0.569,0.000\n40,0.571,0.585,0.000\n60,0.577,0.609,\n"
    )
    text = report(table, out=tmp_path / "out")
    assert "| 2x LR (NEW) | no data | no data | no data |" in text
    assert "no data for run 2x LR (NEW)" in text
    assert "0.000 |" not in text
    claims = json.loads((tmp_path / "out" / "insights.json").read_text())
    assert [c["kind"] for c in claims if "2x LR (NEW)" in c["arms"]] == ["no_data"]
    assert not any(claim["kind"] in ("better", "best") for claim in claims)


def test_what_a_model_wrote_is_text_in_the_page_and_in_the_markdown(tmp_path: Path) -> None:
    said = "```\n</pre><script>alert(1)</script> | \x1b[2J # [x](http://y.example) \\boxed{7}"
    recorded_run(tmp_path / "run", text=lambda number: said)
    text = report(tmp_path / "run", out=tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page
    assert "\x1b" not in page + text
    assert "&lt;script&gt;" in page
    fenced = text[: text.index("</pre><script>")].splitlines()
    assert fenced[-2] == "````text", "a fence that the completion does not close"


def test_the_same_problems_are_shown_for_every_run_before_and_after(reported: Path) -> None:
    text = (reported / "report.md").read_text().partition("## Completions")[2]
    drawn = text.partition("drawn by the hash of its id")[2].partition("###")[0]
    runs = [f"lr{lr}-seed{seed}" for lr in ("1e-5", "1e-4", "1e-3") for seed in "01"]
    at = [drawn.index(f"{run}, {when}: ") for run in runs for when in ("before", "after")]
    assert at == sorted(at)


def command(*args: str) -> subprocess.CompletedProcess[str]:
    answer = subprocess.run(
        [sys.executable, "-m", "rl.report", *args], capture_output=True, text=True, check=False, timeout=200
    )
    assert "Traceback" not in answer.stderr
    return answer


def test_the_command_ends_with_where_the_report_is(tmp_path: Path) -> None:
    recorded_run(tmp_path / "run", gain=2.5)
    answer = command(str(tmp_path / "run"))
    page = tmp_path / "run" / "report" / "report.html"
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith("Deploy run, step ")
    last = answer.stdout.splitlines()[-1]
    assert last.startswith(f"the report is {page}")
    assert last.endswith(f"next: python -m rl.export {tmp_path / 'run'} --best")
    assert page.exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["nothing"], "nothing is not a run"),
        (["run", "run/evals"], "several sources belongs to none"),
        (["run", "--out", "run/config.json"], "cannot write into run/config.json"),
        (["empty.csv"], "empty.csv"),
    ],
)
def test_wrong_input_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], words: str
) -> None:
    recorded_run(tmp_path / "run")
    (tmp_path / "empty.csv").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]) + os.pathsep + os.environ.get("PYTHONPATH", ""))
    monkeypatch.chdir(tmp_path)
    answer = command(*given)
    assert answer.returncode == 2
    assert words in answer.stderr
    assert "fix: " in answer.stderr
