"""What the comparisons of this folder say, and what they need."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol

from rewards.latex.answer import Answer


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether an answer equals the gold; true if it does."""

    equal: bool
    how: str
    """How that was found, or what is wrong: one short phrase, the same for the same cause."""
    by: Literal["structure", "limits", "algebra"] = "structure"

    def __bool__(self) -> bool:
        return self.equal


UNLIKE = Outcome(False, "another kind of answer")


class NeedsAlgebraError(Exception):
    """It takes algebra to decide, and there is none here."""


class Algebra(Protocol):
    """What needs a computer algebra system. Formulas are canonical LaTeX (`rewards.latex.text`)."""

    def same(self, answer: str, gold: str, *, restated: bool = False) -> Outcome:
        """Whether two formulas are the same function of their variables.

        Args:
            restated: whether the answer may leave a sum of like terms to be done that the gold does not.
        """

    def same_relation(self, answer: tuple[str, str], gold: tuple[str, str], *, either_way: bool) -> Outcome:
        """Whether the differences of the sides are proportional, by a positive factor unless ``either_way``."""

    def near(self, answer: str, gold: Fraction, tolerance: Fraction) -> Outcome:
        """Whether a formula without variables is that close to a number."""


class Comparer(Protocol):
    """What every comparison of a part is given for the parts of that part."""

    @property
    def algebra(self) -> Algebra:
        """Raises NeedsAlgebraError if there is none."""

    def same(self, answer: Answer, gold: Answer) -> Outcome:
        """Whether an answer means the same as the gold."""
