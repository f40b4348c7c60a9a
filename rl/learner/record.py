"""What is logged of a step; `rl.core.metrics` says what each number is."""

from collections.abc import Sequence
from dataclasses import asdict
from math import fsum
from typing import Any

from rl.buffer.ledger import Turn
from rl.buffer.tables import State
from rl.core.types import Group, Rollout
from rl.learner.collate import staleness_of
from rl.learner.publish import Proof
from rl.learner.step import StepStats
from rl.problems.order import ProblemOrder


def step_record(
    step: int,
    groups: Sequence[Group],
    turn: Turn,
    stats: StepStats,
    proof: Proof | None,
    order: ProblemOrder,
    *,
    wait_s: float,
    step_s: float,
) -> dict[str, Any]:
    """One record of `metrics.jsonl`.

    Args:
        groups: those trained on.
        turn: those whose turn came, without signal included.
        proof: of the published version; None in a replay, whose fields of it are None too.
        order: of the training problems. Every group before the last one here had its turn, as groups are trained in the
            order of issue: so what was seen follows from that group's id.
    """
    samples = [sample for group in groups for sample in group.verified]
    rollouts = [sample.rollout for sample in samples]
    staleness = [staleness_of(rollout, step) for rollout in rollouts]
    last = max(group.id for group in groups)
    return {
        "step": step,
        "epoch": order.epoch(last),
        "coverage": order.coverage(last),
        "reward": turn.reward,
        "reward_trained": sum(sample.verdict.reward or 0.0 for sample in samples) / len(samples),
        "no_signal": turn.states.get(State.NO_SIGNAL, 0) / sum(turn.states.values()),
        "unverified": turn.states.get(State.UNVERIFIED, 0),
        "errors": sum(len(group.samples) for group in groups) - len(samples),
        "length": sum(len(rollout.token_ids) for rollout in rollouts) / len(rollouts),
        "truncated": sum(rollout.finish_reason == "length" for rollout in rollouts) / len(rollouts),
        "staleness_mean": sum(staleness) / len(staleness),
        "staleness_max": max(staleness),
        "entropy": entropy(rollouts),
        **asdict(stats),
        "mismatch_kl": proof.mismatch_kl if proof else None,
        "publish_s": proof.publish_s if proof else None,
        "wait_s": wait_s,
        "step_s": step_s,
    }


def entropy(rollouts: Sequence[Rollout]) -> float:
    """Of the sampler, at its temperature, in nats a token: the mean of −sampler_logprob over these tokens.

    Under μ the expectation of −log μ(token) is the entropy of μ: a Monte Carlo estimate of the mean entropy of the next
    token, without bias at the places where it is taken. Those are a batch's, of groups with signal alone: where the
    policy is sure of many problems, its entropy over all of them is lower.

    Example: log-probabilities (−0.1, −0.5) and (−0.3,) give 0.3.
    """
    logprobs = [logprob for rollout in rollouts for logprob in rollout.sampler_logprobs]
    return -fsum(logprobs) / len(logprobs)
