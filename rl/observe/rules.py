"""What looks wrong in a run: rules on its readings, each with its meaning and what to try."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rl.observe.readings import READINGS, RECENT, Reading, Record, clock

SILENCE_S = 30.0
"""Without a step for so long the user is told: without signal no step is ever made."""
UNUSUAL = 3
"""A step that takes so many times the slowest of the last is worth a word; one that is just slow is not."""
OLDEST = Reading("oldest ess", lambda r: list(r["by_age"].values())[-1]["ess"], "{:.0%}")
"""The effective sample size of a step's stalest tokens."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that often goes wrong, seen in the mean of one reading over the last steps."""

    label: str
    wrong: Callable[[float], bool]
    meaning: str
    fix: str


RULES = (
    Rule(
        "signal",
        lambda share: share < 0.3,
        "most groups are all right or all wrong, so there is nothing to compare",
        "try easier or harder problems, or a larger --group-size",
    ),
    Rule(
        "cut",
        lambda share: share > 0.2,
        "completions end at the limit, most of them before an answer",
        "try a larger --max-tokens",
    ),
    Rule(
        "clip",
        lambda share: share > 0.1,
        "samples are stale, or the rate is too high",
        "try a smaller --buffer, or a smaller --lr",
    ),
    Rule(
        "oldest ess",
        lambda share: share < 0.5,
        "few of the stalest tokens decide: the policy has moved far since they were sampled",
        "try a smaller --buffer, or a smaller --lr",
    ),
    Rule(
        "mismatch",
        lambda kl: kl > 1e-3,
        "sampler and learner compute different numbers",
        "try --dtype float32, and see logs/server.log",
    ),
)


def concerns(steps: Sequence[Record], quiet_s: float | None = None) -> list[str]:
    """What looks wrong, each in one sentence with what to try.

    Args:
        steps: the records of kind `step`, in order.
        quiet_s: seconds for which a run in progress has logged nothing.
    """
    recent = steps[-RECENT:]
    if not recent:
        return []
    readings = {reading.label: reading for reading in (*READINGS, OLDEST)}
    found = []
    for rule in RULES:
        reading = readings[rule.label]
        values = reading.measured(recent)
        if values and rule.wrong(mean := sum(values) / len(values)):
            number = reading.form.format(mean).strip()
            found.append(f"{rule.label} {number} in the last {len(recent)} steps: {rule.meaning}; {rule.fix}")
    if quiet_s is not None and quiet_s > patience_s(recent):
        slowest = max(record["step_s"] for record in recent)
        found.append(f"nothing for {clock(quiet_s)}, and the last steps took {slowest:.1f} s at the most; see logs/")
    return found


def patience_s(steps: Sequence[Record]) -> float:
    """Seconds without a step that are no cause for concern, by how long the last steps took."""
    slowest: float = max((record["step_s"] for record in steps[-RECENT:]), default=0.0)
    return max(SILENCE_S, UNUSUAL * slowest)
