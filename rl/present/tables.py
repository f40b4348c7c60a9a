"""The tables of a report. A cell without a measurement says so."""

from collections.abc import Callable, Sequence

from rl.core.rundir import RunDir
from rl.evaluate.result import EvalResult, compare, summary
from rl.present.document import Table
from rl.present.figures import AXES, curve_names
from rl.present.progress import Checkpoint, Progress
from rl.present.study import Study
from rl.present.words import NO_DATA, interval, number, p_value, setting, steps
from rl.study.insights import Insight
from rl.study.runs import SEED, Arm, StudyRun, differences

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
        tables.append(Table(caption="Every setting", head=head, rows=everything, words=words, folded=True))
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
    return Table(caption="How each run stands", head=head, rows=rows, words=WORDS)


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
    """The metric at the newest checkpoint that each arm had reached for the same cost; None where no cost is known."""
    cost = AXES[axis]
    reached = {
        name: [(x, point) for point in points if (x := cost(point)) is not None]
        for name, points in progress.arms.items()
    }
    ends = [costs[-1][0] for costs in reached.values() if costs]
    least = min((end for end in ends if end > 0), default=None)
    if least is None:
        return None
    budgets = [least * quarter / 4 for quarter in (1, 2, 3, 4)] + ([max(ends)] if max(ends) > least else [])
    rows = [[name, *(_within(costs, budget, metric) for budget in budgets)] for name, costs in reached.items()]
    caption = f"{metric} on {progress.name} at the newest checkpoint within so many {axis}"
    return Table(caption=caption, head=["arm", *map(number, budgets)], rows=rows, words=WORDS)


def _within(costs: Sequence[tuple[float, Checkpoint]], budget: float, metric: str) -> str:
    newest = [point for x, point in costs if x <= budget * (1 + 1e-9)]
    return f"{interval(newest[-1].estimates[metric])} at step {newest[-1].step}" if newest else NO_DATA


def _spread(values: Sequence[int]) -> list[int]:
    if len(values) <= STEPS_SHOWN:
        return list(values)
    return sorted({values[round(i * (len(values) - 1) / (STEPS_SHOWN - 1))] for i in range(STEPS_SHOWN)})


def gains(study: Study, set: str) -> Table | None:
    """Each run against its own start: the first and the last evaluation, and their paired difference."""
    runs = [(run, [e.result for e in run.evaluations[set]]) for run in study.runs if run.evaluations.get(set)]
    if not runs:
        return None
    k = min(result.samples_per_problem for _, results in runs for result in results)
    head = ["run", "questions", "steps", "pass@1 before", "after", "difference", "p", f"pass@{k} before", "after"]
    rows = [_gain(run, results, k) for run, results in runs]
    return Table(caption=f"Each run against its own start, {set}", head=head, rows=rows, words=WORDS)


def _gain(run: StudyRun, results: Sequence[EvalResult], k: int) -> list[str]:
    first, last = results[0], results[-1]
    before, after = summary(first, ks=[1, k]), summary(last, ks=[1, k])
    gain = compare(first, last).pass_at_1 if comparable(first, last) and len(results) > 1 else None
    questions = str(len(first.questions) - len(first.missing))
    pair = [interval(before["pass@1"]), interval(after["pass@1"]), interval(gain, "+"), p_value(gain)]
    return [run.name, questions, str(last.step), *pair, interval(before[f"pass@{k}"]), interval(after[f"pass@{k}"])]


def comparable(first: EvalResult, other: EvalResult) -> bool:
    """Whether both were measured alike; `rl.evaluate.result.compare` refuses the rest."""
    alike = ("problems_sha256", "temperature", "max_tokens", "extraction")
    return all(getattr(first, name) == getattr(other, name) for name in alike)


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
            bad = [(step, value) for step, value in curve.measured if number(value)[-1].isalpha()]
            if bad:
                kinds = " or ".join(dict.fromkeys(number(value) for _, value in bad))
                said.append(f"{run.name}: {name} is {kinds} at step {steps([step for step, _ in bad])}")
    return said


# ---- claims and origins


def criteria(claims: Sequence[Insight]) -> Table:
    rows = [[claim.arms[0], *(str(claim.data[name]) for name in ("criterion", "outcome", "why"))] for claim in claims]
    return Table(caption="Success criteria", head=["arm", "criterion", "outcome", "why"], rows=rows, words=WORDS)


def origins(study: Study, launches: Callable[[RunDir], list[dict[str, object]]]) -> Table:
    """Where each run comes from."""
    rows = []
    for run in study.runs:
        recorded = launches(RunDir(run.path)) if run.ours else []
        last = recorded[-1] if recorded else {}
        command = " ".join(["python -m rl.train", *map(str, last["command"][1:])]) if last else NO_DATA  # type: ignore[index]
        commit = str(last.get("git_commit") or NO_DATA)[:12]
        rows.append([run.name, str(run.path), commit, str(last.get("started", NO_DATA)), str(len(recorded)), command])
    head = ["run", "read from", "commit", "started", "launches", "command"]
    return Table(caption="Where the runs come from", head=head, rows=rows, words=frozenset(head))
