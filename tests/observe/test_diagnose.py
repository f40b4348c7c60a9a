"""`python -m rl.diagnose` says what is wrong with a run or a log, and writes a plan that a sweep takes."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from rewards.verdict import Mark, Verdict
from rl.buffer.ledger import Buffer
from rl.core.rundir import RunDir
from rl.core.types import Group, Problem, Rollout, Sample
from rl.diagnose import main
from rl.study.plan import configured, read_plan
from tests.observe.recorded import evaluation, log_evaluation, new_run, step_record

ROOT = Path(__file__).parents[2]
LOG = """LoRA rank: 8
LoRA alpha: 16.0
Learning rate: 1e-5 (constant, no scheduler)
step 1500: train loss 6.67, val loss 6.71
step 2000: train loss 6.75, val loss 6.93
step 2500: train loss 6.52, val loss 6.72
"""


@pytest.fixture
def cut(tmp_path: Path) -> RunDir:
    """A run whose completions are cut, and whose rate is one of full fine-tuning."""
    run = new_run(tmp_path / "cut", "--steps", "30", "--lr", "2e-6", "--max-tokens", "24")
    log_evaluation(run, evaluation(0, {"1+1": 2, "2+2": 2}))
    for step in range(1, 31):
        run.log(**step_record(step, truncated=0.5, reward=0.4 + 0.01 * (step % 3)))
    log_evaluation(run, evaluation(30, {"1+1": 2, "2+2": 2}))
    return run


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "train.log"
    path.write_text(LOG)
    return path


def test_a_run_is_diagnosed_with_flags_to_paste(cut: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(cut.root)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{cut.root}: 2 findings in 30 steps and 2 evaluations"
    assert lines[1] == "1. completions are cut off (truncation)"
    assert lines[2] == "   50% of the completions trained on lately end at the limit of 24 tokens"
    assert lines[3] == "   let them be longer:  --max-tokens 48"
    assert lines[4] == "2. the learning rate is too low for LoRA (lr_low)"
    assert "held-out pass@1 changed by +0.000" in lines[5]
    assert lines[6].endswith(":  --lr 0.0005")
    assert lines[-1].startswith("next: python -m rl.diagnose ")


def test_the_plan_of_a_run_is_one_that_a_sweep_takes(cut: RunDir, tmp_path: Path) -> None:
    main([str(cut.root), "--suggest", str(tmp_path / "next.toml")])
    plan = read_plan(tmp_path / "next.toml")
    assert [(row.name, row.priority, row.changes) for row in plan.rows()] == [
        ("max-tokens48", 1, {"max_tokens": 48}),
        ("lr0.0005", 2, {"lr": 0.0005}),
        ("as-it-was", 3, {}),
    ]
    assert plan.runs[0].reason.startswith("completions are cut off: 50%")
    assert "better than as-it-was" in plan.runs[0].criteria
    as_it_was = configured(plan.base)
    config = cut.config()
    left_out = {name for name in type(config).model_fields if name.startswith("wandb")}
    assert as_it_was.model_dump(exclude=left_out) == config.model_dump(exclude=left_out)


def test_a_log_of_plain_lines_is_diagnosed(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(log), "--suggest", str(tmp_path / "next.toml")])
    out = capsys.readouterr().out
    assert "the val loss went from 6.71 at step 1500 to 6.93 at step 2000, and is 6.72 at the end" in out
    assert out.splitlines()[-1] == f"plan in {tmp_path}/next.toml; next: python -m rl.sweep {tmp_path}/next.toml"
    plan = read_plan(tmp_path / "next.toml")
    assert plan.base == {"lora_rank": 8, "lora_alpha": 16, "lr": 1e-5}
    assert {"lr": 1e-4} in [row.changes for row in plan.runs]
    assert {"lora_rank": 16, "lora_alpha": 32.0} in [row.changes for row in plan.runs]


def test_settings_that_cannot_be_ours_are_left_out_of_a_plan(tmp_path: Path) -> None:
    """A batch of 2 holds no group of ours; another tool's model is not here."""
    state = {"max_steps": 500, "train_batch_size": 2, "model": "gpt2", "lora_r": 8, "learning_rate": 1e-5}
    state |= {"log_history": [{"step": step, "eval_loss": 2.5, "loss": 2.5} for step in (100, 200, 300)]}
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps(state))
    main([str(path), "--suggest", str(tmp_path / "next.toml")])
    assert read_plan(tmp_path / "next.toml").base == {"steps": 500, "lora_rank": 8, "lr": 1e-5}


def test_each_run_of_a_table_is_diagnosed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("run,perplexity,loss\n1.7B,∞,3.947\n4B,31.54,3.447\n")
    main([str(tmp_path / "a.csv"), "--json"])
    sick, sound = json.loads(capsys.readouterr().out)
    assert (sick["run"], [f["rule"] for f in sick["findings"]]) == ("1.7B", ["non_finite"])
    assert (sound["run"], sound["findings"]) == ("4B", [])


def test_a_ledger_tells_of_a_run_that_makes_no_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = new_run(tmp_path / "run", "--steps", "30")
    sample = Sample(
        rollout=Rollout(token_ids=[5], sampler_logprobs=[-0.5], policy_version=0, finish_reason="stop", text="4"),
        verdict=Verdict(mark=Mark.WRONG, reason="by hand", answer="4", gold="7"),
    )
    with closing(Buffer(run.buffer_url, capacity=8, group_size=2)) as buffer:
        buffer.proved("p", 0, "ab")
        while len(ids := buffer.issue() or buffer.unfinished()) and max(ids) < 20:
            for id in ids:
                problem = Problem(id=str(id), text="3+4", gold="7")
                buffer.put(
                    Group(id=id, problem=problem, prompt_ids=[3], policy="p", adapter_sha256="ab", samples=[sample] * 2)
                )
    main([str(run.root), "--json"])
    ((finding,),) = (run["findings"] for run in json.loads(capsys.readouterr().out))
    assert finding["rule"] == "all_wrong"
    assert finding["data"] == {"no_signal": 1.0, "tied_reward": 0.0}


def test_json_is_for_machines(cut: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(cut.root), "--json"])
    (diagnosis,) = json.loads(capsys.readouterr().out)
    assert [(f["rule"], f["try"]) for f in diagnosis["findings"]] == [
        ("truncation", "--max-tokens 48"),
        ("lr_low", "--lr 0.0005"),
    ]
    assert diagnosis["findings"][0]["data"] == {"truncated": 0.5, "max_tokens": 24.0}


def test_a_finding_is_no_error_and_bad_input_is_one(cut: RunDir, tmp_path: Path) -> None:
    def ended(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "rl.diagnose", *arguments]
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert "Traceback" not in answer.stderr
        return answer.returncode, answer.stderr

    assert ended(str(cut.root)) == (0, "")
    code, said = ended(str(tmp_path / "nowhere"))
    assert (code, "cannot read" in said) == (2, True)
    code, said = ended(str(tmp_path))
    assert (code, "is not a run" in said) == (2, True)
    sound = new_run(tmp_path / "sound")
    code, said = ended(str(sound.root), "--suggest", str(tmp_path / "next.toml"))
    assert (code, "no finding names a setting" in said) == (2, True)
    assert not (tmp_path / "next.toml").exists()
