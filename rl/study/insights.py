"""What a study says, as data: each sentence with the numbers behind it. `rl.study.claims` makes them."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What an insight is about; a page shows them under headings by kind."""

    BETTER = "better"
    """One arm is better than another, beyond chance, all comparisons counted."""
    NO_DIFFERENCE = "no_difference"
    """Not shown; with what it would take."""
    NO_DATA = "no_data"
    """Something was not measured: no rank, no claim."""
    BEST = "best"
    """The best of m with its corrected interval."""
    DEPLOY = "deploy"
    """The run to deploy and why, or that the evidence does not choose."""
    CRITERION = "criterion"
    """A success criterion: met, not met, or not measured."""
    SENSITIVITY = "sensitivity"
    """How a metric depends on the learning rate, with the basin."""
    CORRELATION = "correlation"
    CAUTION = "caution"
    """What must be kept in mind: one seed, different numbers of samples at the same step, …"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Insight:
    """One claim. Everything that its text states is in its data, too."""

    kind: Kind
    text: str
    arms: list[str] = field(default_factory=list)
    """The arms that it is about, by name."""
    data: dict[str, Any] = field(default_factory=dict)
    """JSON: finite numbers, strings, lists, None."""
