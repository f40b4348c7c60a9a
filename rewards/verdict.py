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

    @property
    def reward(self) -> float | None:
        """1.0 for right, 0.0 for wrong, None for an error."""
        return {Mark.RIGHT: 1.0, Mark.WRONG: 0.0, Mark.ERROR: None}[self.mark]
