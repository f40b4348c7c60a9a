"""One optimizer step: a batch of groups in, an updated adapter and its statistics out."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from rl.core.config import TrainConfig
from rl.core.errors import DivergedError
from rl.core.types import Group
from rl.learner.ages import AgeStats, age_classes, age_stats
from rl.learner.collate import MiniBatch, micro_batches, rows_of, shard
from rl.learner.loss import Loss, LossSums, importance_weights, policy_loss
from rl.learner.optimizer import make_optimizer
from rl.learner.policy import Policy


@dataclass(frozen=True, kw_only=True)
class StepStats:
    """What one update did, over all ranks. Ratios and shares are means over tokens."""

    loss: float
    grad_norm: float
    """before clipping"""
    lr: float
    ratio: float
    clipped_low: float
    clipped_high: float
    ess: float
    kl: float
    """to the base; 0 where `kl_coef` is 0"""
    by_age: dict[str, AgeStats]
    tokens: int
    train_s: float


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """What is known once a step's gradient is there, beside that itself."""

    sums_AF: Tensor
    """the fields F of `LossSums` for each class of age A, over all ranks"""
    seconds: float


class Learner:
    """Policy and optimizer of one rank. With several ranks the process group must be up; each gets the whole batch and
    computes its share."""

    def __init__(self, policy: Policy, config: TrainConfig) -> None:
        self.policy = policy
        self._config = config
        self._rank, self._world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self._ages = age_classes(config.staleness_bound)
        # Looking for unused parameters (there are none) has DDP sum every step in the same buckets: otherwise its first
        # step has buckets of its own, and three ranks or more add up to other bits in the first step after a resume.
        self._model = DistributedDataParallel(policy, find_unused_parameters=True) if self._world > 1 else policy
        self.optimizer = make_optimizer(policy.trainable, config)

    def step(self, groups: Sequence[Group], step: int) -> StepStats:
        """The update that makes `step`. Raises as `update`."""
        return self.update(self.gradient(groups, step), step)

    def gradient(self, groups: Sequence[Group], step: int, between: Callable[[], None] = lambda: None) -> "Gradient":
        """Accumulates that of the step's loss, and leaves the policy as it is.

        Args:
            between: called after each pass, when nothing is computed with the policy.
        """
        start = time.monotonic()
        torch.manual_seed(self._config.seed + step * self._world + self._rank)  # of dropout: a resume needs no state
        self.optimizer.zero_grad()
        sums_AF = self._backward(groups, step, between)
        return Gradient(sums_AF=sums_AF, seconds=time.monotonic() - start)

    def update(self, gradient: "Gradient", step: int) -> StepStats:
        """Makes the optimizer's step.

        Raises:
            DivergedError: the gradient is not finite; the adapter is left as it was.
        """
        start = time.monotonic()
        lr = self._config.lr_at(step)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = lr
        sums = LossSums(*gradient.sums_AF.sum(0))
        loss = float(sums.loss)
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self.policy.trainable, self._config.grad_clip))
        if not math.isfinite(grad_norm):
            fix = "lower --lr or --grad-clip in a new run"
            raise DivergedError(f"the gradient of step {step} is not finite (loss {loss})", fix=fix)
        self.optimizer.step()
        mean = LossSums(*(sums_of / sums.tokens for sums_of in sums))
        return StepStats(
            loss=loss,
            grad_norm=grad_norm,
            lr=lr,
            ratio=float(mean.ratio),
            clipped_low=float(mean.clipped_low),
            clipped_high=float(mean.clipped_high),
            ess=float(sums.ess),
            kl=float(mean.kl),
            by_age=age_stats(gradient.sums_AF, self._ages),
            tokens=int(sums.tokens),
            train_s=gradient.seconds + time.monotonic() - start,
        )

    def _backward(self, groups: Sequence[Group], step: int, between: Callable[[], None]) -> Tensor:
        """Accumulates the gradient of the global loss; returns the fields F of its `LossSums` for each class of age A,
        over all ranks, on the CPU."""
        rows = shard(rows_of(groups, self._config, step), self._rank, self._world)
        batches = list(micro_batches(rows, self.policy.micro_tokens))
        shape = (len(self._ages), len(LossSums._fields))
        sums_AF = torch.zeros(shape, dtype=torch.float64, device=self.policy.device)
        for i, batch in enumerate(batches, start=1):
            with self._last_synchronizes(i == len(batches)):
                batch = batch.to(self.policy.device)
                loss = self._loss(batch)
                # DDP averages over ranks, and the parts of the loss are to be added
                (loss.total * self._world).backward()  # type: ignore[no-untyped-call]
            sums_AF.index_add_(0, batch.staleness_B // len(self._ages[0]), torch.stack(loss.sums, dim=1))
            between()
        if self._world > 1:
            dist.all_reduce(sums_AF)
        return sums_AF.cpu()

    def _loss(self, batch: MiniBatch) -> Loss:
        config = self._config
        policy_logprobs_BT: Tensor = self._model(batch)
        old_BT = importance_BT = ref_BT = None
        if config.importance is not None:
            old_BT = policy_logprobs_BT.detach()
            importance_BT = importance_weights(
                old_BT, batch.sampler_logprobs_BT, batch.mask_BT, config.importance, config.importance_cap
            )
        if config.kl_coef:
            with torch.no_grad(), self.policy.adapter_off():
                ref_BT = self.policy(batch)
        clip_low, clip_high = config.clip
        return policy_loss(
            policy_logprobs_BT,
            sampler_logprobs_BT=batch.sampler_logprobs_BT,
            mask_BT=batch.mask_BT,
            advantages_B=batch.advantages_B,
            weights_B=batch.token_weights_B,
            kind=config.loss,
            clip_low=clip_low,
            clip_high=clip_high,
            old_logprobs_BT=old_BT,
            importance_BT=importance_BT,
            ref_logprobs_BT=ref_BT,
            beta=config.kl_coef,
        )

    def _last_synchronizes(self, last: bool) -> "nullcontext[None]":
        """DDP sums gradients over ranks once a step: in the last backward pass."""
        if last or not isinstance(self._model, DistributedDataParallel):
            return nullcontext()
        return self._model.no_sync()  # type: ignore[return-value]
