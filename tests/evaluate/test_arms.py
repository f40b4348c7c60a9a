"""Arms of several seeds, and the best of many: hand-made cases. Their coverage is tests/study/test_simulation.py's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.evaluate.arms import MARGIN, Scores, arm_difference, arm_mean, best_of, seed_noise
from rl.evaluate.stats import estimate_mean, paired_difference

reproducible = settings(derandomize=True, deadline=None, max_examples=50)


def scores(seeds: int, questions: int, mean: float = 0.5, *, chance: int = 0, spread: float = 0.0) -> Scores:
    """Questions of one difficulty each; `spread` moves whole runs apart."""
    rng = np.random.default_rng(chance)
    p = np.random.default_rng(99).beta(mean * 2, 2 - mean * 2, questions)
    moved = np.clip(p + spread * np.linspace(-1, 1, seeds)[:, None], 0, 1) if seeds > 1 else p[None]
    return rng.binomial(8, moved) / 8


def test_with_one_seed_it_is_the_paired_difference_at_the_level_of_the_study() -> None:
    base, other = scores(1, 200), scores(1, 200, 0.55, chance=1)
    ours = arm_difference(base, other, comparisons=9)
    ids = range(200)
    theirs = paired_difference(
        dict(zip(map(str, ids), base[0], strict=True)),
        dict(zip(map(str, ids), other[0], strict=True)),
        comparisons=10,  # 9 and the margin
    )
    assert pytest.approx(10) == MARGIN * 9
    assert (ours.value, ours.low, ours.high) == pytest.approx((theirs.value, theirs.low, theirs.high))
    assert ours.p_value == pytest.approx(theirs.p_value)
    assert ours.comparisons == 9


@reproducible
@given(st.integers(1, 4), st.integers(1, 4), st.integers(2, 40), st.integers(1, 45), st.integers(0, 1000))
def test_it_is_antisymmetric_and_its_interval_agrees_with_its_p_value(
    s: int, t: int, questions: int, comparisons: int, chance: int
) -> None:
    base = scores(s, questions, chance=chance, spread=0.1)
    other = scores(t, questions, 0.7, chance=chance + 1, spread=0.05)
    forth = arm_difference(base, other, comparisons=comparisons)
    back = arm_difference(other, base, comparisons=comparisons)
    assert (back.value, back.low, back.high) == pytest.approx((-forth.value, -forth.high, -forth.low))
    assert back.p_value == pytest.approx(forth.p_value)
    assert -1 <= forth.low < forth.high <= 1
    assert (forth.p_value < 0.05) == (not forth.low <= 0 <= forth.high)


def test_seeds_that_scatter_widen_the_interval_and_the_other_arms_are_asked_too() -> None:
    calm = [scores(3, 200, chance=n) for n in (1, 2)]
    wild = [scores(3, 200, chance=n, spread=0.2) for n in (3, 4)]

    def width(base: Scores, other: Scores, study: list[Scores]) -> float:
        d = arm_difference(base, other, noise=seed_noise(study))
        return d.high - d.low

    assert width(*wild, wild) > 3 * width(*calm, calm)
    assert width(*calm, [*calm, *wild]) > 2 * width(*calm, calm)


def test_more_comparisons_widen_it() -> None:
    base, other = scores(3, 200, spread=0.02), scores(3, 200, 0.6, chance=1, spread=0.02)
    one, ten = arm_difference(base, other), arm_difference(base, other, comparisons=10)
    assert ten.low < one.low < one.high < ten.high
    assert ten.p_value > one.p_value


def test_the_noise_of_seeds_is_their_variance_beyond_sampling() -> None:
    noise = seed_noise([scores(50, 2000, spread=0.1)])
    assert noise is not None
    assert noise.variance == pytest.approx(np.var(np.linspace(-0.1, 0.1, 50), ddof=1), rel=0.25)  # clipped at 0 and 1
    assert noise.df == noise.careful_df == 49
    assert seed_noise([scores(1, 100)]) is None
    alike = seed_noise([np.tile(scores(1, 100), (3, 1))])
    assert alike is not None
    assert alike.variance == 0


def test_the_mean_of_one_run_is_that_of_its_evaluation() -> None:
    run = scores(1, 100)
    assert arm_mean(run) == estimate_mean(list(run[0]))
    several = arm_mean(scores(3, 100, spread=0.1))
    assert several.high - several.low > arm_mean(run).high - arm_mean(run).low


def test_a_best_without_rivals_needs_no_correction_and_one_of_many_does() -> None:
    clear = [scores(1, 200, 0.3), scores(1, 200, 0.8, chance=1)]
    best = best_of(clear)
    assert (best.index, best.rivals) == (1, [1])
    assert best.estimate == arm_mean(clear[1])
    alike = [scores(1, 200, chance=n) for n in range(8)]
    best = best_of(alike)
    plain = arm_mean(alike[best.index])
    assert len(best.rivals) > 4
    assert best.estimate.low < plain.low
    assert best.estimate.low < best.estimate.value <= best.estimate.high


def test_a_best_of_one_is_itself_and_of_perfect_arms_the_first() -> None:
    run = scores(1, 50)
    assert best_of([run]).estimate == arm_mean(run)
    perfect = best_of([np.ones((1, 50)), np.ones((1, 50))])
    assert (perfect.index, perfect.estimate.value, perfect.estimate.high) == (0, 1.0, 1.0)
    assert perfect.estimate.low < 0.99
