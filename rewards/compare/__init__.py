"""Equality of two answers that were read by `rewards.latex`."""

from rewards.compare.equal import same
from rewards.compare.outcome import NeedsAlgebraError, Outcome

__all__ = ["NeedsAlgebraError", "Outcome", "same"]
