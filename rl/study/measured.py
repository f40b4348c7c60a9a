"""What the arms of a study came to: the runs of each that can be compared, question by question."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from math import isclose

import numpy as np

from rl.evaluate.arms import Scores, SeedNoise, arm_difference, seed_noise
from rl.evaluate.power import Needed, needed
from rl.evaluate.protocol import Protocol
from rl.evaluate.result import EvalResult
from rl.evaluate.stats import Difference
from rl.study.runs import Arm, Evaluated, Status, StudyRun

NO_RESULT = frozenset({Status.PLANNED, Status.DIVERGED, Status.FAILED})
"""Of such a run no evaluation is its result, whatever it was while it went well."""
SAMPLES_TOLERANCE = 0.1
"""How much the samples of two evaluations may differ, relatively, for them to be compared at equal samples."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An arm by its runs that have the metric, and the steps at which all of them have it."""

    arm: Arm
    runs: list[StudyRun]
    metric: str
    protocol: Protocol
    """Of its evaluations: only arms with the same one are compared."""
    evaluations: dict[int, list[Evaluated]]
    """By step, rising: that of each run."""
    repeats: list[StudyRun]
    """Runs that are left out: their seed is another's. The same seed twice is no second seed."""
    _values: dict[int, list[dict[str, float]]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.arm.name

    @property
    def last(self) -> int:
        return max(self.evaluations)

    @property
    def finished(self) -> bool:
        return all(run.status is Status.DONE for run in self.runs)

    def samples(self, step: int) -> int | None:
        """That training had seen by then; None where it is not known."""
        return self.evaluations[step][0].samples

    def questions(self, step: int) -> list[str]:
        """Ids of those that all runs could measure."""
        first, *others = self._at(step)
        return [question for question in first if all(question in values for values in others)]

    def scores(self, step: int, questions: Sequence[str] | None = None) -> Scores:
        """(S, Q): the metric of each run on each question, those of `questions()` unless given."""
        ids = self.questions(step) if questions is None else questions
        return np.array([[values[question] for question in ids] for values in self._at(step)])

    def _at(self, step: int) -> list[dict[str, float]]:
        if step not in self._values:
            self._values[step] = [per_question(e.result, self.metric) for e in self.evaluations[step]]
        return self._values[step]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two arms on the same questions."""

    base: Measured
    other: Measured
    base_step: int
    other_step: int
    equal_samples: bool
    """At evaluations after as many samples; else at the last ones, or the last that both have."""
    difference: Difference
    """other − base, corrected for all comparisons of the study."""
    questions: list[str]
    noise: SeedNoise | None

    @cached_property
    def needed(self) -> Needed:
        """What would show a difference, corrected alike."""
        base = self.base.scores(self.base_step, self.questions)
        other = self.other.scores(self.other_step, self.questions)
        return needed(base, other, comparisons=self.difference.comparisons, noise=self.noise)

    @property
    def seeds(self) -> int:
        """Of the arm with fewer."""
        return min(len(self.base.runs), len(self.other.runs))

    @property
    def shown(self) -> Measured | None:
        """The arm that is better beyond chance."""
        if self.difference.low > 0:
            return self.other
        return self.base if self.difference.high < 0 else None


class Comparisons:
    """The arms of a study of ours, and how those that were measured by the same rules compare.

    Args:
        metric: pass@k or maj@k.
        set: the problem set.
    """

    def __init__(self, arms: Sequence[Arm], metric: str, set: str) -> None:
        self.arms, self.metric, self.set = [arm for arm in arms if arm.runs[0].ours], metric, set
        self._by_metric = {metric: self}

    @cached_property
    def measured(self) -> list[Measured]:
        """The arms that have a result at all, in the order of the study."""
        found = [self._measured(arm) for arm in self.arms]
        return [measured for measured in found if measured is not None]

    @cached_property
    def parts(self) -> list[list[Measured]]:
        """The measured arms by what they were measured on: arms of two parts cannot be compared."""
        parts: dict[Protocol, list[Measured]] = {}
        for measured in self.measured:
            parts.setdefault(measured.protocol, []).append(measured)
        return list(parts.values())

    def by(self, metric: str) -> "Comparisons":
        """The same arms by another metric."""
        if metric not in self._by_metric:
            self._by_metric[metric] = Comparisons(self.arms, metric, self.set)
        return self._by_metric[metric]

    def of(self, name: str) -> Measured | None:
        return next((measured for measured in self.measured if measured.name == name), None)

    @cached_property
    def noise(self) -> SeedNoise | None:
        return seed_noise([measured.scores(measured.last) for measured in self.measured])

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """All pairs at their last evaluations; at equal samples, too, where those are after different numbers of them.

        All of them are one family: each interval and p-value is corrected for their number.
        """
        pairs = [
            (base, other, *steps)
            for part in self.parts
            for base, other in combinations(part, 2)
            for steps in (_last_steps(base, other), _equal_samples(base, other))
            if steps and _common(base, other, *steps[:2])
        ]
        return [self._compare(*pair, count=len(pairs)) for pair in pairs]

    @cached_property
    def gains(self) -> dict[str, Difference]:
        """By arm: after − before its training; a family of its own. Before it, all seeds are one model."""
        noise = self.noise and replace(self.noise, variance=self.noise.variance / 2)
        pairs = [m for m in self.measured if 0 in m.evaluations and _common(m, m, 0, m.last)]
        gains = {}
        for measured in pairs:
            ids = _common(measured, measured, 0, measured.last)
            before, after = measured.scores(0, ids), measured.scores(measured.last, ids)
            gains[measured.name] = arm_difference(before, after, comparisons=len(pairs), noise=noise)
        return gains

    def between(self, base: str, other: str) -> list[Comparison]:
        """The comparisons of two arms, in either order."""
        return [c for c in self.comparisons if {c.base.name, c.other.name} == {base, other}]

    def _measured(self, arm: Arm) -> Measured | None:
        common_protocol = protocol_of(arm, self.set)
        if common_protocol is None:
            return None
        by_run = [
            (
                run,
                {
                    e.step: e
                    for e in run.evaluations.get(self.set, [])
                    if e.result.protocol == common_protocol and has_metric(e.result, self.metric)
                },
            )
            for run in arm.runs
            if run.status not in NO_RESULT and protocol(run, self.set) == common_protocol
        ]
        evaluated = [(run, own) for run, own in by_run if any(step > 0 for step in own)]
        furthest: dict[int | None, StudyRun] = {}
        for run, _ in sorted(evaluated, key=lambda pair: -max(pair[1])):
            furthest.setdefault(run.seed, run)
        kept = [(run, own) for run, own in evaluated if furthest[run.seed] is run]
        common = sorted(step for step in kept[0][1] if all(step in own for _, own in kept)) if kept else []
        if not any(step > 0 for step in common):
            return None
        return Measured(
            arm=arm,
            runs=[run for run, _ in kept],
            metric=self.metric,
            protocol=common_protocol,
            evaluations={step: [own[step] for _, own in kept] for step in common},
            repeats=[run for run, _ in evaluated if furthest[run.seed] is not run],
        )

    def _compare(
        self, base: Measured, other: Measured, base_step: int, other_step: int, equal_samples: bool, *, count: int
    ) -> Comparison:
        ids = _common(base, other, base_step, other_step)
        scores = base.scores(base_step, ids), other.scores(other_step, ids)
        return Comparison(
            base=base,
            other=other,
            base_step=base_step,
            other_step=other_step,
            equal_samples=equal_samples,
            difference=arm_difference(*scores, comparisons=count, noise=self.noise),
            questions=ids,
            noise=self.noise,
        )


def is_measure(metric: str) -> bool:
    """Whether evaluations have it: pass@k or maj@k."""
    return bool(re.fullmatch(r"(pass|maj)@[1-9]\d*", metric))


def has_metric(result: EvalResult, metric: str) -> bool:
    """Whether any question has enough samples for it."""
    kind, _, k = metric.partition("@")
    if kind == "maj":
        return int(k) <= result.samples_per_problem and any(question.verified for question in result.questions)
    return any(len(question.verified) >= int(k) for question in result.questions)


def per_question(result: EvalResult, metric: str) -> dict[str, float]:
    """Question id → pass@k or maj@k of it; only of those that could be measured, so of none where k is too large."""
    if not has_metric(result, metric):
        return {}
    kind, _, k = metric.partition("@")
    values = ((q.problem_id, q.pass_at(int(k)) if kind == "pass" else q.maj_at(int(k))) for q in result.questions)
    return {problem_id: value for problem_id, value in values if value is not None}


def protocol(run: StudyRun, set: str) -> Protocol | None:
    """Of its last evaluation; None where nothing was evaluated."""
    evaluations = run.evaluations.get(set)
    return evaluations[-1].result.protocol if evaluations else None


def protocol_of(arm: Arm, set: str) -> Protocol | None:
    """That of most of its runs; None where nothing was evaluated."""
    counts = Counter(own for run in arm.runs if (own := protocol(run, set)))
    return counts.most_common(1)[0][0] if counts else None


def _last_steps(base: Measured, other: Measured) -> tuple[int, int, bool] | None:
    """Their own ends where both are finished, be it after different numbers of steps: what the settings give."""
    if base.finished and other.finished:
        return base.last, other.last, False
    common = [step for step in base.evaluations if step in other.evaluations and step > 0]
    return (max(common), max(common), False) if common else None


def _equal_samples(base: Measured, other: Measured) -> tuple[int, int, bool] | None:
    """The latest evaluations after as many samples; None where the last ones are so, or where there are none."""
    last, base_end, other_end = _last_steps(base, other), base.samples(base.last), other.samples(other.last)
    if last is None or base_end is None or other_end is None or base.samples(last[0]) == other.samples(last[1]):
        return None
    base_step, other_step = (_nearest(arm, min(base_end, other_end)) for arm in (base, other))
    base_seen, other_seen = base.samples(base_step) or 0, other.samples(other_step) or 0
    near = min(base_step, other_step) > 0 and isclose(base_seen, other_seen, rel_tol=SAMPLES_TOLERANCE)
    return (base_step, other_step, True) if near else None


def _nearest(arm: Measured, samples: int) -> int:
    return min(arm.evaluations, key=lambda step: abs((arm.samples(step) or 0) - samples))


def _common(base: Measured, other: Measured, base_step: int, other_step: int) -> list[str]:
    known = frozenset(other.questions(other_step))
    return [question for question in base.questions(base_step) if question in known]
