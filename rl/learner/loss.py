"""The loss: pure functions on tensors.

    loss = Σ_b weights_B[b] · Σ_t ( importance_BT · surrogate_BT + β · kl_BT )[b, t]

Axes: B samples, T tokens of a completion; 1 where one number holds for a whole axis. ``mask_BT`` is True on a
completion's own tokens; what lies elsewhere (padding on either side, even NaN) has no influence.

What the sum is divided by is no part of the surrogate. `token_weights` fixes it once, over the global batch;
from then on a loss is a sum over tokens. So micro-batches, padding and ranks cannot change the gradient.

The ratio is policy / old, and there are two ways to choose `old_logprobs`. *PPO against the sampler*:
old = sampler; the clip bounds the step away from it, and importance weights are not needed. *Decoupled*:
old = policy.detach(), so the ratio is 1 with the gradient of log policy, and `importance_weights` of old
against the sampler correct for the difference.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rl.core.kinds import ImportanceMode, LossKind

MAX_LOG_RATIO = 20.0
"""Log ratios are cut here before exp: e²⁰ ≈ 5e8 is beyond every clip and cap in use, and its square is finite
in float32. Only from above: what underflows to 0 is harmless."""


class LossSums(NamedTuple):
    """Sums over the tokens of each sample, [B] in float64, detached. Add them over samples, micro-batches and ranks;
    divide last."""

    tokens: Tensor
    loss: Tensor
    """All that `Loss.total` adds up."""
    clipped_low: Tensor
    """Tokens that the lower bound of the ratio acted on."""
    clipped_high: Tensor
    ratio: Tensor
    """Of policy / old, per token; GSPO: each token has its sequence's."""
    weight: Tensor
    """Of ratio · importance: policy / sampler, whichever way `old_logprobs` were chosen."""
    weight_squared: Tensor
    kl: Tensor
    """Of `kl_to_base`; 0 where there were no `ref_logprobs`."""
    mismatch_kl: Tensor
    """Of `mismatch_kl`."""

    @property
    def ess(self) -> Tensor:
        """Effective sample size (Σw)² / Σw² as a share of tokens: 1 on-policy, near 0 if few decide."""
        return self.weight**2 / (self.tokens * self.weight_squared).clamp(min=1e-30)


@dataclass(frozen=True, slots=True)
class Loss:
    total: Tensor
    """Scalar, with gradient: this micro-batch's part of the global loss."""
    sums: LossSums


def token_weights(lengths_B: Tensor, kind: LossKind, max_tokens: int) -> Tensor:
    """The weight of each sample's tokens in the global loss.

    Args:
        lengths_B: tokens per completion of all samples of the step: every micro-batch and every rank.
        max_tokens: the longest completion the sampler could make; Dr. GRPO's constant.

    Returns:
        weights_B: 1 / (B · length) for GRPO and GSPO, 1 / (B · max_tokens) for Dr. GRPO, 1 / Σ lengths for
        DAPO and CISPO.

    Example:
        >>> token_weights(torch.tensor([1, 3]), LossKind.GRPO, max_tokens=4)
        tensor([0.5000, 0.1667])
        >>> token_weights(torch.tensor([1, 3]), LossKind.DR_GRPO, max_tokens=4)
        tensor([0.1250, 0.1250])
        >>> token_weights(torch.tensor([1, 3]), LossKind.DAPO, max_tokens=4)
        tensor([0.2500, 0.2500])
    """
    match kind:
        case LossKind.GRPO | LossKind.GSPO:
            divisor_B = len(lengths_B) * lengths_B
        case LossKind.DR_GRPO:
            divisor_B = torch.full_like(lengths_B, len(lengths_B) * max_tokens)
        case LossKind.DAPO | LossKind.CISPO:
            divisor_B = lengths_B.sum().expand_as(lengths_B)
    return 1 / divisor_B.clamp(min=1)  # an empty completion adds nothing, and must not divide by zero


def importance_weights(
    old_logprobs_BT: Tensor, sampler_logprobs_BT: Tensor, mask_BT: Tensor, mode: ImportanceMode, cap: float
) -> Tensor:
    """old / sampler, bounded by the cap: corrects the gradient for tokens that another policy sampled.

    A sequence's weight is the product over its tokens. Above the cap it becomes the cap, or 0 (mask).

    Returns:
        importance_BT, detached; 1 under the padding for the token modes.
    """
    log_weight_BT = _difference(old_logprobs_BT, sampler_logprobs_BT, mask_BT).detach()
    if mode in (ImportanceMode.SEQUENCE_TRUNCATE, ImportanceMode.SEQUENCE_MASK):
        log_weight_BT = log_weight_BT.sum(1, keepdim=True).expand_as(log_weight_BT)
    weight_BT = _exp(log_weight_BT)
    if mode in (ImportanceMode.TOKEN_MASK, ImportanceMode.SEQUENCE_MASK):
        return weight_BT.masked_fill(weight_BT > cap, 0.0)
    return weight_BT.clamp(max=cap)


def policy_ratio(policy_logprobs_BT: Tensor, old_logprobs_BT: Tensor, mask_BT: Tensor, kind: LossKind) -> Tensor:
    """policy / old per token, with gradient. GSPO: the sequence's geometric mean at each of its tokens."""
    log_ratio_BT = _difference(policy_logprobs_BT, old_logprobs_BT, mask_BT)
    if kind is LossKind.GSPO:
        mean_B1 = log_ratio_BT.sum(1, keepdim=True) / mask_BT.sum(1, keepdim=True).clamp(min=1)
        log_ratio_BT = mean_B1.expand_as(log_ratio_BT)
    return _exp(log_ratio_BT)


def surrogate(
    ratio_BT: Tensor,
    policy_logprobs_BT: Tensor,
    advantages_B: Tensor,
    kind: LossKind,
    low: float,
    high: float,
) -> Tensor:
    """What is minimised per token, before any weight, for a ratio bounded by [low, high].

    PPO's pessimistic bound −min(ratio · A, clip(ratio) · A), arXiv 1707.06347, eq. 7: a clipped token has no
    gradient. CISPO instead: −clip(ratio).detach() · A · log policy, arXiv 2506.13585, eq. 4.
    """
    advantages_B1 = advantages_B[:, None]
    clipped_BT = ratio_BT.clamp(low, high)
    if kind is LossKind.CISPO:
        return -clipped_BT.detach() * advantages_B1 * policy_logprobs_BT
    return -torch.min(ratio_BT * advantages_B1, clipped_BT * advantages_B1)


def kl_to_base(policy_logprobs_BT: Tensor, ref_logprobs_BT: Tensor, ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """KL(policy ‖ base) per token: Schulman's k3 = e^d − d − 1 with d = ref − policy, times the ratio.

    The ratio carries a gradient. Without it the gradient of k3 is not that of the KL, not even on-policy; with
    a ratio per token it is (DeepSeek-V3.2, arXiv 2512.02556, eq. 7; TRL's default).
    """
    d_BT = _difference(ref_logprobs_BT, policy_logprobs_BT, mask_BT).clamp(max=MAX_LOG_RATIO)
    return (d_BT.exp() - d_BT - 1) * ratio_BT


def mismatch_kl(policy_logprobs_BT: Tensor, sampler_logprobs_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """KL(sampler ‖ policy) per token by k3, in float64: 1e-7 apart it is 5e-15, which float32 cannot tell from 0."""
    d_BT = _difference(policy_logprobs_BT, sampler_logprobs_BT, mask_BT).double().clamp(max=MAX_LOG_RATIO)
    return d_BT.expm1() - d_BT


def policy_loss(
    policy_logprobs_BT: Tensor,
    *,
    sampler_logprobs_BT: Tensor,
    mask_BT: Tensor,
    advantages_B: Tensor,
    weights_B: Tensor,
    kind: LossKind,
    clip_low: float,
    clip_high: float,
    old_logprobs_BT: Tensor | None = None,
    importance_BT: Tensor | None = None,
    ref_logprobs_BT: Tensor | None = None,
    beta: float = 0.0,
) -> Loss:
    """One micro-batch's part of the loss; the sum over all micro-batches and ranks is the loss of the step.

    DDP averages gradients over ranks instead of adding them: multiply `total` by the world size there.

    Args:
        policy_logprobs_BT: of the policy in training, with gradient.
        sampler_logprobs_BT: what the tokens were sampled with.
        mask_BT: bool.
        advantages_B: `group_advantages`.
        weights_B: these samples' rows of `token_weights` over the global batch.
        clip_low, clip_high: as in `kinds.LOSS_DEFAULTS`.
        old_logprobs_BT: what the ratio is taken against (see the top of this file); None is the sampler's.
        importance_BT: `importance_weights`; None is 1. Like TRL's it weighs the surrogate and not the KL.
        ref_logprobs_BT: of the base; None leaves the KL out.
        beta: weight of the KL. With 0 and `ref_logprobs_BT` the KL is only measured.

    Raises:
        ValueError: the shapes do not fit together, or there is a beta and nothing to measure the KL against.
    """
    if beta and ref_logprobs_BT is None:
        raise ValueError(f"beta = {beta} weighs the KL to the base: pass ref_logprobs_BT, or set beta to 0")
    if old_logprobs_BT is None:
        old_logprobs_BT = sampler_logprobs_BT
    _check_shapes(policy_logprobs_BT, (sampler_logprobs_BT, mask_BT, old_logprobs_BT, importance_BT, ref_logprobs_BT))
    _check_shapes(policy_logprobs_BT.sum(1), (advantages_B, weights_B))
    low, high = (clip_low, clip_high) if kind is LossKind.CISPO else (1 - clip_low, 1 + clip_high)

    policy_logprobs_BT = policy_logprobs_BT.masked_fill(~mask_BT, 0.0)
    ratio_BT = policy_ratio(policy_logprobs_BT, old_logprobs_BT, mask_BT, kind)
    loss_BT = surrogate(ratio_BT, policy_logprobs_BT, advantages_B, kind, low, high)
    if importance_BT is not None:
        loss_BT = loss_BT * importance_BT
    kl_BT = torch.zeros_like(ratio_BT)
    if ref_logprobs_BT is not None:
        kl_BT = kl_to_base(policy_logprobs_BT, ref_logprobs_BT, ratio_BT, mask_BT)
        loss_BT = loss_BT + beta * kl_BT
    loss_BT = loss_BT * weights_B[:, None] * mask_BT

    with torch.no_grad():
        weight_BT = ratio_BT if importance_BT is None else ratio_BT * importance_BT
        falls_B1, rises_B1 = advantages_B[:, None] < 0, advantages_B[:, None] > 0
        if kind is LossKind.CISPO:  # its clip acts whichever way the policy is pushed
            falls_B1 = rises_B1 = falls_B1 | rises_B1
        per_token = LossSums(
            tokens=mask_BT,
            loss=loss_BT,
            clipped_low=(ratio_BT < low) & falls_B1,
            clipped_high=(ratio_BT > high) & rises_B1,
            ratio=ratio_BT,
            weight=weight_BT,
            weight_squared=weight_BT**2,
            kl=kl_BT,
            mismatch_kl=mismatch_kl(policy_logprobs_BT, sampler_logprobs_BT, mask_BT),
        )
        sums = LossSums(*((x_BT * mask_BT).sum(1, dtype=torch.float64) for x_BT in per_token))
    return Loss(loss_BT.sum(), sums)


def _difference(a_BT: Tensor, b_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """a − b, and 0 without gradient under the padding."""
    return (a_BT - b_BT).masked_fill(~mask_BT, 0.0)


def _exp(log_ratio_BT: Tensor) -> Tensor:
    return log_ratio_BT.clamp(max=MAX_LOG_RATIO).exp()


def _check_shapes(expected: Tensor, others: tuple[Tensor | None, ...]) -> None:
    shapes = [tuple(x.shape) for x in others if x is not None]
    if any(shape != expected.shape for shape in shapes):
        raise ValueError(
            f"policy_loss: expected {tuple(expected.shape)} like the policy's log-probs, got {shapes}; "
            "advantages and weights have one number per sample, everything else one per token"
        )
