"""Short trials of many learning rates on recorded groups: one policy, put back to its start before each of them."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from rl.buffer.history import History
from rl.core.config import TrainConfig
from rl.core.errors import DivergedError, UsageError
from rl.core.rundir import RunDir
from rl.core.types import Group
from rl.learner.collate import Row, micro_batches
from rl.learner.gain import Recorded, ess, estimated_gain
from rl.learner.policy import Policy
from rl.learner.rates import LOWEST_ESS, Trial
from rl.learner.step import Learner
from rl.problems.models import resolve_model

MEASURED = 128
"""Groups, at most, that the gain is measured on."""
FEWEST = 16
"""Problems: below so many the interval of a gain means little."""


@dataclass(frozen=True, kw_only=True)
class Groups:
    """What a search reads from a ledger."""

    trained: list[list[Group]]
    """The batch of each update."""
    measured: list[Group]
    """Of other problems, and all that were issued after those trained on, whatever became of them: to take only groups
    with signal, or only those without, would bias the gain."""


def read_groups(run: RunDir, steps: int) -> Groups:
    """The batches of the first steps, and what comes after them.

    Raises:
        UsageError: the ledger cannot be read, or too little is recorded after these steps.
    """
    with closing(History(run.buffer_url)) as history:
        trained = [[entry.group for entry in history.trained_in(step)] for step in range(1, steps + 1)]
        last = max(group.id for batch in trained for group in batch)
        problems = {group.problem.id for batch in trained for group in batch}
        later = (e.group for e in history.entries() if e.group.id > last and e.group.problem.id not in problems)
        measured = list(islice((group for group in later if len(group.verified) > 1), MEASURED))
    if len({group.problem.id for group in measured}) < FEWEST:
        fix = "fewer --steps, or leave the run out: fresh rollouts are recorded then"
        message = f"{run.root} has too few groups after step {steps} to measure on: {FEWEST} problems are needed"
        raise UsageError(message, fix=fix)
    return Groups(trained=trained, measured=measured)


class Search:
    """Trials from one start: the policy of the configuration before its first update.

    Raises:
        UsageError: the model cannot be loaded; or the groups were sampled by policies too far from the start.
    """

    def __init__(self, config: TrainConfig, groups: Groups) -> None:
        self._config, self._trained = config, groups.trained
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._policy = Policy(resolve_model(config), config, device)
        self._start = self._policy.adapter_bytes()
        self._rows = [row for group in groups.measured for row in _rows(group)]
        self.recorded = _recorded(groups.measured, self._rows)
        self._tokens, self._completions = self._logprobs()
        self.start_ess = ess(self._completions - self.recorded.sampler_logprobs)
        """Of the start on the measured completions: 1 where it sampled them."""
        if self.start_ess < LOWEST_ESS:
            fix = "leave the run out: fresh rollouts are recorded then"
            raise UsageError("the recorded groups were sampled by policies too far from the start", fix=fix)

    def trials(self, rates: Sequence[float]) -> Iterator[Trial]:
        for lr in rates:
            yield self._trial(lr)

    def _trial(self, lr: float) -> Trial:
        self._policy.load_adapter(self._start)
        learner = Learner(self._policy, self._config.model_copy(update={"lr": lr}))
        try:
            stats = [learner.step(batch, step) for step, batch in enumerate(self._trained, start=1)]
        except DivergedError:
            return _failed(lr, "the gradient is not finite")
        tokens, completions = self._logprobs()
        if not np.isfinite(tokens).all():
            return _failed(lr, "log-probabilities are not finite")
        share = ess(completions - self.recorded.sampler_logprobs)
        return Trial(
            lr=lr,
            moved=float(np.abs(tokens - self._tokens).mean()),
            ess=share,
            gain=estimated_gain(self.recorded, self._completions, completions) if share >= LOWEST_ESS else None,
            clipped=sum(s.clipped_low + s.clipped_high for s in stats) / len(stats),
            grad_norm=sum(s.grad_norm for s in stats) / len(stats),
        )

    @torch.no_grad()
    def _logprobs(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The policy's log-probabilities of the measured tokens, and of the completions: sums over their tokens."""
        tokens, completions = [], []
        for batch in micro_batches(self._rows, self._policy.micro_tokens):
            batch = batch.to(self._policy.device)
            logprobs_BT = self._policy(batch).double()
            tokens.append(logprobs_BT[batch.mask_BT].cpu())
            completions.append(logprobs_BT.where(batch.mask_BT, 0.0).sum(1).cpu())
        return torch.cat(tokens).numpy(), torch.cat(completions).numpy()


def _failed(lr: float, why: str) -> Trial:
    return Trial(lr=lr, moved=None, ess=None, gain=None, clipped=None, grad_norm=None, failure=why)


def _rows(group: Group) -> list[Row]:
    """Of log-probabilities alone: nothing is learned from them."""
    return [
        Row(
            prompt_ids=group.prompt_ids,
            completion_ids=sample.rollout.token_ids,
            sampler_logprobs=sample.rollout.sampler_logprobs,
            advantage=0.0,
            token_weight=0.0,
        )
        for sample in group.verified
    ]


def _recorded(groups: Sequence[Group], rows: Sequence[Row]) -> Recorded:
    of_group = np.repeat(np.arange(len(groups)), [len(group.verified) for group in groups])
    _, problems = np.unique([group.problem.id for group in groups], return_inverse=True)
    return Recorded(
        rewards=np.array([sample.verdict.reward for group in groups for sample in group.verified], dtype=np.float64),
        sampler_logprobs=np.array([sum(row.sampler_logprobs) for row in rows], dtype=np.float64),
        groups=of_group,
        problems=problems[of_group],
    )
