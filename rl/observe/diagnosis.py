"""The diagnosis of a run: what is found in it, in words, as JSON, and as a plan for the next sweep."""

import math
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rl.buffer.tables import State
from rl.core import cli
from rl.core.config import TrainConfig
from rl.core.errors import LedgerError, UsageError
from rl.core.rundir import RunDir
from rl.observe.findings import Finding, Groups
from rl.observe.rules import findings
from rl.study.foreign import read_foreign
from rl.study.plan import NOT_PLANNED, Plan, PlannedRun, arm_name, checked, configured
from rl.study.runs import NOT_COMPUTED, StudyRun, read_run


def diagnosed(path: Path) -> list[tuple[StudyRun, list[Finding]]]:
    """Each run that is there, a directory of ours or the file of another tool, with what is wrong with it.

    Raises:
        UsageError: there is no run, or it cannot be read.
    """
    if path.is_dir():
        run = read_run(path)
        return [(run, findings(run, groups_of(RunDir(path))))]
    return [(run, findings(run)) for run in read_foreign(path)]


def groups_of(run: RunDir) -> Groups | None:
    """What became of a run's groups; None where its ledger is not there, or cannot be read."""
    from rl.buffer.history import History  # SQLAlchemy: a log of another tool does not wait for it

    try:
        with closing(History(run.buffer_url)) as history:
            rows = history.books().rows
    except (UsageError, LedgerError):
        return None
    counts = {state.value: sum(row.state == state for row in rows) for state in State}
    tied = [row.mean_reward for row in rows if row.state == State.NO_SIGNAL and row.mean_reward is not None]
    return Groups(counts=counts, tied_reward=sum(tied) / len(tied) if tied else None)


def lines(run: StudyRun, found: Sequence[Finding]) -> list[str]:
    """The diagnosis of one run in words."""
    if not found:
        return [f"{run.name}: nothing looks wrong in {_looked_at(run)}"]
    text = [f"{run.name}: {len(found)} finding{'s' if len(found) > 1 else ''} in {_looked_at(run)}"]
    for number, finding in enumerate(found, start=1):
        text += [f"{number}. {finding.what} ({finding.rule})", f"   {finding.evidence}"]
        text += [f"   {finding.cure}" + (f":  {finding.pasted}" if finding.pasted else "")]
    return text


def as_json(run: StudyRun, found: Sequence[Finding]) -> dict[str, Any]:
    """The diagnosis of one run for machines."""
    stated = [_plain({**asdict(finding), "line": finding.line, "try": finding.pasted}) for finding in found]
    return {"run": run.name, "steps": run.last_step, "findings": stated}


def suggested(run: StudyRun, found: Sequence[Finding]) -> Plan:
    """A plan for the next sweep: the run as it was, and one row for each finding's settings, causes first.

    Raises:
        UsageError: no finding names a setting to try.
    """
    base = _base(run)
    rows: list[PlannedRun] = []
    seen: list[TrainConfig] = [configured(base)]
    for finding in found:
        changes = {name: value for name, value in finding.changes.items() if name not in NOT_PLANNED}
        if not changes or (config := configured(base | changes)) in seen:
            continue
        seen.append(config)
        rows.append(
            PlannedRun(
                name=arm_name(changes),
                priority=len(rows) + 1,
                reason=f"{finding.what}: {finding.evidence}",
                changes=changes,
                criteria=["better than as-it-was", "no non-finite values"],
            )
        )
    if not rows:
        raise UsageError("no finding names a setting to try", fix="leave --suggest out, and see what it says")
    before = PlannedRun(name="as-it-was", priority=len(rows) + 1, reason="what the others are compared with")
    name = arm_name({"after-": run.path.name})
    return checked(Plan(name=name, reason=f"what helps {run.path.name}", seeds=2, base=base, runs=[*rows, before]))


def _base(run: StudyRun) -> dict[str, Any]:
    """The settings of a run that are not the defaults, and that a plan may have."""
    left_out = NOT_COMPUTED | NOT_PLANNED.keys() | (set() if run.ours else {"model", "problems"})  # which are not here
    changed = cli.changed({n: value for n, value in run.settings.items() if n not in left_out and value is not None})
    if run.ours:
        return changed
    base: dict[str, Any] = {}
    for name, value in changed.items():  # another tool's batch may not fit
        with suppress(UsageError):
            configured(base | {name: value})
            base[name] = value
    return base


def _looked_at(run: StudyRun) -> str:
    steps, sets = run.last_step, [evaluated for results in run.evaluations.values() for evaluated in results]
    if run.ours:
        return f"{steps or 'no'} steps and {len(sets)} evaluations"
    return f"{len(run.curves)} curves up to step {steps}" if run.curves else "its final results"


def _plain(value: Any) -> Any:
    """What JSON has: a number that is not finite, as a log may hold it, in words."""
    if isinstance(value, dict):
        return {name: _plain(own) for name, own in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
