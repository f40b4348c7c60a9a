"""Real shapes and several servers through the whole service."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rl.core.rundir import RunDir
from tests.e2e.conftest import SMALL, Train, steps_of

pytestmark = [pytest.mark.e2e, pytest.mark.vllm]
CONFIGS = Path(__file__).parents[2] / "configs"


def test_a_config_of_a_large_model_runs_with_random_weights(train: Callable[..., Train], tmp_path: Path) -> None:
    problems = tmp_path / "problems.jsonl"
    rows = [{"problem": f"What is {n} plus 3?", "answer": str(n + 3)} for n in range(40)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = ["--config", str(CONFIGS / "qwen2.5-0.5b.toml"), "--random-weights", "scaled"]
    data = ["--problems", str(problems), "--eval-on", "", "--eval-problems", "2", "--eval-samples", "2"]
    small = ["--steps", "2", "--warmup", "0", "--batch", "8", "--buffer", "8", "--max-tokens", "6"]
    code, _, err = train("--run-dir", "run", *config, *data, *small).finish()
    assert code == 0, err
    run = RunDir(tmp_path / "run")
    assert steps_of(run) == [1, 2]
    assert all(record["mismatch_kl"] < 1e-6 for record in run.records() if record["kind"] == "publish")
    adapter = json.loads((run.checkpoints / "step-000002" / "adapter_config.json").read_text())
    assert "lm_head" not in adapter["target_modules"]
    assert {"q_proj", "down_proj"} <= set(adapter["target_modules"])


def test_two_servers_sample_one_run(train: Callable[..., Train], tmp_path: Path) -> None:
    code, _, err = train("--run-dir", "run", "--servers", "2", "--steps", "3", *SMALL).finish()
    assert code == 0, err
    run = RunDir(tmp_path / "run")
    assert steps_of(run) == [1, 2, 3]
    for i in range(2):
        assert "ready" in (run.logs / f"server-{i}.log").read_text()
