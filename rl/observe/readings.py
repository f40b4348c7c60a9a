"""What is read off the records of a run, for the step line of `rl.train` and the view of `rl.watch`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rl.core.config import HELDOUT, TrainConfig

Record = dict[str, Any]
SAMPLER_BOUND = 0.05
"""Share of a step that the learner waits for samples, from which on these are what a run waits for."""
RECENT = 20
"""Steps that a rate or a mean is taken over: enough to be calm, few enough to be now."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One number of a step, under the short name that people see."""

    label: str
    value: Callable[[Record], float | None]
    """None where it was not measured: a replay has no server to compare with."""
    form: str
    word: Callable[[float], str] = lambda _: ""
    """What follows from a value."""

    def text(self, value: float) -> str:
        return f"{self.label} {self.form.format(value)} {self.word(value)}".rstrip()

    def measured(self, steps: Sequence[Record]) -> list[float]:
        """Its values in those of the steps in which it was measured."""
        return [value for record in steps if (value := self.value(record)) is not None]


def slower(wait: float) -> str:
    """Which side a run waits for, where the learner waits for so large a share of a step."""
    return "sampler" if wait > SAMPLER_BOUND else "learner"


READINGS = (
    Reading("reward", lambda r: r["reward"], "{:.2f}"),
    Reading("signal", lambda r: 1 - r["no_signal"], "{:4.0%}"),
    Reading("len", lambda r: r["length"], "{:3.0f}"),
    Reading("cut", lambda r: r["truncated"], "{:3.0%}"),
    Reading("sec", lambda r: r["step_s"], "{:.2f}"),
    Reading("wait", lambda r: r["wait_s"] / r["step_s"], "{:3.0%}", slower),
    Reading("clip", lambda r: r["clipped_low"] + r["clipped_high"], "{:.1%}"),
    Reading("stale", lambda r: r["staleness_mean"], "{:.0f}"),
    Reading("grad", lambda r: r["grad_norm"], "{:.2f}"),
    Reading("mismatch", lambda r: r["mismatch_kl"], "{:.0e}"),
)
"""In the order of importance: where there is no room, the last go first."""


def step_line(record: Record, total: int, width: int | None = None) -> str:
    """Example: ``step  42/200  reward 0.61  signal  80%  len  18  cut  0%  sec 0.31  wait 12% sampler  clip 0.0%  …``

    Args:
        width: columns of a terminal, whose bar says how many there are in all; None for all that there is to say.
    """
    step = f"step {record['step']:{len(str(total))}}" + (f"/{total}" if width is None else "")
    shown = [reading.text(value) for reading in READINGS for value in reading.measured([record])]
    return _fitting([step, *shown], width)


def eval_line(record: Record, width: int | None = None) -> str:
    """Example: ``eval at step 100: pass@1 0.412 [0.384, 0.441]  pass@8 0.742 [0.705, 0.776]  maj@8 …``"""
    place = "" if record["set"] == HELDOUT else f" on {record['set']}"
    shown = {name: estimate for name, estimate in headline(record["summary"]).items() if estimate}
    first, *rest = [f"{name} {e['value']:.3f} [{e['low']:.3f}, {e['high']:.3f}]" for name, e in shown.items()] or [
        "nothing could be measured"
    ]
    return _fitting([f"eval at step {record['step']}{place}: {first}", *rest], width)


def headline(summary: dict[str, Any]) -> dict[str, Any]:
    """pass@1, the largest pass@k, and maj@k, of an evaluation's summary; None for what could not be measured."""
    passes = [name for name in summary if name.startswith("pass@")]
    majority = [name for name in summary if name.startswith("maj@")]
    return {name: summary[name] for name in (passes[0], passes[-1], *majority)}


def seconds_left(steps: Sequence[Record], config: TrainConfig) -> float | None:
    """Until all steps are made or a budget is spent, at the pace of the last steps; None before the first."""
    if not steps:
        return None
    recent = steps[-RECENT:]
    step_s: float = sum(r["step_s"] for r in recent) / len(recent)
    left: list[float] = [(config.steps - steps[-1]["step"]) * step_s]
    if config.max_minutes is not None:
        left.append(config.max_minutes * 60 - sum(r["step_s"] for r in steps))
    if config.token_budget is not None:
        tokens = sum(r["tokens"] for r in recent) / len(recent)
        left.append((config.token_budget - sum(r["tokens"] for r in steps)) / tokens * step_s)
    return max(0.0, min(left))


def clock(seconds: float) -> str:
    """Example: ``0:01:20``"""
    return str(timedelta(seconds=round(seconds)))


def _fitting(parts: Sequence[str], width: int | None) -> str:
    """As many of the parts as fit, the first in any case."""
    line, *rest = parts
    for part in rest:
        if width is not None and len(line) + 2 + len(part) > width:
            break
        line = f"{line}  {part}"
    return line
