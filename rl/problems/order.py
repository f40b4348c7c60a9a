"""Which problem each group gets: a function of the group's id, so that a resume needs no state."""

import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import overload

from rl.core.types import Problem


@dataclass(frozen=True, eq=False)
class Mixture(Sequence[Problem]):
    """The problems of several sets, one set after the other, and each set's share of the groups."""

    parts: tuple[Sequence[Problem], ...]
    weights: tuple[int, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[Problem]:
        return chain.from_iterable(self.parts)

    @overload
    def __getitem__(self, place: int) -> Problem: ...
    @overload
    def __getitem__(self, place: slice) -> list[Problem]: ...
    def __getitem__(self, place: int | slice) -> Problem | list[Problem]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        for part in self.parts:
            if place < len(part):
                return part[place]
            place -= len(part)
        raise AssertionError("range has checked the place")


class ProblemOrder:
    """Group id (1, 2, …) → problem. Of each set every epoch is a new permutation; the sets of a mixture take turns by a
    fixed pattern of their weights.

    Example: with 3 problems, groups 1–3 are one permutation of them and groups 4–6 another.
    """

    def __init__(self, problems: Sequence[Problem], seed: int) -> None:
        mixture = problems if isinstance(problems, Mixture) else Mixture((problems,), (1,))
        self._parts, self._weights, self._seed = mixture.parts, mixture.weights, seed
        self._turns = turns(mixture.weights)
        self._permutation = lru_cache(maxsize=2 * len(self._parts))(self._make_permutation)  # this epoch and the next

    def __call__(self, group_id: int) -> Problem:
        cycle, place = divmod(group_id - 1, len(self._turns))
        part, turn = self._turns[place]
        problems = self._parts[part]
        epoch, place = divmod(cycle * self._weights[part] + turn, len(problems))
        return problems[self._permutation(epoch, len(problems))[place]]

    def epoch(self, group_id: int) -> float:
        """Passes over as many problems as there are, once this group is done; the sets of a mixture go round at paces
        of their own."""
        return group_id / sum(map(len, self._parts))

    def coverage(self, group_id: int) -> float:
        """Share of the problems that had their turn, once this group is done."""
        cycles, rest = divmod(group_id, len(self._turns))
        begun = [part for part, _ in self._turns[:rest]]
        had = [cycles * weight + begun.count(part) for part, weight in enumerate(self._weights)]
        sizes = [len(problems) for problems in self._parts]
        return sum(map(min, had, sizes)) / sum(sizes)

    def _make_permutation(self, epoch: int, n: int) -> "array[int]":
        return array("I", random.Random(f"{self._seed}/{epoch}").sample(range(n), n))


def turns(weights: Sequence[int]) -> list[tuple[int, int]]:
    """One cycle of a mixture, as evenly as can be: (set, how many turns it had before in this cycle).

    Example: ``turns((3, 1)) == [(0, 0), (0, 1), (1, 0), (0, 2)]``
    """
    credit, had = [0] * len(weights), [0] * len(weights)
    cycle = []
    for _ in range(sum(weights)):
        credit = [have + weight for have, weight in zip(credit, weights, strict=True)]
        part = credit.index(max(credit))
        credit[part] -= sum(weights)
        cycle.append((part, had[part]))
        had[part] += 1
    return cycle
