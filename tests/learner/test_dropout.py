"""Dropout follows from the step: a learner that was begun anew drops what the first would have dropped."""

from copy import deepcopy

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rl.core.config import TrainConfig
from rl.learner.policy import Policy
from rl.learner.step import Learner
from tests.learner.batch import make_batch

CONFIG = TrainConfig(batch=16)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Qwen2 that drops half of its attention."""
    path = tmp_path_factory.mktemp("dropout")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        attention_dropout=0.5,
    )
    Qwen2ForCausalLM(config).save_pretrained(path)
    return str(path)


def learner_of(model: str) -> Learner:
    torch.set_num_threads(1)
    return Learner(Policy(model, CONFIG, torch.device("cpu")), CONFIG)


def test_a_resumed_learner_drops_what_the_first_would_have(model: str) -> None:
    first = learner_of(model)
    batches = [make_batch(CONFIG, first.policy, seed=step) for step in (1, 2)]
    first.step(batches[0], 1)
    adapter, optimizer = first.policy.adapter_bytes(), deepcopy(first.optimizer.state_dict())

    resumed = learner_of(model)
    resumed.policy.load_adapter(adapter)
    resumed.optimizer.load_state_dict(optimizer)
    first.step(batches[1], 2)
    resumed.step(batches[1], 2)
    assert resumed.policy.adapter_bytes() == first.policy.adapter_bytes()


def test_every_step_drops_something_else(model: str) -> None:
    batch = make_batch(CONFIG, learner_of(model).policy)
    losses = {learner_of(model).step(batch, step).loss for step in (1, 2, 3)}
    assert len(losses) == 3
