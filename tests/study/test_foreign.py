"""The files of other tools become runs, and nothing in them becomes a number that was not there."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rl.core.errors import UsageError
from rl.study.foreign import read_foreign
from rl.study.runs import StudyRun
from rl.study.tables import cell, is_metric

STUDY = """# Pass rates

| Step | Batch 64 | Buffer 256 | **2x LR (NEW)** | 2x LR Advantage |
|------|----------|------------|-----------------|-----------------|
|   20 |    0.556 |      0.569 | **        0.000** |               |
|   30 |    0.565 |            | **        0.000** |               |
"""
ROWS = """Experiment,Steps,Learning Rate,LoRA Rank,Final Loss,Training Time (min),Accuracy
base,60,2e-04,16,1.1774,7.71,0.000
long,"1,000",2e-04,16,∞,43.20,
"""


def read(folder: Path, name: str, content: str, metric: str = "") -> dict[str, StudyRun]:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return {run.name: run for run in read_foreign(path, metric)}


def curve(run: StudyRun, name: str) -> list[tuple[int, float | None]]:
    return list(zip(run.curves[name].steps, run.curves[name].values, strict=True))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12 %", 0.12),
        ("19.03%", 0.1903),
        ("**0.000**", 0.0),
        ("1,234.5", 1234.5),
        ("2e-04", 2e-4),
        ("∞", math.inf),
        ("-inf", -math.inf),
        ("âˆž", math.inf),
        ("", None),
        ("N/A", None),
        ("–", None),
        ("0.11+", "0.11+"),
        ("1_0", "1_0"),
        ("✅ Good", "✅ Good"),
        (10**400, math.inf),
    ],
)
def test_a_cell_is_a_number_or_nothing_or_its_text(text: str | int, value: float | str | None) -> None:
    assert cell(text) == value


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        *((name, True) for name in ("loss", "Val Loss", "eval/pass@1", "rewards/mean", "Pass Rate", "grad_norm", "lr")),
        *((name, False) for name in ("Batch 64", "2x LR", "Buffer 256", "Step", "mean", "Final Step", "run")),
    ],
)
def test_a_metric_is_told_from_a_run_by_its_name(name: str, is_one: bool) -> None:
    assert is_metric(name) is is_one


def test_metrics_by_step_are_one_run(tmp_path: Path) -> None:
    (run,) = read(tmp_path, "log.csv", "step,loss,learning_rate,note\n2,nan,1e-5,\n1,6.5,,warm\n3,,1e-5,\n").values()
    assert run.name == "log"
    assert not run.ours
    (first, second, third) = curve(run, "loss")
    assert (first, third) == ((1, 6.5), (3, None))
    assert second[1] is not None
    assert math.isnan(second[1])
    assert curve(run, "lr") == [(1, None), (2, 1e-5), (3, 1e-5)]
    assert run.curves["loss"].last is None


def test_a_column_may_name_the_runs(tmp_path: Path) -> None:
    runs = read(tmp_path, "log.tsv", "run\tstep\treward\na\t1\t0.5\nb\t1\t0.25\na\t2\t0.75\n")
    assert curve(runs["a"], "reward") == [(1, 0.5), (2, 0.75)]
    assert curve(runs["b"], "reward") == [(1, 0.25)]


def test_a_column_for_each_run_has_one_metric(tmp_path: Path) -> None:
    runs = read(tmp_path, "study.md", STUDY, metric="pass_rate")
    assert list(runs) == ["Batch 64", "Buffer 256", "2x LR (NEW)", "2x LR Advantage"]
    assert curve(runs["Buffer 256"], "pass_rate") == [(20, 0.569), (30, None)]


def test_a_column_of_zeros_is_no_data(tmp_path: Path) -> None:
    runs = read(tmp_path, "study.md", STUDY, metric="pass_rate")
    assert curve(runs["2x LR (NEW)"], "pass_rate") == [(20, None), (30, None)]
    assert runs["2x LR (NEW)"].why == "2x LR (NEW): all 2 cells are 0.000 or empty: no data"
    assert runs["Batch 64"].why == ""


def test_zeros_are_facts_where_no_result_is_meant(tmp_path: Path) -> None:
    (run,) = read(tmp_path, "log.csv", "step,kl,reward\n1,0,0\n2,0,0.5\n").values()
    assert curve(run, "kl") == [(1, 0.0), (2, 0.0)]
    assert curve(run, "reward") == [(1, 0.0), (2, 0.5)]
    assert run.why == ""


def test_a_row_for_each_run_has_settings_and_results(tmp_path: Path) -> None:
    runs = read(tmp_path, "study.csv", ROWS)
    assert runs["base"].settings == {"steps": 60, "lr": 2e-4, "lora_rank": 16}
    assert runs["base"].finals == {"final_loss": 1.1774, "minutes": 7.71, "accuracy": None}
    assert runs["long"].settings["steps"] == 1000
    assert runs["long"].finals["final_loss"] == math.inf
    assert runs["long"].minutes == 43.2
    assert "Accuracy: all 2 cells are 0.000 or empty: no data" in runs["long"].why


def test_rows_without_a_name_are_named_by_their_settings(tmp_path: Path) -> None:
    assert list(read(tmp_path, "a.csv", "Learning Rate,Accuracy,Status\n0.05,19.03%,good\n0.11+,<16%,poor\n")) == [
        "lr 0.05",
        "lr 0.11+",
    ]


def test_a_trainer_state_has_its_history_and_settings(tmp_path: Path) -> None:
    history = [{"step": 10, "loss": 2.5, "learning_rate": 1e-5}, {"step": 10, "eval_loss": math.inf}]
    state = {"log_history": history, "max_steps": 500, "train_batch_size": 2, "best_metric": None}
    (run,) = read(tmp_path, "trainer_state.json", json.dumps(state)).values()
    assert curve(run, "loss") == [(10, 2.5)]
    assert curve(run, "eval_loss") == [(10, math.inf)]
    assert run.settings == {"steps": 500, "batch": 2}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.json", '[{"step": 1, "loss": 2.5}, {"step": 2, "loss": NaN}]'),
        ("columns.json", '{"step": [1, 2], "loss": [2.5, NaN]}'),
        ("rows.jsonl", '{"step": 1, "loss": 2.5}\n\n{"step": 2, "loss": NaN}\n'),
    ],
)
def test_json_comes_in_three_shapes(tmp_path: Path, name: str, content: str) -> None:
    (run,) = read(tmp_path, name, content).values()
    assert str(curve(run, "loss")) == "[(1, 2.5), (2, nan)]"


def test_an_export_of_wandb_names_run_and_metric(tmp_path: Path) -> None:
    head = '"Step","a - train/reward","a - train/reward__MIN","a - train/reward__MAX","b - train/reward"'
    runs = read(tmp_path, "wandb_export.csv", f'{head}\n"1","0.5","0.5","0.5",""\n"2","0.6","0.6","0.6","0.4"\n')
    assert curve(runs["a"], "train_reward") == [(1, 0.5), (2, 0.6)]
    assert curve(runs["b"], "train_reward") == [(1, None), (2, 0.4)]
    assert list(runs["a"].curves) == ["train_reward"]


def test_plain_lines_are_a_log(tmp_path: Path) -> None:
    lines = [
        "LoRA rank: 8 (default)",
        "- Learning rate: 1e-5 (constant, no scheduler)",
        "step 500: train loss 6.67, val loss 6.71",
        "Step 1000/5000 | loss=6.75 grad_norm: 0.3 time 3.2s | val_loss=inf",
        "[iter 1500] train 6.5, val nan, pass@1 12.5%",
        "saved to /checkpoints/step 1500",
        "LEARNING_RATE=2e-5",
    ]
    (run,) = read(tmp_path, "train.log", "\n".join(lines)).values()
    assert curve(run, "train_loss") == [(500, 6.67), (1500, 6.5)]
    assert str(curve(run, "val_loss")) == "[(500, 6.71), (1000, inf), (1500, nan)]"
    assert curve(run, "loss") == [(1000, 6.75)]
    assert curve(run, "grad_norm") == [(1000, 0.3)]
    assert curve(run, "pass@1") == [(1500, 0.125)]
    assert run.settings == {"lora_rank": 8, "lr": 1e-5}


def test_lines_without_a_step_are_counted(tmp_path: Path) -> None:
    lines = "{'loss': 2.5, 'grad_norm': 0.5, 'epoch': 0.01}\n{'loss': 2.25, 'grad_norm': 0.4, 'epoch': 0.02}\n"
    (run,) = read(tmp_path, "train.log", lines).values()
    assert curve(run, "loss") == [(1, 2.5), (2, 2.25)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", ""),
        ("a.csv", "who,where\nx,y\n"),
        ("a.csv", 'step,loss\n1,"' + "x" * 200_000),
        ("a.json", "{"),
        ("a.json", "[1, 2]"),
        ("a.json", "[" * 100_000),
        ("a.jsonl", '{"step": 1, "loss": 2}\n{"step": 2, "lo'),
        ("a.md", "no table here"),
        ("a.log", "nothing was logged"),
    ],
)
def test_what_holds_no_run_is_told(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(UsageError) as told:
        read(tmp_path, name, content)
    assert name in str(told.value)
    assert told.value.fix


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_foreign(tmp_path / "gone.csv")
    with pytest.raises(UsageError, match="Is a directory"):
        read_foreign(tmp_path)


WORDS = st.sampled_from(
    ["step", "run", "loss", "reward", "lr", "Batch 64", "a - loss", "time (min)", "seed", "1", "0", "nan"]
)
TEXTS = st.one_of(st.text(max_size=40), st.lists(WORDS | st.text(max_size=6), max_size=6).map(",".join))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    suffix=st.sampled_from([".csv", ".tsv", ".json", ".jsonl", ".md", ".log"]),
    lines=st.lists(TEXTS, max_size=6),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
        max_leaves=12,
    ),
)
def test_no_content_is_worse_than_a_usage_error(tmp_path: Path, suffix: str, lines: list[str], value: object) -> None:
    text = json.dumps(value) if suffix.startswith(".json") else "\n".join(lines)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        runs = read_foreign(path)
    except UsageError:
        return
    for run in runs:
        for found in run.curves.values():
            assert found.steps == sorted(set(found.steps))
            assert len(found.steps) == len(found.values)
            assert all(number is None or isinstance(number, float) for number in found.values)
