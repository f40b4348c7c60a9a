"""What would show a difference: hand-computed cases. That it would is tests/study/test_simulation.py's."""

import numpy as np
import pytest

from rl.evaluate.arms import seed_noise
from rl.evaluate.power import needed
from tests.evaluate.test_arms import scores


def test_questions_of_a_hand_computed_case() -> None:
    """Differences of ±0.5 in equal parts, and the interval's two pseudo-questions of ±√(26 / 101), have the variance
    (25 + 52 / 101) / 102, of their mean a 102nd of it: ((2.005 + 0.842) / 0.1)² · 100 / 102 · that."""
    base = np.full((1, 100), 0.5)
    other = np.array([[0.0, 1.0] * 50])
    expected = (2.005 + 0.8416) ** 2 * 100 * (25 + 52 / 101) / 102 * 100 / 102
    assert needed(base, other, effect=0.1).questions == pytest.approx(expected, abs=1)
    assert needed(base, other).seeds is None  # one seed tells nothing of seeds


def test_half_the_effect_takes_four_times_the_questions_and_a_correction_takes_more() -> None:
    base, other = scores(1, 300), scores(1, 300, chance=1)
    once = needed(base, other, effect=0.04).questions
    assert needed(base, other, effect=0.02).questions == pytest.approx(4 * (once or 0), rel=0.01)
    assert (needed(base, other, effect=0.04, comparisons=10).questions or 0) > 1.4 * (once or 0)


def test_where_seeds_scatter_no_number_of_questions_is_enough() -> None:
    arms = [scores(3, 500, chance=n, spread=0.1) for n in (1, 2)]
    asked = needed(*arms, effect=0.05, noise=seed_noise(arms))
    assert asked.questions is None
    assert asked.seeds is not None
    assert asked.seeds > 10


def test_where_questions_are_few_no_number_of_seeds_is_enough() -> None:
    rng = np.random.default_rng(0)
    base, other = (np.tile(rng.integers(0, 2, 20), (3, 1)) * 1.0 for _ in range(2))  # all seeds alike
    asked = needed(base, other)
    assert asked.seeds is None
    assert asked.questions is not None
    assert asked.questions > 1000


def test_where_no_question_differs_a_few_are_not_enough() -> None:
    same = np.tile([0.0, 1.0], 5)[None]
    assert (needed(same, same).questions or 0) > 1000
