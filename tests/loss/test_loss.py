"""The loss in numbers worked out by hand."""

import math

import pytest
import torch
from torch import Tensor

from rl.core.kinds import ImportanceMode, LossKind
from rl.learner.loss import Loss, LossSums, importance_weights, policy_loss, token_weights

KINDS = list(LossKind)
CLIPPED_PER_TOKEN = [LossKind.GRPO, LossKind.DR_GRPO, LossKind.DAPO]

# The worked case: a good completion of two tokens and a bad one of three, every old log-prob −1.
RATIOS = [[1.5, 1.0], [0.5, 1.0, 1.1]]
ADVANTAGES = torch.tensor([1.0, -2.0], dtype=torch.float64)
MASK = torch.tensor([[True, True, False], [True, True, True]])
LENGTHS = MASK.sum(1)
OLD = torch.full((2, 3), -1.0, dtype=torch.float64)
CLIPS = dict.fromkeys(KINDS, (0.2, 0.2)) | {LossKind.DAPO: (0.2, 0.28), LossKind.CISPO: (0.0, 1.4)}


def worked_policy() -> Tensor:
    ratios = torch.tensor([[*RATIOS[0], 1.0], RATIOS[1]], dtype=torch.float64)
    return (OLD + ratios.log()).requires_grad_()


def worked_loss(kind: LossKind, policy: Tensor, **kwargs: object) -> Loss:
    low, high = CLIPS[kind]
    return policy_loss(
        policy,
        **{
            "sampler_logprobs_BT": OLD,
            "mask_BT": MASK,
            "advantages_B": ADVANTAGES,
            "weights_B": token_weights(LENGTHS.double(), kind, max_tokens=4),
            "kind": kind,
            "clip_low": low,
            "clip_high": high,
            **kwargs,
        },
    )


def total(sums: LossSums) -> LossSums:
    return LossSums(*(sums_B.sum() for sums_B in sums))


# Per token −min(r·A, clip(r)·A). Good: −1.2 (clipped from 1.5), −1. Bad: +1.6 (clipped from 0.5), +2, +2.2.
BY_HAND = {
    LossKind.GRPO: ((-1.2 - 1.0) / 2 + (1.6 + 2.0 + 2.2) / 3) / 2,
    LossKind.DR_GRPO: (-1.2 - 1.0 + 1.6 + 2.0 + 2.2) / (2 * 4),
    LossKind.DAPO: (-1.28 - 1.0 + 1.6 + 2.0 + 2.2) / 5,
    # √1.5 = 1.22 is clipped to 1.2; ∛(0.5 · 1.1) = 0.819 is inside.
    LossKind.GSPO: (-1.2 + 2 * 0.55 ** (1 / 3)) / 2,
    # −min(r, 1.4) · A · log policy, where log policy = −1 + log r.
    LossKind.CISPO: (
        -1.4 * (-1 + math.log(1.5))
        - 1.0 * -1
        + 2 * (0.5 * (-1 + math.log(0.5)) + 1.0 * -1 + 1.1 * (-1 + math.log(1.1)))
    )
    / 5,
}


@pytest.mark.parametrize("kind", KINDS)
def test_loss_by_hand(kind: LossKind) -> None:
    assert worked_loss(kind, worked_policy()).total.item() == pytest.approx(BY_HAND[kind], abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (LossKind.GRPO, [1 / 4, 1 / 6]),
        (LossKind.GSPO, [1 / 4, 1 / 6]),
        (LossKind.DR_GRPO, [1 / 8, 1 / 8]),
        (LossKind.DAPO, [1 / 5, 1 / 5]),
        (LossKind.CISPO, [1 / 5, 1 / 5]),
    ],
)
def test_token_weights_by_hand(kind: LossKind, expected: list[float]) -> None:
    assert token_weights(LENGTHS, kind, max_tokens=4).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_on_policy_gradient_is_that_of_reinforce(kind: LossKind) -> None:
    policy = worked_policy()
    worked_loss(kind, policy, old_logprobs_BT=policy.detach()).total.backward()
    weights = token_weights(LENGTHS.double(), kind, max_tokens=4)
    torch.testing.assert_close(policy.grad, -(ADVANTAGES * weights)[:, None] * MASK, rtol=0, atol=1e-15)


@pytest.mark.parametrize("kind", CLIPPED_PER_TOKEN)
def test_a_clipped_token_has_no_gradient(kind: LossKind) -> None:
    policy = worked_policy()
    worked_loss(kind, policy).total.backward()
    has_gradient = policy.grad != 0
    assert has_gradient.tolist() == [[False, True, False], [False, True, True]]


def test_gspo_clips_a_whole_sequence() -> None:
    policy = worked_policy()
    worked_loss(LossKind.GSPO, policy).total.backward()
    assert (policy.grad != 0).tolist() == [[False, False, False], [True, True, True]]


def test_cispo_keeps_the_gradient_of_a_clipped_token() -> None:
    policy = worked_policy()
    worked_loss(LossKind.CISPO, policy).total.backward()
    assert policy.grad[0].tolist() == pytest.approx([-1.4 / 5, -1.0 / 5, 0.0])


@pytest.mark.parametrize("kind", CLIPPED_PER_TOKEN)
def test_the_clip_never_protects_a_step_in_the_wrong_direction(kind: LossKind) -> None:
    # A good token that fell and a bad one that rose lie outside the bounds, and must still be pulled back.
    policy = (OLD + torch.tensor([[0.5], [1.5]], dtype=torch.float64).log()).requires_grad_()
    loss = worked_loss(kind, policy)
    loss.total.backward()
    assert (policy.grad != 0).equal(MASK)
    assert not loss.sums.clipped_low.any()
    assert not loss.sums.clipped_high.any()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (ImportanceMode.TOKEN_TRUNCATE, [[2.0, 0.5, 1.0], [1.5, 1.0, 1.0]]),
        (ImportanceMode.TOKEN_MASK, [[0.0, 0.5, 1.0], [1.5, 1.0, 1.0]]),
        (ImportanceMode.SEQUENCE_TRUNCATE, [[2.0, 2.0, 2.0], [1.5, 1.5, 1.5]]),
        (ImportanceMode.SEQUENCE_MASK, [[0.0, 0.0, 0.0], [1.5, 1.5, 1.5]]),
    ],
)
def test_importance_weights_by_hand(mode: ImportanceMode, expected: list[list[float]]) -> None:
    # old / sampler; the sequences' products are 5 · 0.5 = 2.5, above the cap of 2, and 1.5. The 9 is padding.
    ratios = torch.tensor([[5.0, 0.5, 9.0], [1.5, 1.0, 1.0]], dtype=torch.float64)
    old = (OLD + ratios.log()).requires_grad_()
    weights = importance_weights(old, OLD, MASK, mode, cap=2.0)
    assert not weights.requires_grad
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_importance_weights_scale_the_surrogate(kind: LossKind) -> None:
    policy = worked_policy()
    importance = torch.tensor([[3.0], [0.0]], dtype=torch.float64).expand(2, 3)
    worked_loss(kind, policy, old_logprobs_BT=policy.detach(), importance_BT=importance).total.backward()
    weights = token_weights(LENGTHS.double(), kind, max_tokens=4)
    expected = -(ADVANTAGES * weights)[:, None] * MASK * importance
    torch.testing.assert_close(policy.grad, expected, rtol=0, atol=1e-15)


def test_kl_by_hand() -> None:
    # ref / policy = 2 where the ratio is 1: k3 = 2 − log 2 − 1. Not weighed by the importance.
    policy = OLD.clone().requires_grad_()
    loss = worked_loss(
        LossKind.DAPO,
        policy,
        advantages_B=torch.zeros(2, dtype=torch.float64),
        importance_BT=torch.full_like(OLD, 0.5),
        ref_logprobs_BT=OLD + math.log(2),
        beta=0.1,
    )
    loss.total.backward()
    assert loss.total.item() == pytest.approx(0.1 * (1 - math.log(2)))
    assert loss.sums.kl.tolist() == pytest.approx([2 * (1 - math.log(2)), 3 * (1 - math.log(2))])
    # The score-function gradient of KL(policy ‖ ref) on a sampled token: log policy − log ref.
    torch.testing.assert_close(policy.grad, -0.1 * math.log(2) / 5 * MASK.double())


def test_kl_is_weighed_by_the_ratio_off_policy() -> None:
    policy = worked_policy()
    ref = policy.detach() + math.log(2)
    loss = worked_loss(LossKind.DAPO, policy, ref_logprobs_BT=ref, beta=0.1)
    expected = BY_HAND[LossKind.DAPO] + 0.1 * (1 - math.log(2)) * (1.5 + 1.0 + 0.5 + 1.0 + 1.1) / 5
    assert loss.total.item() == pytest.approx(expected)


def test_beta_zero_only_measures_the_kl() -> None:
    policy = worked_policy()
    loss = worked_loss(LossKind.DAPO, policy, ref_logprobs_BT=OLD)
    assert loss.total.item() == pytest.approx(BY_HAND[LossKind.DAPO])
    assert total(loss.sums).kl > 0


def test_sums_by_hand() -> None:
    sums = worked_loss(LossKind.GRPO, worked_policy()).sums
    assert sums.tokens.tolist() == [2, 3]
    assert sums.clipped_low.tolist() == [0, 1]
    assert sums.clipped_high.tolist() == [1, 0]
    assert sums.ratio.tolist() == pytest.approx([2.5, 2.6])
    assert sums.loss.tolist() == pytest.approx([(-1.2 - 1.0) / 2 / 2, (1.6 + 2.0 + 2.2) / 3 / 2])
    assert sums.ess.tolist() == pytest.approx([2.5**2 / (2 * 3.25), 2.6**2 / (3 * 2.46)])
    assert total(sums).ess.item() == pytest.approx(5.1**2 / (5 * (2.25 + 1 + 0.25 + 1 + 1.21)))
    assert not any(s.requires_grad for s in sums)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("old", [None, "policy"])
def test_the_mismatch_is_with_the_sampler_whatever_the_ratio_is_taken_against(kind: LossKind, old: str | None) -> None:
    policy = worked_policy()
    loss = worked_loss(kind, policy, old_logprobs_BT=policy.detach() if old else None)
    by_hand = [[r - 1 - math.log(r) for r in ratios] for ratios in RATIOS]
    assert loss.sums.mismatch_kl.tolist() == pytest.approx([*map(sum, by_hand)])


def test_a_mismatch_of_one_float_is_measured() -> None:
    sampler = torch.full((2, 3), -0.5)
    policy = torch.nextafter(sampler, torch.zeros(()))
    loss = worked_loss(LossKind.GRPO, policy.requires_grad_(), sampler_logprobs_BT=sampler)
    one = 2.0**-25
    assert loss.sums.mismatch_kl.tolist() == pytest.approx([2 * one**2 / 2, 3 * one**2 / 2], rel=1e-6, abs=0)


def test_ess_sees_the_importance_weights() -> None:
    importance = torch.tensor([[1.0], [0.0]], dtype=torch.float64).expand(2, 3)
    policy = worked_policy()
    sums = worked_loss(LossKind.GRPO, policy, old_logprobs_BT=policy.detach(), importance_BT=importance).sums
    assert total(sums).ess.item() == pytest.approx(2 / 5)  # two tokens of five have all the weight


def test_an_empty_completion_adds_nothing() -> None:
    for kind in KINDS:
        lengths = torch.tensor([2.0, 0.0], dtype=torch.float64)
        mask = MASK & torch.tensor([[True], [False]])
        loss = worked_loss(kind, worked_policy(), mask_BT=mask, weights_B=token_weights(lengths, kind, 4))
        assert loss.total.isfinite()
        assert loss.sums.tokens.tolist() == [2, 0]


def test_beta_without_a_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="ref_logprobs_BT"):
        worked_loss(LossKind.GRPO, worked_policy(), beta=0.04)


@pytest.mark.parametrize(
    "wrong",
    [
        {"advantages_B": ADVANTAGES[:, None]},
        {"advantages_B": ADVANTAGES[:1]},
        {"sampler_logprobs_BT": OLD[:, :2]},
        {"old_logprobs_BT": OLD[:, :2]},
        {"weights_B": torch.tensor(0.5)},
    ],
)
def test_shapes_that_would_broadcast_are_refused(wrong: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="one number per sample"):
        worked_loss(LossKind.GRPO, worked_policy(), **wrong)
