"""What is computed packed is what a model gives for each sample alone: of every family, and for every loss."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from rl.core.config import TrainConfig
from rl.core.kinds import LossKind
from rl.learner.collate import Row, pack, rows_of
from rl.learner.loss import policy_loss
from rl.learner.packed import LOGITS, frozen_logprobs
from rl.learner.policy import Policy
from rl.learner.step import Learner
from rl.problems.starter import STARTER_MODEL
from tests.learner.batch import make_batch

CPU = torch.device("cpu")
SIZES = {
    **{"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "head_dim": 8},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128},
    **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2},
}
FAMILIES = {
    "qwen2": {},
    "qwen3": {},
    "llama": {"tie_word_embeddings": True, "mlp_bias": True},
    "mistral": {"sliding_window": 4},
    "phi3": {},
    "gemma3_text": {"sliding_window": 4, "sliding_window_pattern": 2},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
}
UNPACKED = {"gemma2": {"query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0}, "granite": {"logits_scaling": 3.0}}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def random_model(folder: Path, family: str, settings: dict[str, object]) -> str:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SIZES, **settings))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return str(folder)


def moved(policy: Policy, by: float) -> Policy:
    """With an adapter that is not zero."""
    torch.manual_seed(1)
    for parameter in policy.trainable:
        parameter.data += by * torch.randn_like(parameter)
    return policy


def alone(model: torch.nn.Module, row: Row, temperature: float) -> Tensor:
    """Log-probabilities of a completion, [T], as plainly as can be."""
    tokens = torch.tensor([row.prompt_ids + row.completion_ids])
    logits = model(input_ids=tokens).logits[0, len(row.prompt_ids) - 1 : -1]
    return torch.log_softmax(logits / temperature, -1)[range(len(row.completion_ids)), row.completion_ids]


@pytest.mark.parametrize("family", [*FAMILIES, *UNPACKED])
def test_every_family_gives_what_it_gives_for_a_sample_alone(family: str, tmp_path: Path) -> None:
    path = random_model(tmp_path, family, (FAMILIES | UNPACKED)[family])
    config = TrainConfig(temperature=0.7, batch=16)
    policy = moved(Policy(path, config, CPU), 0.1)
    assert policy.packs == (family in FAMILIES)
    plain = moved(Policy(path, config.model_copy(update={"attention": "eager"}), CPU), 0.1)
    rows = rows_of(make_batch(config, plain), config, step=1)
    batch = pack(rows)
    logprobs = policy(batch)[batch.mask_BT]
    expected = torch.cat([alone(plain.model, row, 0.7) for row in rows])
    assert (logprobs - expected).abs().max() <= 1e-5
    weights = torch.randn(len(expected))
    (logprobs @ weights).backward()
    (expected @ weights).backward()
    for ours, theirs in zip(policy.trainable, plain.trainable, strict=True):
        assert (ours.grad - theirs.grad).abs().max() <= 1e-5 * max(1.0, theirs.grad.abs().max())


@pytest.mark.parametrize("kind", list(LossKind))
def test_the_gradient_of_every_loss_is_that_of_samples_alone(kind: LossKind) -> None:
    config = TrainConfig(loss=kind, batch=32, lr=1e-12, grad_clip=1e9)
    learner = Learner(moved(Policy(str(STARTER_MODEL), config, CPU), 0.02), config)
    batch = make_batch(config, learner.policy)
    learner.step(batch, 1)
    plain = moved(Policy(str(STARTER_MODEL), config.model_copy(update={"attention": "eager"}), CPU), 0.02)
    low, high = config.clip
    for row in rows_of(batch, config, step=1):
        one = pack([row])
        loss = policy_loss(
            alone(plain.model, row, config.temperature)[None],
            sampler_logprobs_BT=one.sampler_logprobs_BT,
            mask_BT=one.mask_BT,
            advantages_B=one.advantages_B,
            weights_B=one.token_weights_B,
            kind=kind,
            clip_low=low,
            clip_high=high,
        )
        loss.total.backward()
    largest = max(float(p.grad.abs().max()) for p in plain.trainable)
    assert largest > 1e-3
    for ours, theirs in zip(learner.policy.trainable, plain.trainable, strict=True):
        assert (ours.grad - theirs.grad).abs().max() <= 1e-5


def test_prompts_are_there_once_and_nothing_is_padded() -> None:
    rows = [
        Row(prompt_ids=[5, 6, 7], completion_ids=c, sampler_logprobs=[-1.0] * len(c), advantage=0, token_weight=0)
        for c in ([8, 9], [10], [8, 9, 11])
    ]
    batch = pack(rows)
    assert batch.tokens_N.tolist() == [5, 6, 7, 8, 9, 10, 8, 9, 11]
    assert batch.positions_N.tolist() == [0, 1, 2, 3, 4, 3, 3, 4, 5]
    assert batch.completion_M.tolist() == [8, 9, 10, 8, 9, 11]
    assert batch.tokens_N[batch.rows_BL.flatten()[batch.before_M]].tolist() == [7, 8, 7, 7, 8, 9]
    assert batch.rows_BL.flatten()[batch.places_N].tolist() == list(range(9))
    assert batch.mask_BT.tolist() == [[True, True, False], [True, False, False], [True, True, True]]


@pytest.mark.parametrize("bias", [False, True])
def test_the_head_by_pieces_is_the_head(monkeypatch: pytest.MonkeyPatch, bias: bool) -> None:
    monkeypatch.setitem(LOGITS, "cpu", 3 * 50)
    torch.manual_seed(0)
    hidden, weight, tokens = torch.randn(10, 8, requires_grad=True), torch.randn(50, 8), torch.randint(50, (10,))
    constant = torch.randn(50) if bias else None
    expected = torch.log_softmax(F.linear(hidden, weight, constant) / 0.7, -1)[range(10), tokens]
    pieces = frozen_logprobs(hidden, weight, constant, tokens, 0.7)
    assert (pieces - expected).abs().max() <= 1e-5
    factors = torch.randn(10)
    (ours,) = torch.autograd.grad(pieces @ factors, hidden)
    (theirs,) = torch.autograd.grad(expected @ factors, hidden)
    assert (ours - theirs).abs().max() <= 1e-5
