"""From a plan to the runs of its sweep: what is to be made, in which order, and what may not be made anew."""

from collections.abc import Mapping, Sequence
from typing import Any

from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.study.plan import Phase, Plan, PlannedRun, configured, normal
from rl.study.runs import NOT_COMPUTED, SEED
from rl.study.sweepdir import Entry, SweepDir


def scheduled(sweep: SweepDir, plan: Plan) -> list[Entry]:
    """The runs of a plan in its order, as they stand. Of a sweep that was started before, what it has made stays: a
    plan may be given more arms, seeds and phases, but none of them may change.

    Raises:
        UsageError: the directory holds another sweep, or a run with other settings than the plan's.
    """
    if not sweep.is_sweep(sweep.root):
        if not sweep.is_new:
            raise UsageError(f"{sweep.root} exists and is no sweep", fix="take another --out, or move it away first")
        return arms_entries(sweep, plan, plan.rows(), phase="", base=plan.base)
    existing = sweep.entries()
    _check_phases(sweep, plan, {entry.phase for entry in existing})
    entries = arms_entries(sweep, plan, plan.rows(), phase="", base=plan.base)
    for phase in plan.phases:
        rows = {
            entry.arm: PlannedRun(name=entry.arm, changes=entry.settings, criteria=phase.criteria, reason=entry.reason)
            for entry in existing
            if entry.phase == phase.name
        }
        entries += arms_entries(sweep, plan, list(rows.values()), phase=phase.name, base={})
    phases = ["", *(phase.name for phase in plan.phases)]
    return sorted(_merged(sweep, entries, existing), key=lambda entry: phases.index(entry.phase))


def arms_entries(
    sweep: SweepDir, plan: Plan, rows: Sequence[PlannedRun], *, phase: str, base: Mapping[str, Any]
) -> list[Entry]:
    """Each arm with each seed."""
    return [
        Entry(
            name=(name := f"{row.name}-seed{seed}"),
            arm=row.name,
            seed=seed,
            path=sweep.run_path(name),
            phase=phase,
            priority=row.priority,
            reason=row.reason,
            criteria=row.criteria,
            settings=normal({**base, **row.changes}),
        )
        for row in rows
        for seed in range(plan.seeds)
    ]


def in_order(entries: Sequence[Entry]) -> list[Entry]:
    """By priority, then one seed of every arm before the next seed of any, then as the plan has them."""
    return sorted(entries, key=lambda entry: (entry.priority, entry.seed))


def config_of(entry: Entry) -> TrainConfig:
    return configured(entry.settings).model_copy(update={SEED: entry.seed})


def check_directory(entry: Entry) -> None:
    """Raises:
    UsageError: what is in the run's directory was made with other settings than the plan's.
    """
    if not (entry.path / "config.json").exists():
        return
    made, planned = RunDir(entry.path).config().model_dump(), config_of(entry).model_dump()
    if planned["revision"] is None:  # the newest at that time; the run has its commit
        made["revision"] = None
    if told := _differences(made, planned):
        fix = "give the row another name, take another --out, or move that directory away"
        raise UsageError(f"the run {entry.path} was made with other settings: {told}", fix=fix)


def _differences(made: Mapping[str, Any], planned: Mapping[str, Any]) -> str:
    """Example: ``steps 60, here 80``; empty where both would compute the same."""
    names = [name for name in planned if name not in NOT_COMPUTED and made[name] != planned[name]]
    return ", ".join(f"{name} {made[name]}, here {planned[name]}" for name in names)


def _merged(sweep: SweepDir, entries: Sequence[Entry], existing: Sequence[Entry]) -> list[Entry]:
    old = {entry.name: entry for entry in existing}
    arms = {entry.arm for entry in entries}
    if gone := [entry.arm for entry in existing if entry.arm not in arms]:
        fix = "take another --out, or put the run back into the plan: a plan may only be added to"
        raise UsageError(f"{sweep.root} is the sweep of another plan: it has the run {gone[0]}", fix=fix)
    merged = [_with_result(entry, old.get(entry.name)) for entry in entries]
    names = {entry.name for entry in entries}
    return [*merged, *(entry for entry in existing if entry.name not in names and entry.path.exists())]


def _with_result(entry: Entry, old: Entry | None) -> Entry:
    if old is None:
        return entry
    if told := _differences(configured(old.settings).model_dump(), configured(entry.settings).model_dump()):
        fix = "give the changed row another name, or take another --out"
        raise UsageError(f"the run {entry.name} of {entry.path.parents[1]} has other settings: {told}", fix=fix)
    return entry.model_copy(update={"status": old.status, "why": old.why})


def _check_phases(sweep: SweepDir, plan: Plan, begun: set[str]) -> None:
    """A phase whose runs are chosen keeps what they were chosen by."""
    now = {phase.name: phase for phase in plan.phases}
    for phase in sweep.plan().phases:
        if phase.name in begun and _grid_of(now.get(phase.name)) != _grid_of(phase):
            fix = "leave it as it was and add a phase after it, or take another --out"
            raise UsageError(f"the phase {phase.name} of {sweep.root} has begun and cannot be changed", fix=fix)


def _grid_of(phase: Phase | None) -> dict[str, Any] | None:
    return phase.model_dump(exclude={"reason", "criteria"}) if phase else None
