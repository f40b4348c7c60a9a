"""What runs gained: their evaluations as a table and as a picture."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rewards.verdict import Mark
from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.core.types import Problem
from rl.evaluate.result import EvalResult, QuestionResult, compare, load_all, p_value, percent, summary


def evaluations(run: RunDir) -> list[EvalResult]:
    """A run's evaluations in the order of steps.

    Raises:
        UsageError: this is no run, it has none yet, or one cannot be read.
    """
    run.config()
    results = load_all(run.evals)
    if not results:
        raise UsageError(f"{run.root} has no evaluation yet", fix="wait for the first, or go on with it by --resume")
    return results


def gains_table(runs: Mapping[str, Sequence[EvalResult]]) -> str:
    """A Markdown table in percent, one row a run: first and last evaluation, and their paired difference."""
    k = samples_of_all(runs)
    head = ["run", "questions", "steps", "pass@1 before", "after", "difference", "p", f"pass@{k} before", "after"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name, results in runs.items():
        first, last = results[0], results[-1]
        before, after, gain = summary(first, ks=[1, k]), summary(last, ks=[1, k]), compare(first, last).pass_at_1
        questions = len(first.questions) - len(first.missing)
        numbers = [before["pass@1"], after["pass@1"], gain, before[f"pass@{k}"], after[f"pass@{k}"]]
        one, two, difference, three, four = map(percent, numbers, ["", "", "+", "", ""])
        rows.append([name, str(questions), str(last.step), one, two, difference, p_value(gain), three, four])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def most_improved(results: Sequence[EvalResult], problems: Iterable[Problem]) -> str:
    """The problem that a run gained most on, with all answers before and after; empty where it gained on none.

    Example: ``70*4+5 = 285: before 280, 290, 285, 280 (1 of 4 right); after 285, 285, 285, 285 (4 of 4 right)``
    """
    texts = {problem.id: problem for problem in problems}
    after = {question.problem_id: question for question in results[-1].questions}
    pairs = [(q, after[q.problem_id]) for q in results[0].questions if q.problem_id in after and q.problem_id in texts]
    gains = [((new.pass_at(1) or 0.0) - (old.pass_at(1) or 0.0), old, new) for old, new in pairs]
    gain, old, new = max(gains, key=lambda row: row[0], default=(0.0, None, None))
    if gain <= 0 or old is None or new is None:
        return ""
    problem = texts[old.problem_id]
    return f"{problem.text} = {problem.gold}: before {_answers(old)}; after {_answers(new)}"


def samples_of_all(runs: Mapping[str, Sequence[EvalResult]]) -> int:
    """The largest k for which every evaluation has a pass@k."""
    return min(result.samples_per_problem for results in runs.values() for result in results)


def _answers(question: QuestionResult) -> str:
    right = question.marks.count(Mark.RIGHT)
    return f"{', '.join(a or '–' for a in question.answers)} ({right} of {len(question.marks)} right)"


def draw(runs: Mapping[str, Sequence[EvalResult]], path: Path) -> None:
    """pass@1 and pass@k by step, a line and a 95 % band for each run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    for axis, k in zip(axes, (1, samples_of_all(runs)), strict=True):
        for name, results in runs.items():
            measured = [(r.step, e) for r in results if (e := summary(r, ks=[k])[f"pass@{k}"])]
            steps = [step for step, _ in measured]
            (line,) = axis.plot(steps, [e.value for _, e in measured], marker="o", markersize=3, label=name)
            axis.fill_between(
                steps, [e.low for _, e in measured], [e.high for _, e in measured], color=line.get_color(), alpha=0.15
            )
        axis.set(title=f"pass@{k} on held-out problems", xlabel="step", ylim=(0, 1))
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
