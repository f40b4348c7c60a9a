"""How a batch is cut up, ordered or padded changes nothing, and no disagreement of the policies overflows."""

import math

import pytest
import torch
from torch import Tensor

from rl.core.kinds import LOSS_DEFAULTS, ImportanceMode, LossKind
from rl.learner.loss import LossSums, importance_weights, policy_loss, token_weights


def random_batch(samples: int = 12, tokens: int = 9) -> dict[str, Tensor]:
    """Samples of unequal lengths, stale enough that every clip and cap acts."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    lengths = torch.randint(1, tokens + 1, (samples,), generator=generator)
    policy = normal(samples, tokens) - 3
    return {
        "policy": policy,
        "old_logprobs_BT": policy + normal(samples, tokens),
        "sampler_logprobs_BT": policy + normal(samples, tokens),
        "ref_logprobs_BT": policy + normal(samples, tokens),
        "advantages_B": normal(samples),
        "mask_BT": torch.arange(tokens) < lengths[:, None],
    }


def gradient(
    kind: LossKind, batch: dict[str, Tensor], pieces: list[Tensor], mode: ImportanceMode
) -> tuple[float, Tensor, LossSums]:
    """The loss, its gradient and the sums by sample of a batch that is trained on in these pieces."""
    policy = batch["policy"].clone().requires_grad_()
    weights = token_weights(batch["mask_BT"].sum(1).double(), kind, max_tokens=9)
    defaults = LOSS_DEFAULTS[kind]
    total, sums_FB = 0.0, torch.zeros(len(LossSums._fields), len(policy), dtype=torch.float64)
    for rows in pieces:
        piece = {name: tensor[rows] for name, tensor in batch.items() if name != "policy"}
        old, sampler, mask = (piece[f"{name}_BT"] for name in ("old_logprobs", "sampler_logprobs", "mask"))
        importance = importance_weights(old, sampler, mask, mode, cap=2.0)
        loss = policy_loss(
            policy[rows],
            **piece,
            weights_B=weights[rows],
            kind=kind,
            clip_low=defaults.clip_low,
            clip_high=defaults.clip_high,
            importance_BT=importance,
            beta=0.04,
        )
        loss.total.backward()
        total += loss.total.item()
        sums_FB[:, rows] = torch.stack(loss.sums)
    return total, policy.grad, LossSums(*sums_FB)


@pytest.mark.parametrize("mode", ImportanceMode)
@pytest.mark.parametrize("kind", LossKind)
def test_micro_batches_and_their_order_change_nothing(kind: LossKind, mode: ImportanceMode) -> None:
    batch = random_batch()
    shuffled = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    whole = gradient(kind, batch, [torch.arange(12)], mode)
    for pieces in ([*torch.arange(12).split(1)], [*shuffled.split(5)]):
        total, grad, sums = gradient(kind, batch, pieces, mode)
        assert total == pytest.approx(whole[0], abs=1e-12)
        torch.testing.assert_close(grad, whole[1], rtol=0, atol=1e-12)
        torch.testing.assert_close(sums, whole[2], rtol=0, atol=1e-9)
        assert sums.loss.sum().item() == pytest.approx(total, abs=1e-12)
    assert whole[2].clipped_high.any()


@pytest.mark.parametrize("value", [0.0, 1e30, math.nan])
@pytest.mark.parametrize("mode", ImportanceMode)
@pytest.mark.parametrize("kind", LossKind)
def test_padding_on_either_side_changes_nothing(kind: LossKind, mode: ImportanceMode, value: float) -> None:
    batch = random_batch()
    padded = {
        name: torch.nn.functional.pad(x.masked_fill(~batch["mask_BT"], value), (3, 2), value=value)
        for name, x in batch.items()
        if name.endswith("logprobs_BT") or name == "policy"
    }
    padded["advantages_B"] = batch["advantages_B"]
    padded["mask_BT"] = torch.nn.functional.pad(batch["mask_BT"], (3, 2), value=False)
    everything = [torch.arange(12)]
    total, grad, sums = gradient(kind, batch, everything, mode)
    total_padded, grad_padded, sums_padded = gradient(kind, padded, everything, mode)
    assert total_padded == pytest.approx(total, abs=1e-12)
    torch.testing.assert_close(grad_padded[:, 3:-2], grad, rtol=0, atol=1e-12)
    assert grad_padded[~padded["mask_BT"]].abs().max() == 0
    torch.testing.assert_close(sums_padded, sums, rtol=0, atol=1e-9)


@pytest.mark.parametrize("mode", ImportanceMode)
@pytest.mark.parametrize("kind", LossKind)
def test_extremes_stay_finite_in_float32(kind: LossKind, mode: ImportanceMode) -> None:
    corners = torch.tensor([-1e4, -200.0, -1.0, 0.0])
    grid = torch.cartesian_prod(corners, corners, corners, corners)  # every way to disagree
    batch = {
        "policy": grid[:, :1].repeat(2, 3),
        "old_logprobs_BT": grid[:, 1:2].repeat(2, 3),
        "sampler_logprobs_BT": grid[:, 2:3].repeat(2, 3),
        "ref_logprobs_BT": grid[:, 3:].repeat(2, 3),
        "advantages_B": torch.tensor([1.0, -1.0]).repeat_interleave(len(grid)),
        "mask_BT": torch.ones(2 * len(grid), 3, dtype=torch.bool),
    }
    total, grad, sums = gradient(kind, batch, [torch.arange(2 * len(grid))], mode)
    assert math.isfinite(total)
    assert grad.isfinite().all()
    assert torch.stack(sums).isfinite().all()
