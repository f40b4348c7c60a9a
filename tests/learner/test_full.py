"""Full fine-tuning: an update of the adapter is the update of the weights themselves, and its shape stays servable."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2Config

from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.learner.policy import Policy
from rl.learner.step import Learner
from rl.problems.shapes import adapter_rank, full_rank
from rl.problems.starter import STARTER_MODEL
from tests.learner.batch import make_batch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=["starter", "uneven"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The starter, and a model whose layers are wider than tall, taller than wide, and narrower than the rank."""
    if request.param == "starter":
        return str(STARTER_MODEL)
    torch.manual_seed(0)
    uneven = AutoModelForCausalLM.from_config(shape(hidden_size=48, num_attention_heads=6, intermediate_size=80))
    for name, parameter in uneven.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.02)
    folder = tmp_path_factory.mktemp("uneven")
    uneven.save_pretrained(folder)
    return str(folder)


def shape(**sizes: int) -> Qwen2Config:
    plain = {"vocab_size": 64, "num_hidden_layers": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}
    return Qwen2Config(**plain, **sizes)


def plain_weights(policy: Policy) -> dict[str, nn.Parameter]:
    """The base's own weights, to be trained instead of the adapter."""
    layers = {n: m for n, m in policy.model.named_modules() if hasattr(m, "base_layer")}
    for parameter in policy.model.parameters():
        parameter.requires_grad_(False)
    return {name: layer.base_layer.weight.requires_grad_(True) for name, layer in layers.items()}


@pytest.mark.parametrize(("optimizer", "steps", "tolerance"), [("adamw", 2, 1e-12), ("muon", 1, 1e-5)])
def test_its_updates_are_those_of_the_plain_weights(model: str, optimizer: str, steps: int, tolerance: float) -> None:
    """In float64: AdamW divides a gradient by its own size, and of a small one float32 leaves a machine's rounding.
    Muon computes in bfloat16."""
    config = TrainConfig(tuning="full", optimizer=optimizer, batch=16, lr=1e-3)
    full_policy = Policy(model, config, CPU)
    plain_policy = Policy(model, config.model_copy(update={"tuning": "lora"}), CPU)
    for policy in (full_policy, plain_policy):
        policy.model.double()
    full = Learner(full_policy, config)
    weights = plain_weights(plain_policy)
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    plain = Learner(plain_policy, config)
    for step in range(1, steps + 1):
        batch = make_batch(config, full.policy, seed=step)
        assert full.step(batch, step).grad_norm == pytest.approx(plain.step(batch, step).grad_norm, rel=1e-12)
    for name, layer in full.policy.model.named_modules():
        if name in weights:
            moved = (weights[name] - before[name]).detach()
            assert moved.abs().max() > 1e-4
            assert (layer.get_delta_weight("default") - moved).abs().max() <= tolerance


def test_the_identities_stay_frozen_when_the_adapter_is_switched_off_and_on() -> None:
    config = TrainConfig(tuning="full", batch=8, kl_coef=0.1)
    policy = Policy(str(STARTER_MODEL), config, CPU)
    trained = policy.trainable
    Learner(policy, config).step(make_batch(config, policy), 1)  # switches it off for the reference
    with policy.adapter_off():
        pass
    assert list(map(id, policy.trainable)) == list(map(id, trained))
    assert len(trained) == policy.adapter_modules


def test_its_rank_is_known_before_anything_starts(model: str) -> None:
    config = TrainConfig(model=model, tuning="full")
    policy = Policy(model, config, CPU)
    assert policy.model.peft_config["default"].r == adapter_rank(config)
    assert adapter_rank(config.model_copy(update={"tuning": "lora"})) == config.lora_rank
    narrow = config.model_copy(update={"lora_target": "k_proj, v_proj"})
    assert Policy(model, narrow, CPU).model.peft_config["default"].r == adapter_rank(narrow) <= adapter_rank(config)


def test_a_model_too_wide_to_be_served_is_refused_with_the_way_out() -> None:
    with torch.device("meta"):
        wide = AutoModelForCausalLM.from_config(shape(hidden_size=896, num_attention_heads=14, intermediate_size=1000))
    with pytest.raises(UsageError, match="rank 896, and vLLM serves 512") as told:
        full_rank(wide, "all-linear")
    assert told.value.fix.startswith("--tuning lora --lora-rank 512")
    assert full_rank(wide, "k_proj") == 64
