"""What runs gained: their evaluations as a table and as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.evaluate.result import EvalResult, compare, p_value, percent, summary


def evaluations(run: RunDir) -> list[EvalResult]:
    """A run's evaluations in the order of steps.

    Raises:
        UsageError: this is no run, it has none yet, or one cannot be read.
    """
    run.config()
    results = [EvalResult.load(path) for path in sorted(run.evals.glob("step-*.json"))]
    if not results:
        raise UsageError(f"{run.root} has no evaluation yet", fix="wait for the first, or go on with it by --resume")
    return results


def gains_table(runs: Mapping[str, Sequence[EvalResult]]) -> str:
    """A Markdown table in percent, one row a run: first and last evaluation, and their paired difference."""
    head = ["run", "questions", "steps", "pass@1 before", "pass@1 after", "difference", "p", "pass@k before", "after"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name, results in runs.items():
        first, last = results[0], results[-1]
        k = f"pass@{first.samples_per_problem}"
        before, after, gain = summary(first), summary(last), compare(first, last).pass_at_1
        numbers = [percent(before["pass@1"]), percent(after["pass@1"]), percent(gain, sign="+"), p_value(gain)]
        questions = len(first.questions) - len(first.missing)
        rows.append([name, str(questions), str(last.step), *numbers, percent(before[k]), percent(after[k])])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def draw(runs: Mapping[str, Sequence[EvalResult]], path: Path) -> None:
    """pass@1 and pass@k by step, a line and a 95 % band for each run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shared_k = min(result.samples_per_problem for results in runs.values() for result in results)
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    for axis, k in zip(axes, (1, shared_k), strict=True):
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
