"""What the optimizers do to the matrices that are trained, and that a resume goes on with the same bits."""

from pathlib import Path

import pytest
import torch

from rl.core.config import TrainConfig
from rl.learner import checkpoint
from rl.learner.policy import Policy
from rl.learner.step import Learner
from rl.problems.starter import STARTER_MODEL
from tests.learner.batch import make_batch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def learner(config: TrainConfig) -> Learner:
    return Learner(Policy(str(STARTER_MODEL), config, CPU), config)


def train(learner: Learner, config: TrainConfig, *steps: int) -> None:
    for step in steps:
        learner.step(make_batch(config, learner.policy, seed=step), step)


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_update_saved_in_the_middle_goes_on_with_the_same_bits(tuning: str, optimizer: str, tmp_path: Path) -> None:
    config = TrainConfig(tuning=tuning, optimizer=optimizer, batch=16, weight_decay=0.1, schedule="linear", warmup=0.01)
    whole = learner(config)
    train(whole, config, 1, 2, 3, 4)
    half = learner(config)
    train(half, config, 1, 2)
    checkpoint.save(tmp_path / "step-000002", 2, half.policy, half.optimizer)
    resumed = learner(config)
    checkpoint.load(tmp_path / "step-000002", resumed.policy, resumed.optimizer)
    train(resumed, config, 3, 4)
    assert resumed.policy.adapter_bytes() == whole.policy.adapter_bytes() != half.policy.adapter_bytes()


def test_muon_moves_all_directions_of_a_pair_alike_and_by_as_much_as_adamw() -> None:
    sizes, evenness = {}, {}
    for optimizer in ("adamw", "muon"):
        config = TrainConfig(optimizer=optimizer, batch=32, lr=1e-3, lora_rank=8)
        own = learner(config)
        train(own, config, 1)  # B was zero, so it is the update itself
        matrices = [p.detach() for name, p in own.policy.model.named_parameters() if "lora_B" in name]
        sizes[optimizer] = float(torch.cat([m.flatten() for m in matrices]).square().mean().sqrt())
        values = [torch.linalg.svdvals(matrix) for matrix in matrices]
        evenness[optimizer] = sum(float(v[-1] / v[0]) for v in values) / len(values)
    assert sizes["muon"] == pytest.approx(0.2 * 1e-3, rel=0.2)
    assert sizes["adamw"] == pytest.approx(1e-3, rel=0.2)  # in its first step each element moves by the rate
    assert evenness["muon"] > 0.5 > 0.35 > evenness["adamw"]


def test_weight_decay_is_taken_by_both() -> None:
    for optimizer in ("adamw", "muon"):
        plain = TrainConfig(optimizer=optimizer, batch=16)
        decayed = plain.model_copy(update={"weight_decay": 0.5})
        first, second = learner(plain), learner(decayed)
        train(first, plain, 1)
        train(second, decayed, 1)
        assert first.policy.adapter_bytes() != second.policy.adapter_bytes()
