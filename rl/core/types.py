"""The records that travel through the service, in the order in which they are made.

Problem → Rollout×G → Sample×G → Group. They hold facts only: advantages, ratios and losses are estimates, made when a
batch is collated and stored nowhere (a recorded buffer can be replayed under another estimator).
"""

from dataclasses import dataclass

from rewards.verdict import Verdict
from rollout_server.schema import FinishReason


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A question and its reference answer.

    Example: ``Problem(id="9f2c…", text="12+7*3", gold="33")``
    """

    id: str
    """Hash of the text: the same problem has the same id in every run."""
    text: str
    gold: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """One completion as the server sampled it."""

    token_ids: list[int]
    """T tokens, the end-of-sequence token included where there is one."""
    sampler_logprobs: list[float]
    """T natural-log probabilities under the sampling distribution (temperature applied)."""
    policy_version: int
    finish_reason: FinishReason
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A rollout and what the verifier said of it."""

    rollout: Rollout
    verdict: Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """The samples of one problem; the atom of the buffer."""

    id: int
    """The group's entry in the ledger; groups are issued and trained in this order."""
    problem: Problem
    prompt_ids: list[int]
    policy: str | None
    """The sampling policy's name on the server: one launch's, whose versions the rollouts state. None is the base."""
    adapter_sha256: str | None
    """Of the adapter that the server sampled by. None is the base."""
    samples: list[Sample]

    @property
    def verified(self) -> list[Sample]:
        """The samples the verifier could mark: an error is never a zero reward, its sample leaves the group."""
        return [s for s in self.samples if s.verdict.reward is not None]

    @property
    def has_signal(self) -> bool:
        """Whether the rewards differ, i.e. whether any advantage is not zero."""
        return len({s.verdict.reward for s in self.verified}) > 1

    @property
    def oldest_version(self) -> int:
        return min(s.rollout.policy_version for s in self.samples)
