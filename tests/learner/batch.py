"""Batches made by hand for the tests of the learner: random tokens of uneven lengths, a stale sampler, some errors."""

import random
from dataclasses import replace

import torch

from rewards.verdict import Mark, Verdict
from rl.core.config import TrainConfig
from rl.core.types import Group, Problem, Rollout, Sample
from rl.learner.collate import Row, pack
from rl.learner.policy import Policy


def make_batch(config: TrainConfig, policy: Policy, seed: int = 0) -> list[Group]:
    """Samples whose sampler is near the policy, as a stale one is: some ratios are clipped, most are not."""
    rng = random.Random(seed)
    groups = [_group(i, config.group_size, rng) for i in range(1, config.batch // config.group_size + 1)]
    return [replace(g, samples=[_sampled(g.prompt_ids, s, policy, rng) for s in g.samples]) for g in groups]


def _group(id: int, size: int, rng: random.Random) -> Group:
    marks = [Mark.RIGHT, Mark.WRONG, *rng.choices(list(Mark), weights=(4, 4, 1), k=size - 2)]
    return Group(
        id=id,
        problem=Problem(id=str(id), text="1+1", gold="2"),
        prompt_ids=[rng.randint(3, 20) for _ in range(rng.randint(2, 9))],
        policy=None,
        adapter_sha256=None,
        samples=[_sample(mark, rng) for mark in marks],
    )


def _sample(mark: Mark, rng: random.Random) -> Sample:
    length = rng.randint(1, 24)
    rollout = Rollout(
        token_ids=[rng.randint(3, 20) for _ in range(length)],
        sampler_logprobs=[],
        policy_version=0,
        finish_reason="stop",
        text="",
    )
    return Sample(rollout=rollout, verdict=Verdict(mark=mark, reason="by hand", answer=None, gold="2"))


def _sampled(prompt_ids: list[int], sample: Sample, policy: Policy, rng: random.Random) -> Sample:
    tokens = sample.rollout.token_ids
    row = Row(
        prompt_ids=prompt_ids,
        completion_ids=tokens,
        sampler_logprobs=[0.0] * len(tokens),
        advantage=0.0,
        token_weight=0.0,
    )
    with torch.no_grad(), policy.adapter_off():
        logprobs = [x + rng.gauss(0, 0.15) for x in policy(pack([row]))[0].tolist()]
    return replace(sample, rollout=replace(sample.rollout, sampler_logprobs=logprobs))
