"""What is known of a run, whoever made it: its settings, its curves and its evaluations.

A run of ours is read off its directory; `rl.study.foreign` reads the tables and logs of other tools into the same form.
What is not there is absent or None, never zero.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate
from pathlib import Path
from typing import Any

from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.core.stopping import ending
from rl.evaluate.result import EvalResult, load_sets
from rl.study.words import short

SEED = "seed"
NOT_COMPUTED = frozenset(
    {"wandb", "wandb_project", "wandb_group", "wandb_tags", "wandb_adapter", "tensorboard", "keep", "buffer_url"}
)
"""Settings that follow a run, or say where it is kept, and change nothing of what it computes."""


class Status(StrEnum):
    """How a run ended, or that it did not."""

    PLANNED = "planned"
    RUNNING = "running"
    DONE = "done"
    """All steps are made, or its own rule ended it: a budget, or its patience."""
    BEATEN = "beaten"
    """Stopped by a sweep: another run is better beyond doubt."""
    STOPPED = "stopped"
    """Before its end: by the user, or by an accident."""
    DIVERGED = "diverged"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """Of another tool."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One number over the steps, rising; None is a cell that is empty, or not a number at all.

    What is there may be infinite or NaN: a run that diverged has such values, and they are facts.
    """

    steps: list[int]
    values: list[float | None]

    @property
    def measured(self) -> list[tuple[int, float]]:
        return [(step, value) for step, value in zip(self.steps, self.values, strict=True) if value is not None]

    @property
    def last(self) -> float | None:
        """The value at the last step, None where that cell is empty: an older value is not the final one."""
        return self.values[-1] if self.values else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """One evaluation of a run, and what training had cost until then (None where it is not known)."""

    result: EvalResult
    samples: int | None
    tokens: int | None
    seconds: float | None
    """Of training: evaluations and starts are not in it."""

    @property
    def step(self) -> int:
        return self.result.step


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyRun:
    """One run of a study."""

    name: str
    path: Path
    """Its directory, or the file that it was read from."""
    settings: dict[str, Any]
    """By the names of `TrainConfig` where it is ours, else by those of its file."""
    status: Status = Status.UNKNOWN
    why: str = ""
    """Why it ended so, in a sentence; empty where the status says it all."""
    curves: dict[str, Curve] = field(default_factory=dict)
    """Training metrics by the names of `rl.core.metrics`, or by those of another tool."""
    evaluations: dict[str, list[Evaluated]] = field(default_factory=dict)
    """By set, in the order of steps. Of a run of another tool there are none: its file holds no questions."""
    finals: dict[str, float | None] = field(default_factory=dict)
    """Results that another tool states once for a whole run."""
    ours: bool = True

    @property
    def seed(self) -> int | None:
        return self.settings.get(SEED)

    @property
    def minutes(self) -> float | None:
        """Of training."""
        curve = self.curves.get("step_s")
        return sum(value for _, value in curve.measured) / 60 if curve else self.finals.get("minutes")

    @property
    def last_step(self) -> int | None:
        return max((curve.steps[-1] for curve in self.curves.values() if curve.steps), default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """Runs that differ in nothing but their seed: what is compared is arms."""

    name: str
    settings: dict[str, Any]
    """Of its runs, without the seed."""
    runs: list[StudyRun]


def read_run(root: Path, name: str = "") -> StudyRun:
    """A run of ours, in progress or over.

    Args:
        name: in the study; the path unless given.

    Raises:
        UsageError: it is no run, or its configuration, its metrics or an evaluation cannot be read.
    """
    run = RunDir(root)
    config = run.config()
    records = run.records()
    steps = sorted((r for r in records if r["kind"] == "step"), key=lambda r: r["step"])
    try:
        status, why = _status(config, records)
        costs = _costs(steps)
        curves = curves_of(steps)
    except (KeyError, TypeError) as error:
        fix = "restore the file from a copy; or leave this run out"
        raise UsageError(f"{run.metrics_file} lacks what a step has: {error!r}", fix=fix) from None
    evaluations = {
        name: [_evaluated(result, costs) for result in results] for name, results in load_sets(run.evals).items()
    }
    return StudyRun(
        name=name or str(root),
        path=root,
        settings=config.model_dump(mode="json"),
        status=status,
        why=why,
        curves=curves,
        evaluations=evaluations,
    )


def arms_of(runs: Sequence[StudyRun], names: dict[str, str] | None = None) -> list[Arm]:
    """The runs by what they were configured as, in the order of the first run of each.

    Args:
        names: of the arms, by the name of a run (a plan names them); otherwise an arm is named by the settings in which
            the arms differ, and by its runs where they do not differ at all.
    """
    by_settings: dict[str, list[StudyRun]] = {}
    for run in runs:
        configured = run.ours or SEED in run.settings
        key = json.dumps(_configured(run), sort_keys=True, default=str) if configured else run.name
        by_settings.setdefault(key, []).append(run)
    groups = list(by_settings.values())
    differing = differences([group[0] for group in groups if group[0].ours])
    return [
        Arm(name=_arm_name(group, differing, names or {}), settings=_configured(group[0]), runs=group)
        for group in groups
    ]


def differences(runs: Sequence[StudyRun]) -> dict[str, list[Any]]:
    """The settings that are not the same in all runs, by name, each with the value of every run (None: it has none)."""
    names = dict.fromkeys(name for run in runs for name in _configured(run))
    values = {name: [run.settings.get(name) for run in runs] for name in names}
    return {name: own for name, own in values.items() if any(value != own[0] for value in own)}


def _configured(run: StudyRun) -> dict[str, Any]:
    return {name: value for name, value in run.settings.items() if name != SEED and name not in NOT_COMPUTED}


def _arm_name(group: Sequence[StudyRun], differing: dict[str, list[Any]], names: dict[str, str]) -> str:
    first = group[0]
    if first.name in names:
        return names[first.name]
    own = [f"{name} {short(first.settings.get(name))}" for name in differing]
    if own and first.ours:
        return ", ".join(own)
    return first.name if len(group) == 1 else f"{first.name}…{group[-1].name}"


def _status(config: TrainConfig, records: Sequence[dict[str, Any]]) -> tuple[Status, str]:
    """What the directory alone can tell; a sweep knows more of its runs."""
    if ended := ending(config, records):
        return Status.DONE, ended.reason if ended.early else ""
    made = max((record["step"] for record in records if record["kind"] == "step"), default=0)
    return Status.STOPPED, f"{made} of {config.steps} steps are made"


def curves_of(steps: Sequence[dict[str, Any]]) -> dict[str, Curve]:
    """The numbers of a run's records of kind `step`, which are in order."""
    names = dict.fromkeys(
        name
        for record in steps
        for name, value in record.items()
        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    )
    at = [record["step"] for record in steps]
    return {name: Curve(steps=at, values=[record.get(name) for record in steps]) for name in names}


def _costs(steps: Sequence[dict[str, Any]]) -> dict[int, tuple[int, int, float]]:
    """step → (samples, tokens, seconds) of training until then."""
    totals = zip(accumulate(r["tokens"] for r in steps), accumulate(r["step_s"] for r in steps), strict=True)
    return {0: (0, 0, 0.0)} | {r["step"]: (r["samples"], *total) for r, total in zip(steps, totals, strict=True)}


def _evaluated(result: EvalResult, costs: dict[int, tuple[int, int, float]]) -> Evaluated:
    samples, tokens, seconds = costs.get(result.step, (None, None, None))
    return Evaluated(result=result, samples=samples, tokens=tokens, seconds=seconds)
