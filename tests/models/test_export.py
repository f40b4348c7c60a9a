"""A run's checkpoint is a plain peft adapter: stock peft and stock vLLM load it and give the same log-probabilities."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rl.core.config import TrainConfig
from rl.learner import checkpoint
from rl.learner.policy import Policy
from rl.learner.step import Learner
from rl.problems.random_weights import built_in, random_model
from rl.problems.starter import STARTER_MODEL
from tests.learner.batch import make_batch

SMALL_VOCABULARY = {"vocab_size": 512, "eos_token_id": 151643}


@pytest.fixture(params=["starter", "tied, biased, grouped"])
def model(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The starter, and Qwen2.5's shape rules with fewer words."""
    if request.param == "starter":
        return str(STARTER_MODEL)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return str(random_model(built_in("Qwen/Qwen2.5-0.5B") | SMALL_VOCABULARY, STARTER_MODEL, scaled=True))


@pytest.mark.vllm
def test_stock_peft_and_stock_vllm_load_a_checkpoint(model: str, tmp_path: Path) -> None:
    config = TrainConfig(lr=5e-3, lora_rank=8)
    torch.set_num_threads(1)
    learner = Learner(Policy(model, config, torch.device("cpu")), config)
    for step in (1, 2, 3):
        learner.step(make_batch(config, learner.policy, seed=step), step)
    checkpoint.save(tmp_path / "adapter", 3, learner.policy, learner.optimizer)

    command = [sys.executable, "-m", "tests.models.export_logprobs", model, str(tmp_path / "adapter"), "8"]
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    for answer in json.loads(ran.stdout.splitlines()[-1]):
        peft, vllm, base = (torch.tensor(answer[name]) for name in ("peft", "vllm", "base"))
        assert (peft - vllm).abs().max() <= 1e-3
        assert (peft - base).abs().max() > 0.01  # the adapter is in it
