"""Groups → the tensors of one update. Advantages are made here, and stored nowhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rl.core.config import TrainConfig
from rl.core.types import Group, Rollout
from rl.learner.advantage import group_advantages
from rl.learner.loss import token_weights


@dataclass(frozen=True, kw_only=True)
class Row:
    """One sample with its share in the global loss, which no split into micro-batches or ranks can change."""

    prompt_ids: list[int]
    completion_ids: list[int]
    sampler_logprobs: list[float]
    advantage: float
    token_weight: float
    staleness: int = 0
    """Steps that the policy in training is ahead of the one that sampled it."""

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True, kw_only=True)
class MiniBatch:
    """B samples; prompts padded on the left, completions on the right, so that all completions begin in one column.

    L is the width of prompt and completion together, T that of the completions.
    """

    tokens_BL: Tensor
    attention_BL: Tensor
    positions_BL: Tensor
    completion_BT: Tensor
    mask_BT: Tensor
    """True at the completion's tokens"""
    sampler_logprobs_BT: Tensor
    advantages_B: Tensor
    token_weights_B: Tensor
    staleness_B: Tensor

    def to(self, device: torch.device) -> "MiniBatch":
        return MiniBatch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def rows_of(groups: Sequence[Group], config: TrainConfig, step: int) -> list[Row]:
    """The verified samples of a whole batch, with advantages and with weights over the global count of tokens.

    Args:
        step: the one that they are trained in.

    Raises:
        ValueError: a sample is older than the configuration's bound, or of a version that is not made yet.
    """
    samples = [(group, sample) for group in groups for sample in group.verified]
    rewards = [[sample.verdict.reward or 0.0 for sample in group.verified] for group in groups]
    lengths_B = torch.tensor([len(sample.rollout.token_ids) for _, sample in samples])
    advantages = group_advantages(rewards, config.scale).tolist()
    weights = token_weights(lengths_B, config.loss, config.max_tokens).tolist()
    stale = [staleness_of(sample.rollout, step) for _, sample in samples]
    if min(stale) < 0 or max(stale) > config.staleness_bound:
        bounds = f"{min(stale)} to {max(stale)} steps stale, and 0 to {config.staleness_bound} are allowed"
        raise ValueError(f"the samples of step {step} are {bounds}")
    return [
        Row(
            prompt_ids=group.prompt_ids,
            completion_ids=sample.rollout.token_ids,
            sampler_logprobs=sample.rollout.sampler_logprobs,
            advantage=advantage,
            token_weight=weight,
            staleness=staleness,
        )
        for (group, sample), advantage, weight, staleness in zip(samples, advantages, weights, stale, strict=True)
    ]


def staleness_of(rollout: Rollout, step: int) -> int:
    """Steps that the learner's version is ahead of the sample's in the update that makes `step`."""
    return step - 1 - rollout.policy_version


def shard(rows: Sequence[Row], rank: int, world: int) -> list[Row]:
    """This rank's share: every world-th row in the order of length, so that ranks have about the same work.

    A rank that would be left without any gets a row without a completion: it has no part in the loss, and the rank
    still takes part in the backward pass that the others wait for.
    """
    share = sorted(rows, key=len, reverse=True)[rank::world]
    return share or [replace(rows[0], completion_ids=[], sampler_logprobs=[])]


def micro_batches(rows: Sequence[Row], micro_tokens: int) -> Iterator[MiniBatch]:
    """Batches of at most `micro_tokens` tokens, padding counted; a longer row makes a batch of its own."""
    pending: list[Row] = []
    for row in rows:
        if pending and padded_tokens([*pending, row]) > micro_tokens:
            yield pad(pending)
            pending = []
        pending.append(row)
    if pending:
        yield pad(pending)


def padded_tokens(rows: Sequence[Row]) -> int:
    """Size of `pad(rows)`: prompts and completions are padded each to their own longest."""
    return len(rows) * (max(len(row.prompt_ids) for row in rows) + max(len(row.completion_ids) for row in rows))


def pad(rows: Sequence[Row]) -> MiniBatch:
    """Rows → tensors. Padding has token 0, log-probability 0 and no weight."""
    left = max(len(row.prompt_ids) for row in rows)
    right = max(len(row.completion_ids) for row in rows)
    tokens_BL = torch.zeros(len(rows), left + right, dtype=torch.long)
    attention_BL = torch.zeros_like(tokens_BL)
    sampler_logprobs_BT = torch.zeros(len(rows), right)
    for b, row in enumerate(rows):
        begin, end = left - len(row.prompt_ids), left + len(row.completion_ids)
        tokens_BL[b, begin:end] = torch.tensor(row.prompt_ids + row.completion_ids)
        attention_BL[b, begin:end] = 1
        sampler_logprobs_BT[b, : len(row.completion_ids)] = torch.tensor(row.sampler_logprobs)
    return MiniBatch(
        tokens_BL=tokens_BL,
        attention_BL=attention_BL,
        positions_BL=(attention_BL.cumsum(1) - 1).clamp(min=0),
        completion_BT=tokens_BL[:, left:],
        mask_BT=attention_BL[:, left:].bool(),
        sampler_logprobs_BT=sampler_logprobs_BT,
        advantages_B=torch.tensor([row.advantage for row in rows]),
        token_weights_B=torch.tensor([row.token_weight for row in rows]),
        staleness_B=torch.tensor([row.staleness for row in rows]),
    )
