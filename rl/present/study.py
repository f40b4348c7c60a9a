"""What a report is about: the runs of its arguments, by arm, and what is claimed of them."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rl.core.config import HELDOUT
from rl.core.errors import UsageError
from rl.study.claims import insights
from rl.study.foreign import read_foreign
from rl.study.insights import Insight, Kind
from rl.study.measured import Comparisons
from rl.study.runs import Arm, StudyRun, arms_of, differences, read_run
from rl.study.sweepdir import Entry, SweepDir
from rl.study.words import listing

METRIC = "pass@1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """Runs, side by side."""

    title: str
    reason: str
    """Why the runs were made, where a plan says it."""
    metric: str
    """What arms are compared by."""
    set: str
    """The problem set that it is measured on."""
    asked: list[str]
    """The flags of the command that asked for another set, metric or base than the sources have."""
    arms: list[Arm]
    comparisons: Comparisons
    """What the claims are computed from: tables and figures show the same runs."""
    entries: dict[str, Entry]
    """What the plan of a sweep says of a run, by the run's name."""
    insights: list[Insight]
    left_out: list[str]
    """What could not be read, each with the reason."""
    sources: list[Path]

    @property
    def runs(self) -> list[StudyRun]:
        return [run for arm in self.arms for run in arm.runs]

    @property
    def arm_of(self) -> dict[str, str]:
        """The name of a run → that of its arm."""
        return {run.name: arm.name for arm in self.arms for run in arm.runs}

    @property
    def answer(self) -> str:
        """Which run to deploy, or that the evidence does not choose: a line for each part that is compared."""
        said = [insight.text for insight in self.insights if insight.kind is Kind.DEPLOY]
        return "\n".join(text[0].upper() + text[1:] for text in said) or "Nothing here says which run to deploy."


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    runs: list[StudyRun]
    arms: dict[str, str]
    """The name of a run → that of its arm, where a plan names it."""
    entries: dict[str, Entry]


def read_study(
    sources: Sequence[Path], *, set: str | None = None, metric: str | None = None, base: str | None = None
) -> Study:
    """Reads runs, sweeps, and tables of other tools, in any mix; a run that is named twice, or beside its sweep, once.

    What cannot be read is left out and told, as long as there is something else.

    Args:
        set: the problem set to compare on; that of the plan, else the held-out problems, unless given.
        metric: what to compare by; that of the plan, else pass@1, unless given.
        base: an arm that each other one is compared with.

    Raises:
        UsageError: nothing could be read, or there is no such set, metric or arm.
    """
    read, left_out = list[_Source](), list[str]()
    by_place = dict[Path, Path]()
    for path in sources:
        by_place.setdefault(path.resolve(), path)
    sources = list(by_place.values())
    for path, name in zip(sources, _short(sources), strict=True):
        try:
            read.append(_read(path, name, alone=len(sources) == 1))
        except UsageError as error:
            if len(sources) == 1:
                raise
            left_out.append(f"{error} ({error.fix})")
    if not read:
        fix = "name at least one run, sweep or table that can be read"
        raise UsageError(f"nothing of these can be read: {'; '.join(left_out)}", fix=fix)
    sweeps = [SweepDir(path) for path in sources if SweepDir.is_sweep(path)]
    plan = sweeps[0].plan() if len(sweeps) == 1 else None
    entries = {name: entry for source in read for name, entry in source.entries.items()}
    runs = list(_once([run for source in read for run in source.runs], entries))
    if not runs:
        raise UsageError(f"{sources[0]} has no run", fix="start its runs: python -m rl.sweep")
    names = {name: arm for source in read for name, arm in source.arms.items()}
    arms = arms_of(runs, names) if plan else _in_order(arms_of(runs, names))
    flags = {"--set": set, "--metric": metric, "--base": base}
    asked = [part for flag, value in flags.items() if value for part in (flag, value)]
    metric = metric or (plan.metric if plan else METRIC)
    set = _known(set, runs) if set else (plan.set if plan else HELDOUT)
    criteria = {arm.name: _criteria(arm, entries) for arm in arms}
    return Study(
        title=plan.name if plan else _title(sources),
        reason=plan.reason if plan else "",
        metric=metric,
        set=set,
        asked=asked,
        arms=arms,
        comparisons=Comparisons(arms, metric, set),
        entries=entries,
        insights=insights(arms, metric=metric, set=set, criteria=criteria, base=base),
        left_out=left_out,
        sources=sources,
    )


def _once(runs: Iterable[StudyRun], planned: Container[str]) -> Iterator[StudyRun]:
    """Each run of ours once, as its sweep tells of it where it has one."""
    runs = list(runs)
    in_sweeps = {run.path.resolve() for run in runs if run.name in planned}
    return (run for run in runs if not run.ours or run.name in planned or run.path.resolve() not in in_sweeps)


def _known(set: str, runs: Iterable[StudyRun]) -> str:
    sets = list(dict.fromkeys(name for run in runs for name in run.evaluations))
    if set not in sets:
        fix = f"name one of: {', '.join(sets)}" if sets else "evaluate the runs on it: python -m rl.evaluate"
        raise UsageError(f"no run has an evaluation on {set!r}", fix=fix)
    return set


def _criteria(arm: Arm, entries: Mapping[str, Entry]) -> list[str]:
    """What the plans of its runs ask of it."""
    planned = [entries[run.name] for run in arm.runs if run.name in entries]
    return list(dict.fromkeys(criterion for entry in planned for criterion in entry.criteria))


def _read(path: Path, name: str, *, alone: bool) -> _Source:
    """A source; where there are others, its runs are told from theirs by its name."""
    prefix = "" if alone else f"{name}/"
    if SweepDir.is_sweep(path):
        sweep = SweepDir(path)
        entries = {prefix + entry.name: entry for entry in sweep.entries()}
        arms = {name: prefix + entry.arm for name, entry in entries.items()}
        return _Source(runs=_named(sweep.runs(), prefix), arms=arms, entries=entries)
    if path.is_file():
        return _Source(runs=_named(read_foreign(path), prefix), arms={}, entries={})
    return _Source(runs=[read_run(path, name)], arms={}, entries={})


def _named(runs: Sequence[StudyRun], prefix: str) -> list[StudyRun]:
    return [replace(run, name=prefix + run.name) for run in runs]


def _in_order(arms: Sequence[Arm]) -> list[Arm]:
    """By the setting in which they differ, where that is one number, as in a sweep over rates; else as they came."""
    differing = list(differences([arm.runs[0] for arm in arms]))
    values = [arm.settings.get(name) for arm in arms for name in differing]
    if len(differing) == 1 and all(isinstance(value, int | float) for value in values):
        return sorted(arms, key=lambda arm: arm.settings[differing[0]])
    return list(arms)


def _short(sources: Sequence[Path]) -> list[str]:
    """A name for each source: its last part, or its path where several end alike."""
    ends = [path.absolute().name for path in sources]
    return [end if ends.count(end) == 1 else str(path) for end, path in zip(ends, sources, strict=True)]


def _title(sources: Sequence[Path]) -> str:
    names = _short(sources)
    return listing(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} more"
