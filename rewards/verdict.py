"""What the verifier says of one completion."""

from dataclasses import dataclass
from enum import StrEnum


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

    @property
    def reward(self) -> float | None:
        """What was paid, else 1.0 for right and 0.0 for wrong; None for an error."""
        if self.mark is Mark.ERROR:
            return None
        return float(self.mark is Mark.RIGHT) if self.paid is None else self.paid
