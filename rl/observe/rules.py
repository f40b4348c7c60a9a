"""What looks wrong in a run: one list of rules, for a run that goes on, a run that is over, and a log of another tool.

A rule is a function of a run's curves, evaluations and settings; what it needs and does not find there it says nothing
about. The first in the list are the causes, then what they bring about.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from rl.core.config import HELDOUT, TrainConfig
from rl.core.errors import UsageError
from rl.core.rundir import RunDir, best_evaluation, heldout_evaluations
from rl.evaluate.result import EvalResult
from rl.observe import rules_of_learning as learning
from rl.observe import rules_of_results as results
from rl.observe import rules_of_samples as samples
from rl.observe.findings import Finding, Groups, Subject
from rl.observe.readings import RECENT, Record, clock
from rl.study.runs import Evaluated, Status, StudyRun, curves_of

RULES: tuple[Callable[[Subject], Finding | None], ...] = (
    learning.non_finite,
    samples.verifier_errors,
    samples.mismatch,
    samples.truncation,
    learning.lr_high,
    learning.lr_low,
    samples.stale,
    learning.warmup_ignored,
    learning.no_warmup,
    results.reward_hacking,
    samples.entropy_collapse,
    samples.tied,
    results.overfitting,
    learning.divergence,
    learning.instability,
    learning.always_clipped,
    learning.never_clipped,
    results.rank_small,
    results.plateau,
    samples.starved,
    results.no_evaluation,
)
BRINGS_ABOUT = {
    "lr_high": ("stale", "no_warmup", "entropy_collapse", "all_wrong", "ties", "divergence", "instability", "plateau"),
    "truncation": ("all_wrong",),
    "lr_low": ("plateau",),
    "reward_hacking": ("all_right", "ties", "plateau", "entropy_collapse"),
    "overfitting": ("all_right", "divergence", "instability", "plateau"),
}
"""Rule → the rules that also see what it brings about."""
SILENCE_S = 30.0
"""Without a step for so long the user is told: without signal no step is ever made."""
UNUSUAL = 3
"""A step that takes so many times the slowest of the last is worth a word; one that is just slow is not."""


def findings(run: StudyRun, groups: Groups | None = None) -> list[Finding]:
    """What is wrong with a run, causes first; nothing where it is sound, or too short to tell.

    What a cause that was found brings about is left out: its own cure would lead astray.
    """
    subject = Subject(run=run, groups=groups)
    with np.errstate(all="ignore"):  # a log may hold any number
        found = [finding for rule in RULES if (finding := rule(subject)) is not None]
    explained = {consequence for finding in found for consequence in BRINGS_ABOUT.get(finding.rule, ())}
    return [finding for finding in found if finding.rule not in explained]


def findings_so_far(
    config: TrainConfig,
    steps: Sequence[Record],
    evaluations: Sequence[EvalResult],
    counts: Mapping[str, int] | None = None,
) -> list[Finding]:
    """`findings` in a run in progress.

    Args:
        steps: its records of kind `step`, in order.
        evaluations: of the held-out problems, in the order of steps.
        counts: of its groups, by state.
    """
    measured = [Evaluated(result=result, samples=None, tokens=None, seconds=None) for result in evaluations]
    run = StudyRun(
        name="",
        path=Path("RUN"),
        settings=config.model_dump(mode="json"),
        status=Status.RUNNING,
        curves=curves_of(steps),
        evaluations={HELDOUT: measured} if measured else {},
    )
    return findings(run, Groups(counts=counts) if counts else None)


def telling_evaluations(run: RunDir, evals: Iterable[Record]) -> list[EvalResult]:
    """The held-out evaluations that rules look at while a run goes on: the first, the best and the newest, as far as
    they can be read: looking at a run never ends it.

    Args:
        evals: its records of kind `eval`, in order.
    """
    records = heldout_evaluations(evals)
    chosen = [*records[:1], *filter(None, [best_evaluation(records)]), *records[-1:]]
    results = []
    for step in sorted({record["step"] for record in chosen}):
        with suppress(UsageError):
            results.append(EvalResult.load(run.eval_file(HELDOUT, step)))
    return results


def silence(steps: Sequence[Record], quiet_s: float) -> str | None:
    """A word on a run in progress that has logged nothing for longer than its steps take."""
    if not steps or quiet_s <= patience_s(steps):
        return None
    slowest = max(record["step_s"] for record in steps[-RECENT:])
    return f"nothing for {clock(quiet_s)}, and the last steps took {slowest:.1f} s at the most; see logs/"


def patience_s(steps: Sequence[Record]) -> float:
    """Seconds without a step that are no cause for concern, by how long the last steps took."""
    slowest: float = max((record["step_s"] for record in steps[-RECENT:]), default=0.0)
    return max(SILENCE_S, UNUSUAL * slowest)
