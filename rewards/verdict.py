"""What the verifier says of one completion."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self

NO_ANSWER = "no answer found"
TRUNCATED = "truncated before an answer"


class Mark(StrEnum):
    RIGHT = "right"
    WRONG = "wrong"
    ERROR = "error"
    """The verifier could not say. Never a zero reward: the sample leaves its group and is counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A mark with its reason.

    Example: ``Verdict(mark=Mark.RIGHT, reason="equal as numbers", answer="33", gold="33")``
    """

    mark: Mark
    reason: str
    """One short phrase, the same for the same cause, so that reasons can be counted."""
    answer: str | None
    """What was extracted from the completion; None when there was nothing to extract."""
    gold: str
    paid: float | None = None
    """The reward where it does not follow from the mark: the number that a reward of the user's own gave."""
    rule: str = ""
    r"""What was extracted by, e.g. ``last \boxed{}``; empty where nothing was extracted by `rewards.extract`."""
    compared: str = ""
    """What decided: ``text``, ``structure``, ``limits`` or ``algebra``; empty where nothing was compared."""
    seconds: float = field(default=0.0, compare=False)
    """Wall-clock time that the verdict took."""

    @property
    def reward(self) -> float | None:
        """What was paid, else 1.0 for right and 0.0 for wrong; None for an error."""
        if self.mark is Mark.ERROR:
            return None
        return float(self.mark is Mark.RIGHT) if self.paid is None else self.paid

    def of_truncated(self) -> Self:
        """The verdict of the same completion, known to have been cut at its token limit: an answer may be missing."""
        return replace(self, reason=TRUNCATED) if self.reason == NO_ANSWER else self
