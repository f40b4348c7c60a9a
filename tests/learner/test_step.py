"""The update does not depend on how its batch is split: over micro-batches, padding or ranks."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file
from transformers import AutoModelForCausalLM

from rl.core.config import TrainConfig
from rl.core.errors import DivergedError, UsageError
from rl.core.kinds import LossKind
from rl.learner.collate import SPREAD, Row, micro_batches, pack, rows_of, shard
from rl.learner.loss import policy_loss
from rl.learner.policy import Policy, token_logprobs
from rl.learner.step import Learner
from rl.problems.starter import STARTER_MODEL
from tests.learner.batch import make_batch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def policy() -> Policy:
    return Policy(str(STARTER_MODEL), TrainConfig(), CPU)


def gradient(config: TrainConfig) -> torch.Tensor:
    """Of the second update, where the adapter is not zero any more."""
    learner = Learner(Policy(str(STARTER_MODEL), config, CPU), config)
    for step in (1, 2):
        learner.step(make_batch(config, learner.policy, seed=step), step)
    return torch.cat([p.grad.flatten() for p in learner.policy.trainable if p.grad is not None])


@pytest.mark.parametrize("loss", list(LossKind))
def test_micro_batches_and_padding_do_not_change_the_gradient(loss: LossKind) -> None:
    config = TrainConfig(loss=loss, batch=32, kl_coef=0.05, lr=1e-3)
    whole = gradient(config)
    split = gradient(config.model_copy(update={"micro_tokens": 64}))  # most rows alone, without any padding
    assert whole.abs().max() > 1e-3
    assert (whole - split).abs().max() <= 1e-5


def test_gradient_checkpointing_does_not_change_the_gradient() -> None:
    config = TrainConfig(batch=16)
    again = gradient(config.model_copy(update={"grad_checkpointing": True}))
    assert (gradient(config) - again).abs().max() <= 1e-5


@pytest.mark.parametrize(
    "flags", [["--loss", "grpo"], ["--loss", "gspo", "--lr", "1e-4", "--micro-tokens", "200", "--kl-coef", "0.1"]]
)
def test_two_learners_make_the_update_of_one(tmp_path: Path, flags: list[str]) -> None:
    adapters = []
    for ranks in (1, 2):
        out = tmp_path / f"{ranks}.safetensors"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        subprocess.run([*command, "-m", "tests.learner.one_step", str(out), *flags], check=True, capture_output=True)
        adapters.append(load_file(out))
    one, two = adapters
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert (tensor - two[name]).abs().max() <= 1e-5, name
    assert any(tensor.abs().max() > 1e-4 for name, tensor in one.items() if "lora_B" in name)


def test_padding_does_not_change_log_probabilities(policy: Policy) -> None:
    config = TrainConfig(batch=16)
    rows = rows_of(make_batch(config, policy), config, step=1)
    with torch.no_grad():
        batch = pack(rows)
        together = policy(batch)
        for b, row in enumerate(rows):
            alone = policy(pack([row]))[0]
            assert (together[b][batch.mask_BT[b]] - alone).abs().max() <= 1e-5


def test_log_probabilities_are_those_of_a_plain_forward_pass() -> None:
    policy = Policy(str(STARTER_MODEL), TrainConfig(temperature=0.7), CPU)
    row = Row(prompt_ids=[5, 9, 4], completion_ids=[7, 8], sampler_logprobs=[0, 0], advantage=0, token_weight=0)
    model = AutoModelForCausalLM.from_pretrained(str(STARTER_MODEL), dtype=torch.float32)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[5, 9, 4, 7, 8]])).logits[0]
        expected = torch.log_softmax(logits / 0.7, -1)
        assert policy(pack([row]))[0].tolist() == pytest.approx(
            [float(expected[2, 7]), float(expected[3, 8])], abs=1e-5
        )


def test_token_logprobs_by_hand() -> None:
    logits = torch.tensor([[0.0, 3.0]]).log1p()  # log 1 and log 4
    assert token_logprobs(logits, torch.tensor([1]), 1.0).item() == pytest.approx(-0.22314355)  # log 4/5
    assert token_logprobs(logits, torch.tensor([1]), 0.5).item() == pytest.approx(-0.06062462)  # log 16/17


def test_shards_hold_every_row_once(policy: Policy) -> None:
    config = TrainConfig(batch=32)
    rows = rows_of(make_batch(config, policy), config, step=1)
    shards = [shard(rows, rank, 3) for rank in range(3)]
    assert sorted(id(row) for part in shards for row in part) == sorted(map(id, rows))


def test_a_rank_without_a_sample_still_takes_part(policy: Policy) -> None:
    config = TrainConfig(batch=8)
    rows = rows_of(make_batch(config, policy), config, step=1)[:2]
    (idle,) = [row for rank in range(3) for row in shard(rows, rank, 3) if not row.completion_ids]
    batch = pack([idle])
    loss = policy_loss(
        policy(batch),
        sampler_logprobs_BT=batch.sampler_logprobs_BT,
        mask_BT=batch.mask_BT,
        advantages_B=batch.advantages_B,
        weights_B=batch.token_weights_B,
        kind=config.loss,
        clip_low=0.2,
        clip_high=0.2,
    )
    loss.total.backward()
    assert loss.sums.tokens.tolist() == [0]
    assert all(p.grad is not None and not p.grad.any() for p in policy.trainable)


def test_micro_batches_keep_to_their_budget(policy: Policy) -> None:
    config = TrainConfig(batch=32)
    rows = rows_of(make_batch(config, policy), config, step=1)
    batches = list(micro_batches(rows, 100))
    assert sum(len(b.rows_BL) for b in batches) == len(rows)
    assert all(len(b.tokens_N) <= 100 and b.rows_BL.numel() <= 100 * SPREAD for b in batches)
    long = replace(rows[0], prompt_ids=[5] * 150)
    assert [len(b.tokens_N) for b in micro_batches([long, rows[-1]], 100)] == [len(long), len(rows[-1])]
    siblings = [replace(long, completion_ids=[5], sampler_logprobs=[0.0])] * 8
    assert [len(b.rows_BL) for b in micro_batches(siblings, 200)] == [5, 3], "attention takes each prompt again"


def test_a_sample_the_verifier_could_not_mark_is_no_zero_reward(policy: Policy) -> None:
    config = TrainConfig(batch=8)
    (group,) = make_batch(config, policy, seed=2)
    errors = len(group.samples) - len(group.verified)
    assert errors > 0
    rows = rows_of([group], config, step=1)
    assert len(rows) == len(group.samples) - errors
    assert sum(row.advantage for row in rows) == pytest.approx(0.0, abs=1e-5)


def test_a_gradient_that_is_not_finite_ends_the_run_and_leaves_the_adapter() -> None:
    config = TrainConfig(batch=8)
    learner = Learner(Policy(str(STARTER_MODEL), config, CPU), config)
    batch, before = make_batch(config, learner.policy), learner.policy.adapter_bytes()
    with torch.no_grad():
        next(p for n, p in learner.policy.model.named_parameters() if "layernorm" in n).fill_(float("nan"))
    with pytest.raises(DivergedError, match="step 1"):
        learner.step(batch, 1)
    assert load(learner.policy.adapter_bytes()).keys() == load(before).keys()
    assert learner.policy.adapter_bytes() == before


def test_unknown_lora_target_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no_such_layer") as error:
        Policy(str(STARTER_MODEL), TrainConfig(lora_target="q_proj, no_such_layer"), CPU)
    assert "down_proj" in error.value.fix
    assert Policy(str(STARTER_MODEL), TrainConfig(lora_target="q_proj, v_proj"), CPU).adapter_modules == 8
