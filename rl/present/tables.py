"""The tables of a report. A cell without a measurement says so."""

import math
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rl.core.rundir import RunDir
from rl.evaluate.stats import estimate_mean
from rl.present.document import Table
from rl.present.figures import AXES, curve_names
from rl.present.progress import Checkpoint, Progress, name_of
from rl.present.study import Study
from rl.present.words import NO_DATA, interval, number, setting
from rl.study.insights import Insight
from rl.study.measured import per_question
from rl.study.runs import SEED, Arm, StudyRun, differences
from rl.study.words import steps

STEPS_SHOWN = 12
"""Columns of a table by steps; of more the first, the last, and some between."""
WORDS = frozenset(
    {"run", "arm", "runs", "status", "why", "reason", "phase", "criterion", "outcome", "metric", "setting"}
)


def configuration(study: Study) -> list[Table]:
    """What differs, an arm a row; and everything, folded."""
    first = [arm.runs[0] for arm in study.arms]
    differing = differences(first)
    tables = []
    if differing:
        rows = [
            [arm.name, *(setting(values[at]) for values in differing.values()), _seeds(arm)]
            for at, arm in enumerate(study.arms)
        ]
        head = ["arm", *differing, "seeds"]
        tables.append(Table(caption="What differs between the arms", head=head, rows=rows, words=WORDS))
    names = dict.fromkeys(name for run in first for name in run.settings if name != SEED)
    if names:
        everything = [[name, *(setting(run.settings.get(name)) for run in first)] for name in names]
        head = ["setting", *(arm.name for arm in study.arms)]
        words = frozenset(head)
        tables.append(Table(caption="Every setting", head=head, rows=everything, words=words, on_demand=True))
    return tables


def _seeds(arm: Arm) -> str:
    seeds = [run.seed for run in arm.runs if run.seed is not None]
    return ", ".join(map(str, seeds)) or "–"


def statuses(study: Study) -> Table:
    """How each run stands, in the plan's order of priority where there is a plan."""
    planned = bool(study.entries)
    head = ["run", "arm", "status", "steps made", "minutes", "why"] + (["priority", "reason"] if planned else [])
    rows = []
    for run in study.runs:
        made = number(run.last_step)
        row = [run.name, study.arm_of[run.name], run.status.value, made, number(run.minutes), run.why]
        if planned:
            entry = study.entries.get(run.name)
            row += [str(entry.priority), entry.reason] if entry else ["–", ""]
        rows.append(row)
    counts = Counter(run.status.value for run in study.runs)
    stand = ", ".join(f"{count} {status}" for status, count in counts.items())
    return Table(caption=f"How each run stands: {stand}", head=head, rows=rows, words=WORDS)


# ---- pass rates


def by_steps(progress: Progress, metric: str) -> Table:
    """The metric of each arm at each checkpoint."""
    shown = _spread(progress.steps)
    rows = []
    for name, points in progress.arms.items():
        at = {point.step: point.estimates[metric] for point in points}
        rows.append([name, *(interval(at.get(step)) for step in shown)])
    some = "" if len(shown) == len(progress.steps) else f", {len(shown)} of {len(progress.steps)} checkpoints"
    caption = f"{metric} on {progress.name} by updates{some}"
    return Table(caption=caption, head=["arm", *(f"step {step}" for step in shown)], rows=rows, words=WORDS)


def by_cost(progress: Progress, metric: str, axis: str) -> Table | None:
    """The metric at the newest checkpoint that each arm had reached for the same cost.

    None where no cost is known, or where there is only one arm.
    """
    cost = AXES[axis]
    reached = {
        name: [(x, point) for point in points if (x := cost(point)) is not None]
        for name, points in progress.arms.items()
    }
    ends = [costs[-1][0] for costs in reached.values() if costs]
    least = min((end for end in ends if end > 0), default=None)
    if least is None or len(reached) == 1:
        return None
    budgets = sorted({_rounded(end) for end in [*(least * quarter / 4 for quarter in (1, 2, 3, 4)), max(ends)]})
    rows = [[name, *(_within(costs, budget, metric) for budget in budgets)] for name, costs in reached.items()]
    caption = f"{metric} on {progress.name} at the newest checkpoint within so many {axis}"
    unit = axis.split()[0]
    head = ["arm", *(f"{number(budget)} {unit}" for budget in budgets)]
    return Table(caption=caption, head=head, rows=rows, words=WORDS)


def _rounded(cost: float) -> float:
    """Upwards to two digits, and to a whole number from 10 on, so that what was reached for it is within it."""
    digits = max(0, 1 - math.floor(math.log10(cost)))
    return math.ceil(round(cost * 10.0**digits, 6)) / 10.0**digits


def _within(costs: Sequence[tuple[float, Checkpoint]], budget: float, metric: str) -> str:
    newest = [point for x, point in costs if x <= budget * (1 + 1e-9)]
    return f"{interval(newest[-1].estimates[metric])} at step {newest[-1].step}" if newest else NO_DATA


def _spread(values: Sequence[int]) -> list[int]:
    if len(values) <= STEPS_SHOWN:
        return list(values)
    return sorted({values[round(i * (len(values) - 1) / (STEPS_SHOWN - 1))] for i in range(STEPS_SHOWN)})


def by_run(study: Study, set: str) -> Table:
    """The metric of every run at each checkpoint, those included that no comparison has."""
    runs = [run for run in study.runs if run.evaluations.get(set)]
    shown = _spread(sorted({e.step for run in runs for e in run.evaluations[set]}))
    rows = []
    for run in runs:
        at = {e.step: list(per_question(e.result, study.metric).values()) for e in run.evaluations[set]}
        cells = [interval(estimate_mean(values) if (values := at.get(step)) else None) for step in shown]
        rows.append([run.name, study.arm_of[run.name], run.status.value, *cells])
    caption = f"{study.metric} on {name_of(set)} of each run alone, those included that the comparison leaves out"
    head = ["run", "arm", "status", *(f"step {step}" for step in shown)]
    return Table(caption=caption, head=head, rows=rows, words=WORDS, on_demand=True)


def gains(study: Study, progress: Sequence[Progress]) -> Table | None:
    """Each arm against its own start: the numbers of the claims; None where no arm was measured before training."""
    found = study.comparisons.gains
    rows = []
    for own in progress:
        for name, points in own.arms.items() if own.set == study.set else ():
            before, after = _at_start(points), points[-1].estimates[study.metric] if points else None
            gain = found.get(name)
            questions = NO_DATA if gain is None else str(gain.n_questions)
            step = str(points[-1].step) if points else NO_DATA
            start = before.estimates[study.metric] if before else None
            rows.append([name, questions, step, interval(start), interval(after), interval(gain, "+")])
    metric, many = study.metric, len(found)
    corrected = f", the gain corrected for {many} arms" if many > 1 else ""
    caption = f"Each arm against its own start on {name_of(study.set)}: 95 % intervals{corrected}"
    head = ["arm", "questions", "step", f"{metric} before", "after", "gain"]
    return Table(caption=caption, head=head, rows=rows, words=WORDS) if found else None


def _at_start(points: Sequence[Checkpoint]) -> Checkpoint | None:
    """The checkpoint before training; an evaluation that is missing is not replaced by a later one."""
    return next((point for point in points if point.step == 0), None)


def results(progress: Progress) -> Table:
    """What each arm came to in the end, and what that had cost."""
    head = ["arm", "step", "runs", *progress.metrics, "samples", "tokens", "minutes"]
    rows = []
    for name, points in progress.arms.items():
        if not points:
            rows.append([name, *[NO_DATA] * (len(head) - 1)])
            continue
        last = points[-1]
        minutes = None if last.seconds is None else last.seconds / 60
        costs = [number(last.samples), number(last.tokens), number(minutes)]
        estimates = [interval(last.estimates[metric]) for metric in progress.metrics]
        rows.append([name, str(last.step), str(last.runs), *estimates, *costs])
    return Table(
        caption=f"The last evaluation of each arm on {progress.name}", head=head, rows=rows, words=frozenset({"arm"})
    )


# ---- training


def last_values(study: Study) -> Table | None:
    """Of each training metric."""
    names = curve_names(study)
    rows = [[run.name, *(number(_last(run, name)) for name in names)] for run in study.runs]
    caption = "The last value of each metric"
    return Table(caption=caption, head=["run", *names], rows=rows, words=WORDS) if names else None


def _last(run: StudyRun, name: str) -> float | None:
    curve = run.curves.get(name)
    return curve.last if curve else None


def stated(study: Study) -> Table | None:
    """What other tools state once for a whole run."""
    runs = [run for run in study.runs if run.finals]
    names = list(dict.fromkeys(name for run in runs for name in run.finals))
    rows = [[run.name, *(number(run.finals.get(name)) for name in names)] for run in runs]
    caption = "Final results, as the files state them"
    return Table(caption=caption, head=["run", *names], rows=rows, words=WORDS) if names else None


def of_other_tools(study: Study) -> list[Table]:
    """The curves of other tools at the steps that their files have: a cell that is missing there is missing here."""
    runs = [run for run in study.runs if not run.ours]
    tables = []
    for name in dict.fromkeys(name for run in runs for name in run.curves):
        own = [(run, run.curves[name]) for run in runs if name in run.curves]
        shown = _spread(sorted({step for _, curve in own for step in curve.steps}))
        rows = []
        for run, curve in own:
            at = dict(zip(curve.steps, curve.values, strict=True))
            rows.append([run.name, *(number(at.get(step)) for step in shown)])
        head = ["run", *(f"step {step}" for step in shown)]
        tables.append(Table(caption=f"{name}, as the files state it", head=head, rows=rows, words=WORDS))
    return tables


def not_finite(study: Study) -> list[str]:
    """Where a curve holds a value that is not finite, in words."""
    said = []
    for run in study.runs:
        for name, curve in run.curves.items():
            bad = [(step, value) for step, value in curve.measured if not math.isfinite(value)]
            if bad:
                kinds = " or ".join(dict.fromkeys(number(value) for _, value in bad))
                said.append(f"{run.name}: {name} is {kinds} at {steps([step for step, _ in bad])}")
    return said


# ---- claims and origins


def criteria(claims: Sequence[Insight]) -> Table:
    rows = [[claim.arms[0], *(str(claim.data[name]) for name in ("criterion", "outcome", "why"))] for claim in claims]
    return Table(caption="Success criteria", head=["arm", "criterion", "outcome", "why"], rows=rows, words=WORDS)


def origins(study: Study, launches: Callable[[RunDir], list[dict[str, Any]]]) -> Table:
    """Where each run comes from."""
    rows = []
    for run in study.runs:
        recorded = launches(RunDir(run.path)) if run.ours else []
        last = recorded[-1] if recorded else {}
        given = last.get("command")
        command = shlex.join(["python", "-m", "rl.train", *map(str, given[1:])]) if isinstance(given, list) else NO_DATA
        commit, started = (str(last.get(name) or NO_DATA) for name in ("git_commit", "started"))
        launched = str(len(recorded)) if recorded else NO_DATA
        rows.append([run.name, str(run.path), commit[:12], started, launched, command])
    head = ["run", "read from", "commit", "started", "launches", "command"]
    return Table(caption="Where the runs come from", head=head, rows=rows, words=frozenset(head))
