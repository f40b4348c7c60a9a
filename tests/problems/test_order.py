"""Group id → problem without any state: epochs are permutations, the sets of a mixture take turns."""

from collections import Counter

import pytest

from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.core.types import Problem
from rl.problems.order import Mixture, ProblemOrder, turns
from rl.problems.sets import parse_mixture
from rl.problems.sources import load_problems


def problems_of(name: str, n: int) -> list[Problem]:
    return [Problem(id=f"{name}{i}", text=f"{name}{i}", gold="0") for i in range(n)]


def test_every_epoch_is_a_permutation_of_its_own() -> None:
    problems = problems_of("a", 50)
    order = ProblemOrder(problems, seed=0)
    epochs = [[order(i).id for i in range(50 * e + 1, 50 * e + 51)] for e in range(3)]
    assert all(Counter(epoch) == Counter(p.id for p in problems) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    again = ProblemOrder(problems, seed=0)
    assert [again(i).id for i in (150, 7, 60)] == [order(i).id for i in (150, 7, 60)]
    assert [ProblemOrder(problems, seed=1)(i).id for i in range(1, 51)] != epochs[0]


def test_the_order_of_the_starters_problems_is_that_of_earlier_runs() -> None:
    """A run that was started before must go on with the problems it would have had."""
    order = ProblemOrder(load_problems(TrainConfig(), "train"), seed=0)
    assert [order(i).text for i in (1, 2, 3, 17530)] == ["98-85", "12+72", "23+23", "81*6+4"]


def test_the_sets_of_a_mixture_get_their_shares_and_epochs_of_their_own() -> None:
    small, large = problems_of("a", 10), problems_of("b", 40)
    order = ProblemOrder(Mixture((small, large), (3, 1)), seed=0)
    names = [order(i).id for i in range(1, 161)]
    for start in range(0, 160, 4):
        assert sum(name.startswith("a") for name in names[start : start + 4]) == 3
    of_small, of_large = ([n for n in names if n[0] == letter] for letter in "ab")
    assert all(set(of_small[e : e + 10]) == {p.id for p in small} for e in range(0, 120, 10))
    assert set(of_large) == {p.id for p in large}


def test_turns_are_spread_evenly() -> None:
    assert turns((3, 1)) == [(0, 0), (0, 1), (1, 0), (0, 2)]
    assert turns((1,)) == [(0, 0)]


def test_an_epoch_is_as_many_groups_as_there_are_problems() -> None:
    order = ProblemOrder(Mixture((problems_of("a", 10), problems_of("b", 30)), (1, 1)), seed=0)
    assert [order.epoch(i) for i in (1, 20, 40, 100)] == [0.025, 0.5, 1.0, 2.5]


def test_coverage_is_the_share_of_a_mixture_that_had_its_turn() -> None:
    order = ProblemOrder(Mixture((problems_of("a", 5), problems_of("b", 20)), (2, 1)), seed=0)
    seen = set()
    for i in range(1, 70):
        seen.add(order(i).id)
        assert order.coverage(i) == len(seen) / 25
    assert order.coverage(58) < order.coverage(59) == 1


def test_a_mixture_is_a_sequence_of_all_its_problems() -> None:
    parts = problems_of("a", 3), problems_of("b", 2)
    mixture = Mixture(parts, (1, 1))
    assert list(mixture) == [mixture[i] for i in range(5)] == [*parts[0], *parts[1]]
    assert mixture[-1] == parts[1][-1]
    assert mixture[2:4] == [parts[0][2], parts[1][0]]
    with pytest.raises(IndexError):
        mixture[5]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("gsm8k", [(1, "gsm8k")]),
        ("3*gsm8k,math", [(3, "gsm8k"), (1, "math")]),
        ("0.5*gsm8k, 0.25*my.jsonl", [(2, "gsm8k"), (1, "my.jsonl")]),
        ("6*a,4*b@test", [(3, "a"), (2, "b@test")]),
    ],
)
def test_weights_are_relative(text: str, parts: list[tuple[int, str]]) -> None:
    assert parse_mixture(text) == parts


@pytest.mark.parametrize("text", ["", "gsm8k,", "x*gsm8k", "0*gsm8k,math", "0.0001*gsm8k,math", "2**gsm8k"])
def test_what_is_no_mixture_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--problems"):
        parse_mixture(text)
