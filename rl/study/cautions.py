"""What a study cannot say: what was not measured, and what must be kept in mind."""

from collections.abc import Iterator
from typing import Any

from rl.core.config import HELDOUT
from rl.study.insights import Insight, Kind
from rl.study.measured import NO_RESULT, Comparisons, has_metric, protocol, protocol_of
from rl.study.runs import Arm, Status, StudyRun
from rl.study.words import at_steps, counted, listing, steps, where


def no_data(study: Comparisons) -> Iterator[Insight]:
    """A sentence for each run, or step of it, without a value."""
    for arm in study.arms:
        for run in arm.runs:
            yield from _no_data(study, arm, run)


def cautions(study: Comparisons) -> Iterator[Insight]:
    yield from _lost_runs(study)
    yield from _other_protocols(study)
    yield from _repeated_seeds(study)
    yield from _single_seeds(study)
    yield from _different_steps(study)
    yield from _unequal_samples(study)
    running = [run.name for arm in study.arms for run in arm.runs if run.status is Status.RUNNING]
    if running:
        text = f"{listing(running)}: still in progress; what is said is of its evaluations so far"
        yield Insight(kind=Kind.CAUTION, text=text, data={"runs": running})
    if study.measured and study.set == HELDOUT:
        text = (
            "checkpoints are chosen on the problems that they are compared on: the chosen one's value is optimistic; "
            "--eval-on names a set that nothing is chosen on"
        )
        yield Insight(kind=Kind.CAUTION, text=text, data={"set": study.set})


def _no_data(study: Comparisons, arm: Arm, run: StudyRun) -> Iterator[Insight]:
    evaluations = run.evaluations.get(study.set, [])
    status = "" if run.status is Status.BEATEN else f"{run.status}: "  # its reason begins with the word
    reason = f" ({(status + run.why) if run.why else run.status})" if run.status is not Status.DONE else ""
    data: dict[str, Any] = {"run": run.name, "status": run.status.value, "why": run.why}

    def insight(text: str, **more: Any) -> Insight:
        return Insight(kind=Kind.NO_DATA, text=f"{text}: no conclusion", arms=[arm.name], data=data | more)

    if not evaluations:
        yield insight(f"no data for run {run.name}: no evaluation on {where(study.set)}{reason}")
        return
    have = {e.step for e in evaluations if has_metric(e.result, study.metric)}
    if not have:
        n = max(e.result.samples_per_problem for e in evaluations)
        cause = f"its questions have {counted(n, 'sample')}, and not enough of them are marked"
        yield insight(f"no {study.metric} for run {run.name}: {cause}")
        return
    planned = _planned_steps(run)
    missing = [step for step in planned if step not in have]
    if run.status in (Status.RUNNING, Status.DONE) and run.last_step is not None:
        missing = [step for step in missing if step <= run.last_step]  # its patience or a budget may have ended it
    if missing:
        yield insight(f"no data for run {run.name} at {steps(missing, planned)}{reason}", steps=missing)
    last = evaluations[-1].result
    if last.step in have and (unmeasured := len(last.missing)):
        part = f"{unmeasured} of {counted(len(last.questions), 'question')} at step {last.step}"
        yield insight(f"no data for run {run.name} on {part}", step=last.step, questions=unmeasured)


def _planned_steps(run: StudyRun) -> list[int]:
    """At which it was to be evaluated, by its own settings."""
    end, every = run.settings.get("steps"), run.settings.get("eval_every")
    if not isinstance(end, int) or not isinstance(every, int):
        return []
    return sorted({0, *range(every, end, every), end})


def _lost_runs(study: Comparisons) -> Iterator[Insight]:
    """An arm without its unlucky seeds looks better than it is."""
    for arm in study.arms:
        lost = [run for run in arm.runs if run.status in NO_RESULT - {Status.PLANNED}]
        if lost and (measured := study.of(arm.name)):
            causes = listing([f"{run.name} {run.status}" for run in lost])
            text = f"{causes}: what is said of {arm.name} is of its {counted(len(measured.runs), 'other run')}"
            data = {"runs": [run.name for run in lost]}
            yield Insight(kind=Kind.CAUTION, text=f"{text}, and so optimistic", arms=[arm.name], data=data)


def _other_protocols(study: Comparisons) -> Iterator[Insight]:
    """Arms that cannot be compared with each other, and runs that cannot be with the rest of their arm."""
    if len(study.parts) > 1:
        named = [listing([m.name for m in part]) for part in study.parts]
        first, *others = [part[0].protocol for part in study.parts]
        differing = list(dict.fromkeys(name for other in others for name in first.differing(other)))
        text = f"evaluated with different {listing(differing)}, so compared only among themselves: {'; '.join(named)}"
        data = {"parts": [[m.name for m in part] for part in study.parts], "differing": differing}
        yield Insight(kind=Kind.CAUTION, text=text, arms=[m.name for m in study.measured], data=data)
    for arm in study.arms:
        common = protocol_of(arm, study.set)
        for run in arm.runs:
            own = protocol(run, study.set)
            if own is not None and common is not None and own != common:
                differing = common.differing(own)
                text = f"{run.name} was evaluated with other {listing(differing)} than the other runs of {arm.name}: "
                text += "it is left out"
                data = {"run": run.name, "differing": differing}
                yield Insight(kind=Kind.CAUTION, text=text, arms=[arm.name], data=data)


def _repeated_seeds(study: Comparisons) -> Iterator[Insight]:
    for m in study.measured:
        for run in m.repeats:
            kept = next(other for other in m.runs if other.seed == run.seed)
            text = f"{run.name} has the seed {run.seed} of {kept.name}: the same seed twice is no second seed, and it "
            text += "is left out"
            data = {"run": run.name, "kept": kept.name, "seed": run.seed}
            yield Insight(kind=Kind.CAUTION, text=text, arms=[m.name], data=data)


def _single_seeds(study: Comparisons) -> Iterator[Insight]:
    single = [measured.name for measured in study.measured if len(measured.runs) == 1]
    if single:
        whose = "every arm has" if len(single) == len(study.measured) > 1 else f"{listing(single)}:"
        text = (
            f"{whose} one seed: what is said of {'it' if len(single) == 1 else 'them'} is of these checkpoints, not of "
            "the settings; another seed may turn it round (--seeds 3)"
        )
        yield Insight(kind=Kind.CAUTION, text=text, arms=single, data={"seeds": 1})


def _different_steps(study: Comparisons) -> Iterator[Insight]:
    """An arm that ended early, or lags, stands beside others at a step at which these may have been worse, too."""
    for part in study.parts:
        ends = {m.name: m.last for m in part}
        if len(set(ends.values())) > 1 and not all(m.finished for m in part):
            text = (
                f"not all arms came to their end: the best of them, and what goes with the rate, is of {at_steps(ends)}"
            )
            yield Insight(kind=Kind.CAUTION, text=text, arms=list(ends), data={"steps": ends})


def _unequal_samples(study: Comparisons) -> Iterator[Insight]:
    """Each as it was compared; a step of a larger batch has seen more."""
    seen: dict[str, dict[str, int]] = {}
    for c in study.comparisons:
        ends = c.base.samples(c.base_step), c.other.samples(c.other_step)
        if not c.equal_samples and None not in ends and ends[0] != ends[1]:
            for arm, step, samples in ((c.base, c.base_step, ends[0]), (c.other, c.other_step, ends[1])):
                seen[arm.name] = {"step": step, "samples": samples or 0}
    if seen:
        each = listing(
            [f"{name} has seen {own['samples']} samples at step {own['step']}" for name, own in seen.items()]
        )
        text = f"not comparable by steps alone: {each}"
        yield Insight(kind=Kind.CAUTION, text=text, arms=list(seen), data={"samples": seen})
