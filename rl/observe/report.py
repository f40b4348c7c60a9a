"""What came of a run, in the lines that its end prints. `rl.present` makes the whole report."""

from rl.core.rundir import RunDir, best_evaluation, heldout_evaluations, step_of
from rl.evaluate.result import EvalResult, format_sets


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
