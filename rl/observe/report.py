"""What runs gained: their evaluations as tables and as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rewards.verdict import Mark
from rl.core.config import HELDOUT
from rl.core.errors import UsageError
from rl.core.rundir import RunDir, best_evaluation, heldout_evaluations, step_of
from rl.evaluate.result import (
    EvalResult,
    QuestionResult,
    compare,
    format_sets,
    load_sets,
    markdown,
    p_value,
    percent,
    summary,
)


def evaluations(run: RunDir) -> dict[str, list[EvalResult]]:
    """A run's evaluations by the name of their set, the held-out problems first, in the order of steps.

    Raises:
        UsageError: this is no run, it has none yet, or one cannot be read.
    """
    replay = run.config().replay is not None
    sets = load_sets(run.evals)
    if HELDOUT not in sets:
        fix = f"python -m rl.eval {run.root}" if replay else "wait for the first, or go on with it by --resume"
        raise UsageError(f"{run.root} has no evaluation{'' if replay else ' yet'}", fix=fix)
    return sets


def by_set(runs: Mapping[str, Mapping[str, list[EvalResult]]]) -> dict[str, dict[str, list[EvalResult]]]:
    """run → set → evaluations, turned: set → run → evaluations."""
    sets = dict.fromkeys(name for evaluated in runs.values() for name in evaluated)
    return {name: {run: own[name] for run, own in runs.items() if name in own} for name in sets}


def summary_lines(run: RunDir, width: int | None = None) -> list[str]:
    """What came of a run: on each set the paired difference to the start, which checkpoint is the best, and where the
    time went.

    Args:
        width: columns of a terminal, if it is one.
    """
    records = run.records()
    best, measured = best_evaluation(records), heldout_evaluations(records)
    steps = [record for record in records if record["kind"] == "step"]
    sets = _milestones(run, best["step"] if best else None)
    lines = []
    if sets:
        lines.append(format_sets(sets, width))
    if best and len(measured) > 1:
        fresh = "the other sets are not chosen on" if len(sets) > 1 else "--eval-on names sets that are not chosen on"
        value, n = best["summary"]["pass@1"]["value"], len(measured)
        lines.append(f"best held-out pass@1: {value:.3f} at step {best['step']}; best of {n}, so optimistic: {fresh}")
    if steps:
        wait = sum(r["wait_s"] for r in steps) / sum(r["step_s"] for r in steps)
        stale = max(r["staleness_max"] for r in steps)
        lines.append(f"the learner waited {wait:.0%} of its time; staleness was {stale} steps at the most")
    return lines


def _milestones(run: RunDir, best: int | None) -> dict[str, dict[str, EvalResult]]:
    """The sets with several evaluations: those at the start, at the best checkpoint in between, and at the end."""
    sets = {}
    for name in run.config().eval_sets:
        steps = sorted(step_of(path) for path in run.eval_file(name, 0).parent.glob("step-*.json"))
        if len(steps) > 1:
            between = [("best", step) for step in steps[1:-1] if step == best]
            chosen = [("start", steps[0]), *between, ("end", steps[-1])]
            sets[name] = {row: EvalResult.load(run.eval_file(name, step)) for row, step in chosen}
    return sets


def gains_table(runs: Mapping[str, Sequence[EvalResult]]) -> str:
    """A Markdown table in percent, one row a run: first and last evaluation, and their paired difference."""
    k = samples_of_all(runs)
    rows = [["run", "questions", "steps", "pass@1 before", "after", "difference", "p", f"pass@{k} before", "after"]]
    for name, results in runs.items():
        first, last = results[0], results[-1]
        before, after, gain = summary(first, ks=[1, k]), summary(last, ks=[1, k]), compare(first, last).pass_at_1
        questions = len(first.questions) - len(first.missing)
        numbers = [before["pass@1"], after["pass@1"], gain, before[f"pass@{k}"], after[f"pass@{k}"]]
        one, two, difference, three, four = map(percent, numbers, ["", "", "+", "", ""])
        rows.append([name, str(questions), str(last.step), one, two, difference, p_value(gain), three, four])
    return markdown(rows)


def most_improved(results: Sequence[EvalResult]) -> str:
    """The problem that a run gained most on, with all answers before and after; empty where it gained on none.

    Example: ``70*4+5 = 285: before 280, 290, 285, 280 (1 of 4 right); after 285, 285, 285, 285 (4 of 4 right)``
    """
    after = {question.problem_id: question for question in results[-1].questions}
    pairs = [(q, after[q.problem_id]) for q in results[0].questions if q.problem_id in after]
    gains = [((new.pass_at(1) or 0.0) - (old.pass_at(1) or 0.0), old, new) for old, new in pairs]
    gain, old, new = max(gains, key=lambda row: row[0], default=(0.0, None, None))
    if gain <= 0 or old is None or new is None:
        return ""
    return f"{old.problem} = {old.gold}: before {_answers(old)}; after {_answers(new)}"


def samples_of_all(runs: Mapping[str, Sequence[EvalResult]]) -> int:
    """The largest k for which every evaluation has a pass@k."""
    return min(result.samples_per_problem for results in runs.values() for result in results)


def _answers(question: QuestionResult) -> str:
    right = question.marks.count(Mark.RIGHT)
    return f"{', '.join(a or '–' for a in question.answers)} ({right} of {len(question.marks)} right)"


def draw(sets: Mapping[str, Mapping[str, Sequence[EvalResult]]], path: Path) -> None:
    """pass@1 and pass@k by step, a row for each set, in it a line and a 95 % band for each run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    size = (9, 3.4 * len(sets))
    figure, axes = pyplot.subplots(len(sets), 2, figsize=size, sharey=True, squeeze=False, layout="constrained")
    panels = [(name, runs, k) for name, runs in sets.items() for k in (1, samples_of_all(runs))]
    for axis, (problems, runs, k) in zip(axes.flat, panels, strict=True):
        for name, results in runs.items():
            measured = [(r.step, e) for r in results if (e := summary(r, ks=[k])[f"pass@{k}"])]
            steps = [step for step, _ in measured]
            (line,) = axis.plot(steps, [e.value for _, e in measured], marker="o", markersize=3, label=name)
            axis.fill_between(
                steps, [e.low for _, e in measured], [e.high for _, e in measured], color=line.get_color(), alpha=0.15
            )
        where = "held-out problems" if problems == HELDOUT else problems
        axis.set(title=f"pass@{k} on {where}", xlabel="step", ylim=(0, 1))
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
