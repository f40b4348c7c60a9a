"""How long a sweep still takes, by what its runs have taken so far."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is left of a run."""

    steps: int
    batch: int


@dataclass
class Pace:
    """Seconds that training has taken for its samples, and runs beside it: for starts, evaluations and ends."""

    train_s: float = 0.0
    samples: int = 0
    beside_s: float = 0.0
    runs: int = 0

    def step(self, seconds: float, samples: int) -> None:
        """One step was made."""
        self.train_s += seconds
        self.samples += samples

    def run(self, beside_s: float) -> None:
        """One run came to its end."""
        self.beside_s += beside_s
        self.runs += 1

    def left_s(self, left: Sequence[Work], side_by_side: int) -> float | None:
        """Until this work is done; None before the first step. Runs side by side slow each other down, which is in what
        was measured."""
        if not self.samples or not left:
            return None
        train_s = self.train_s / self.samples * sum(work.steps * work.batch for work in left)
        beside_s = self.beside_s / self.runs * len(left) if self.runs else 0.0
        return (train_s + beside_s) / min(side_by_side, len(left))
