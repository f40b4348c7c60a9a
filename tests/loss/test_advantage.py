import pytest
import torch

from rl.core.kinds import AdvantageScale
from rl.learner.advantage import group_advantages

# One right of four: mean 0.25, variance (0.75² + 3 · 0.25²) / 3 = 0.25. One of two: mean 0.5, variance 0.5.
RAGGED = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0]]


def test_grpo_divides_by_the_std_of_each_group() -> None:
    big, small = 0.5 + 1e-4, 0.5**0.5 + 1e-4
    expected = [0.75 / big, -0.25 / big, -0.25 / big, -0.25 / big, -0.5 / small, 0.5 / small]
    assert group_advantages(RAGGED, AdvantageScale.GROUP).tolist() == pytest.approx(expected, rel=1e-6)


def test_dr_grpo_divides_by_nothing() -> None:
    assert group_advantages(RAGGED, AdvantageScale.NONE).tolist() == [0.75, -0.25, -0.25, -0.25, -0.5, 0.5]


def test_batch_scale_centres_by_group_and_divides_by_the_std_of_all_rewards() -> None:
    std = ((2 * (2 / 3) ** 2 + 4 * (1 / 3) ** 2) / 5) ** 0.5  # two ones and four zeros: mean 1/3
    expected = [a / (std + 1e-4) for a in (0.75, -0.25, -0.25, -0.25, -0.5, 0.5)]
    assert group_advantages(RAGGED, AdvantageScale.BATCH).tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scale", AdvantageScale)
@pytest.mark.parametrize("rewards", [[0.7] * 8, [1.0]])
def test_a_group_without_signal_has_no_advantage(scale: AdvantageScale, rewards: list[float]) -> None:
    # In float32 the mean of eight times 0.7 is not 0.7, and the advantage would be 6e-4. One reward has no std.
    advantages = group_advantages([rewards, [0.0, 1.0]], scale)
    assert advantages[:-2].abs().max() < 1e-9
    assert advantages[-1] > 0.4


def test_advantages_are_flat_float32() -> None:
    advantages = group_advantages(RAGGED, AdvantageScale.GROUP)
    assert (advantages.shape, advantages.dtype) == ((6,), torch.float32)


def test_a_group_that_lost_all_its_samples_adds_none() -> None:
    assert group_advantages([[], [0.0, 1.0]], AdvantageScale.NONE).tolist() == [-0.5, 0.5]
