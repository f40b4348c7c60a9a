"""Groups → the tensors of one update. Advantages are made here, and stored nowhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby

import torch
from torch import Tensor

from rl.core.config import TrainConfig
from rl.core.types import Group, Rollout
from rl.learner.advantage import group_advantages
from rl.learner.loss import token_weights

SPREAD = 4
"""Places that attention may compute for each token: those of a prompt it computes once for each of its samples."""


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
    """B samples as N tokens, without padding; a prompt that samples have in common is there once.

    L is the longest sample, T the longest completion; M counts the tokens of all completions, sample by sample.
    """

    tokens_N: Tensor
    positions_N: Tensor
    """of each token in its sample"""
    rows_BL: Tensor
    """which of the N each token of a sample is; padded on the right with any"""
    places_N: Tensor
    """a place of each of the N in the flattened `rows_BL`"""
    before_M: Tensor
    """the place in the flattened `rows_BL` that a completion's token follows"""
    completion_M: Tensor
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
    """This rank's share: rows that follow one another, so that few prompts are computed by two ranks. All ranks have
    the same number of tokens, up to one sample.

    A rank that would be left without any gets a row without a completion: it has no part in the loss, and the rank
    still takes part in the backward pass that the others wait for.
    """
    ends = list(accumulate(map(len, rows)))
    ranks = [(2 * end - len(row)) * world // (2 * ends[-1]) for row, end in zip(rows, ends, strict=True)]
    share = [row for row, its in zip(rows, ranks, strict=True) if its == rank]
    return _by_length(share) or [replace(rows[0], completion_ids=[], sampler_logprobs=[])]


def micro_batches(rows: Sequence[Row], micro_tokens: int) -> Iterator[MiniBatch]:
    """Batches of at most `micro_tokens` tokens, and `SPREAD` places for each, of rows in this order; a longer row makes
    a batch of its own."""
    pending: list[Row] = []
    tokens = longest = 0
    for row in rows:
        shared = bool(pending) and pending[-1].prompt_ids == row.prompt_ids
        tokens += len(row.completion_ids) if shared else len(row)
        longest = max(longest, len(row))
        if pending and (tokens > micro_tokens or (len(pending) + 1) * longest > SPREAD * micro_tokens):
            yield pack(pending)
            pending, tokens, longest = [], len(row), len(row)
        pending.append(row)
    if pending:
        yield pack(pending)


def _by_length(rows: Sequence[Row]) -> list[Row]:
    """Those of one prompt together, and prompts in the order of their longest sample, to which attention pads."""
    groups = [list(group) for _, group in groupby(rows, key=lambda row: row.prompt_ids)]
    return [row for group in sorted(groups, key=lambda group: max(map(len, group))) for row in group]


def pack(rows: Sequence[Row]) -> MiniBatch:
    """Rows → tensors. Rows that follow one another share their prompt where they have the same."""
    length = max(map(len, rows))
    tokens: list[int] = []
    positions: list[int] = []
    places: list[int] = []
    before: list[int] = []
    rows_BL = torch.zeros(len(rows), length, dtype=torch.long)
    prompt: range = range(0)
    for b, row in enumerate(rows):
        here = range(b * length, b * length + len(row))
        if b == 0 or row.prompt_ids != rows[b - 1].prompt_ids:
            prompt = range(len(tokens), len(tokens) + len(row.prompt_ids))
            tokens += row.prompt_ids
            positions += range(len(prompt))
            places += here[: len(prompt)]
        rows_BL[b, : len(row)] = torch.tensor([*prompt, *range(len(tokens), len(tokens) + len(row.completion_ids))])
        tokens += row.completion_ids
        positions += range(len(prompt), len(row))
        places += here[len(prompt) :]
        before += here[len(prompt) - 1 : -1]
    lengths_B = torch.tensor([len(row.completion_ids) for row in rows])
    mask_BT = torch.arange(int(lengths_B.max())) < lengths_B[:, None]
    sampler_logprobs_BT = torch.zeros(mask_BT.shape)
    sampler_logprobs_BT.masked_scatter_(
        mask_BT, torch.tensor([x for row in rows for x in row.sampler_logprobs], dtype=torch.float32)
    )
    return MiniBatch(
        tokens_N=torch.tensor(tokens),
        positions_N=torch.tensor(positions),
        rows_BL=rows_BL,
        places_N=torch.tensor(places),
        before_M=torch.tensor(before, dtype=torch.long),
        completion_M=torch.tensor([token for row in rows for token in row.completion_ids], dtype=torch.long),
        mask_BT=mask_BT,
        sampler_logprobs_BT=sampler_logprobs_BT,
        advantages_B=torch.tensor([row.advantage for row in rows]),
        token_weights_B=torch.tensor([row.token_weight for row in rows]),
        staleness_B=torch.tensor([row.staleness for row in rows]),
    )
