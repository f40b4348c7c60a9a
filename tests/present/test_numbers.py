"""Tables show the runs that the claims are made of, the others apart, and nothing in place of what is missing."""

import csv
import re
from pathlib import Path

from rl.present import tables
from rl.present.figures import draw_progress
from rl.present.progress import progress_of
from rl.present.report import write_report
from rl.present.study import read_study
from rl.present.terminal import what_next
from rl.study.plan import Plan
from rl.study.runs import Status
from rl.study.sweepdir import Entry, SweepDir
from tests.present.studies import recorded_run
from tests.present.test_sources import BASE


def sweep_of(root: Path, seeds: dict[str, Status], arm: str = "large") -> SweepDir:
    """One arm; the seeds' runs gain the more the higher they are."""
    sweep = SweepDir(root)
    plan = Plan.model_validate({"name": "plan", "base": BASE, "run": [{"name": arm}]})
    entries = []
    for seed, status in seeds.items():
        path = sweep.run_path(f"{arm}-seed{seed}")
        recorded_run(path, "--seed", seed, gain=2.0 * int(seed))
        entries.append(Entry(name=path.name, arm=arm, seed=int(seed), path=path, settings=BASE, status=status))
    sweep.write(plan, entries)
    return sweep


def test_a_diverged_seed_is_in_no_mean_and_is_shown_apart(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path / "sweep", {"0": Status.DONE, "1": Status.DIVERGED})
    study = read_study([sweep.root])
    (progress,) = progress_of(study)
    last = progress.arms["large"][-1]
    alone = study.comparisons.of("large")
    assert alone
    assert last.estimates["pass@1"]
    assert last.runs == len(alone.runs) == 1
    assert last.estimates["pass@1"].value == alone.scores(40).mean()
    apart = tables.by_run(study, study.set)
    assert apart.folded
    assert [row[:3] for row in apart.rows] == [
        ["large-seed0", "large", "done"],
        ["large-seed1", "large", "diverged"],
    ]
    assert apart.rows[0][-1].startswith(f"{last.estimates['pass@1'].value:.3f}")


def test_runs_at_another_temperature_are_in_no_mean(tmp_path: Path) -> None:
    for seed in "012":
        run = recorded_run(tmp_path / f"seed{seed}", "--seed", seed)
        if seed == "2":
            for path in run.evals.glob("*.json"):
                path.write_text(path.read_text().replace('"temperature":1.0', '"temperature":0.1'))
    study = read_study([tmp_path / f"seed{seed}" for seed in "012"])
    (progress,) = progress_of(study)
    assert [point.runs for points in progress.arms.values() for point in points] == [2] * 5


def test_the_gain_is_that_of_the_claims_and_none_without_a_start(tmp_path: Path) -> None:
    runs = [recorded_run(tmp_path / lr, "--lr", lr, gain=2.5) for lr in ("1e-4", "1e-3")]
    study = read_study([run.root for run in runs])
    table = tables.gains(study, progress_of(study))
    assert table
    assert "corrected for 2 arms" in table.caption
    for name, gain in study.comparisons.gains.items():
        (row,) = [row for row in table.rows if row[0] == name]
        assert row[-1].startswith(f"{gain.value:+.3f} [{gain.low:+.3f}")
    (before,) = runs[0].evals.glob("step-*00.json")
    before.unlink()
    study = read_study([run.root for run in runs])
    table = tables.gains(study, progress_of(study))
    assert table
    row = next(row for row in table.rows if row[0] == "lr 0.0001")
    assert (row[3], row[5]) == ("no data", "no data")
    text = write_report(study, tmp_path / "out").with_name("report.md").read_text()
    assert "1e-3, before: " in text
    assert "1e-4, before: " not in text


def test_a_set_whose_name_looks_like_another_s_has_its_own_figures(tmp_path: Path) -> None:
    run = recorded_run(tmp_path / "run")
    for number, name in enumerate(("gsm8k", "gsm8k@test", "gsm8k-test")):
        folder = run.evals / str(number)
        folder.mkdir()
        for path in run.evals.glob("step-*.json"):
            (folder / path.name).write_text(path.read_text().replace('"set":"heldout"', f'"set":"{name}"'))
    study = read_study([run.root], set="gsm8k@test")
    progress = progress_of(study)
    assert [own.set for own in progress] == ["gsm8k@test", "heldout", "gsm8k", "gsm8k-test"]
    assert len({own.file for own in progress}) == 4
    assert not any(own.apart for own in progress)
    text = write_report(study, tmp_path / "out").with_name("report.md").read_text()
    assert "Not measured alike" not in text
    ids = re.findall(r'\bid="([^"]*)"', (tmp_path / "out" / "report.html").read_text())
    assert len(ids) == len(set(ids))


def test_arms_that_were_measured_apart_have_each_an_answer_and_no_command(tmp_path: Path) -> None:
    runs = [recorded_run(tmp_path / lr, "--lr", lr, gain=3.0) for lr in ("1e-4", "1e-3")]
    for path in runs[1].evals.glob("*.json"):
        path.write_text(path.read_text().replace("ab" * 32, "cd" * 32))
    study = read_study([run.root for run in runs])
    assert study.answer.count("eploy 1e-") == 2
    assert what_next(study) == ""
    write_report(study, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("pass-rate-*.png"))) == 2


def test_names_that_look_like_formulas_or_are_hidden_elsewhere_are_drawn(tmp_path: Path) -> None:
    table = tmp_path / "accuracy.csv"
    table.write_text("Step,run $\\foo$,_hidden,c\n20,0.55,0.56,0.5\n40,0.57,0.58,0.5\n")
    write_report(read_study([table]), tmp_path / "out")
    svg = (tmp_path / "out" / "report.html").read_text()
    assert "<text" in svg
    drawn = re.findall(r">([^<>]*)</text>", svg)
    assert {"run $\\foo$", "_hidden", "c"} <= set(drawn)


def test_a_table_without_intervals_has_a_figure_that_says_none(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("name,lr,accuracy\na,0.1,0.5\nb,0.2,0.7\nc,0.4,0.6\n")
    text = write_report(read_study([table]), tmp_path / "out").with_name("report.md").read_text()
    caption = text.partition("](learning-rate.png)")[2].strip().splitlines()[0]
    assert caption == "The last result of each arm against its learning rate."
    assert "## Results at each step" not in text


def test_what_a_single_run_cannot_have_is_not_in_its_report(tmp_path: Path) -> None:
    study = read_study([recorded_run(tmp_path / "run").root])
    text = write_report(study, tmp_path / "out").with_name("report.md").read_text()
    assert {"Learning rate", "Success criteria"}.isdisjoint(re.findall(r"^## (.*)", text, re.MULTILINE))
    assert "within so many" not in text
    assert "An arm is" not in text
    assert "of each run alone" not in text
    assert "mean of" not in text.partition("## Completions")[0]
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"pass-rate-heldout.png", "curves.png"}


def test_many_arms_fold_their_tables_and_keep_their_figure(tmp_path: Path) -> None:
    runs = [recorded_run(tmp_path / f"lr{rate}", "--lr", f"{rate}e-5").root for rate in range(1, 15)]
    study = read_study(runs)
    text = write_report(study, tmp_path / "out").with_name("report.md").read_text()
    assert "An arm is one configuration" in text
    assert "<details><summary>How each run stands: 14 done</summary>" in text
    assert "<details><summary>28 completions</summary>" in text
    from PIL import Image

    def height(name: str) -> int:
        with Image.open(tmp_path / "out" / name) as image:
            return image.height

    few = read_study(runs[:2])
    (progress,) = progress_of(few)
    draw_progress(progress, {name: at for at, name in enumerate(progress.arms)}, tmp_path)
    with Image.open(tmp_path / "pass-rate-heldout.png") as image:
        assert height("pass-rate-heldout.png") > image.height, "the legend takes nothing from the panels"
    with (tmp_path / "out" / "evaluations.csv").open() as file:
        assert {row["run"] for row in csv.DictReader(file)} == {path.name for path in runs}
