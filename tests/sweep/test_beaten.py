"""When a run is ended for another: on evaluations made by hand."""

from random import Random

import pytest

from rl.core.config import TrainConfig
from rl.evaluate.result import EvalResult
from rl.study.beaten import Contender, beaten
from tests.observe.recorded import evaluation

N, QUESTIONS = 8, 64


def result(step: int, share: float, seed: int = 0) -> EvalResult:
    random = Random(seed)
    right = {f"q{i}": sum(random.random() < share for _ in range(N)) for i in range(QUESTIONS)}
    return evaluation(step, right, n=N)


def contender(name: str, shares: dict[int, float], *, seed: int = 0, arm: str = "", **settings: object) -> Contender:
    config = TrainConfig.model_validate({"steps": 40, "eval_every": 10, **settings})
    results = {step: result(step, share, seed=1000 * seed + step) for step, share in shares.items()}
    return Contender(name=name, arm=arm or name, config=config, results=results)


GOOD = contender("good", {0: 0.3, 10: 0.6, 20: 0.7, 30: 0.75, 40: 0.8}, seed=1)


def test_worse_beyond_doubt_at_two_evaluations_in_a_row_and_halfway() -> None:
    why = beaten(contender("bad", {0: 0.3, 10: 0.3, 20: 0.3}), [GOOD])
    assert why is not None
    assert why.startswith("beaten by good: held-out pass@1 is -0.")
    assert "at step 20, paired on 64 questions" in why
    assert "corrected for 4 tests" in why


@pytest.mark.parametrize(
    ("shares", "what"),
    [
        ({0: 0.3, 10: 0.1}, "before half of the steps"),
        ({0: 0.3, 20: 0.1}, "by one evaluation: that of the base counts for nothing"),
        ({10: 0.6, 20: 0.3}, "the first time"),
        ({10: 0.3, 20: 0.7}, "when it has caught up"),
        ({10: 0.55, 20: 0.66}, "by little"),
        ({10: 0.9, 20: 0.9}, "when it is better"),
    ],
)
def test_not_ended(shares: dict[int, float], what: str) -> None:
    assert beaten(contender("bad", shares), [GOOD]) is None, what


def test_nobody_is_beaten_by_its_own_arm_or_by_what_is_not_alike() -> None:
    bad = {10: 0.2, 20: 0.2}
    own = contender("bad", bad)
    assert beaten(own, [own]) is None
    assert beaten(own, [contender("good", {10: 0.9, 20: 0.9}, seed=1, arm="bad")]) is None
    for other in ({"batch": 64}, {"steps": 80}, {"problems": "starter-sums"}, {"model": "starter-small"}):
        assert beaten(own, [contender("good", {10: 0.9, 20: 0.9}, seed=1, **other)]) is None


def test_the_more_tests_the_more_it_takes() -> None:
    """What one rival shows, the same rival among many does not."""
    own = contender("own", {10: 0.52, 20: 0.57}, seed=3)
    rival = contender("rival", {10: 0.66, 20: 0.74}, seed=4)
    others = [contender(f"other{i}", {}) for i in range(400)]
    assert beaten(own, [rival])
    assert beaten(own, [rival, *others]) is None


def test_identical_runs_are_hardly_ever_ended() -> None:
    """Ten runs of one truth, each judged at every evaluation: of 60 sweeps, 3 at the most may end one."""
    ended = 0
    for trial in range(60):
        runs = [contender(f"r{i}", {10: 0.6, 20: 0.6, 30: 0.6, 40: 0.6}, seed=10 * trial + i + 1) for i in range(10)]
        ended += any(beaten(own, runs) for own in runs)
    assert ended <= 3
