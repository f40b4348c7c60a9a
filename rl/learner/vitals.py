"""A rank's state of health, and what it tells Prometheus of its steps."""

import time
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, Literal

from rl.buffer.tables import State
from rl.core import metrics
from rl.core.errors import LedgerError
from rl.core.pulse import SILENCE_LIMIT_S
from rl.core.telemetry import Vitals
from rl.core.types import Group
from rl.learner.collate import staleness_of

Phase = Literal["start", "wait", "train", "publish"]

FIRST_LIMIT_S = 1200.0
"""For a phase that was never finished before: models are loaded, or a first step is made."""
UNUSUAL = 10.0
"""A phase may keep the loop for so many times as long as it has taken at the most."""


class RankVitals(Vitals):
    """Of a learner's rank: while it computes, its loop stands still or turns for nothing, and so it is measured by its
    own past.

    Args:
        leads: the others wait for the rank that leads, and cannot tell how long it may take.
    """

    def __init__(self, *, leads: bool) -> None:
        super().__init__()
        self._leads = leads
        self._lock = Lock()
        self._phase: Phase = "start"
        self._entered = self._counted = time.monotonic()
        self._longest: dict[Phase, float] = {}
        self.counts: Callable[[], Mapping[State, int]] = dict
        """Groups in the ledger, by state."""

    def enter(self, phase: Phase) -> None:
        """From now on the training loop is in this phase."""
        self._count()
        with self._lock:
            took = time.monotonic() - self._entered
            self._longest[self._phase] = max(took, self._longest.get(self._phase, 0.0))
            self._phase, self._entered = phase, time.monotonic()

    @property
    def well(self) -> bool:
        with self._lock:
            phase, entered = self._phase, self._entered
        if phase == "wait" and not self._leads:
            return True
        turned = entered if phase == "train" else self._turned or entered  # a thread trains, whatever the loop does
        still_s = time.monotonic() - max(entered, turned)
        longest = self._longest.get(phase)
        return still_s <= (FIRST_LIMIT_S if longest is None else max(SILENCE_LIMIT_S, UNUSUAL * longest))

    def refresh(self) -> None:
        self._count()
        try:
            counts = self.counts()
        except LedgerError:  # who trains hears of it, too; an old count would be none
            metrics.BUFFER_GROUPS.clear()
            return
        for state, n in counts.items():
            metrics.BUFFER_GROUPS.labels(state).set(n)

    def _count(self) -> None:
        """Counts the time since the last call for the phase."""
        with self._lock:
            now = time.monotonic()
            metrics.PHASE_SECONDS.labels(self._phase).inc(now - self._counted)
            self._counted = now


def measure(record: Mapping[str, Any], groups: Sequence[Group]) -> None:
    """Tells what was logged of a step.

    Args:
        record: of kind `step`.
        groups: those trained on.
    """
    for name, gauge in metrics.OF_STEP.items():
        if record[name] is not None:
            gauge.set(record[name])
    for name, gauge in metrics.OF_AGE.items():
        gauge.clear()
        for age, numbers in record["by_age"].items():
            gauge.labels(age).set(numbers[name])
    stalenesses = [staleness_of(s.rollout, record["step"]) for group in groups for s in group.verified]
    for staleness in stalenesses:
        metrics.SAMPLE_STALENESS.observe(staleness)
    metrics.SAMPLES_TRAINED.inc(len(stalenesses))
    metrics.TOKENS_TRAINED.inc(record["tokens"])
