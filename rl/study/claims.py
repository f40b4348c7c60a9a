"""What may be said of a study: every claim computed from its runs, none that the numbers do not carry.

A claim that one arm is better than another has an interval that is corrected for all comparisons of arms in the study
and leaves out 0. Identical arms are told apart in at most 5 % of all studies (`python -m tests.study.simulation`).
"""

from collections.abc import Iterator, Mapping, Sequence

from rl.core.config import HELDOUT
from rl.core.errors import UsageError
from rl.study.cautions import cautions, no_data
from rl.study.choice import best_arm, deploy, nothing_to_deploy
from rl.study.criteria import judge_in, parse_criterion
from rl.study.insights import Insight, Kind
from rl.study.measured import Comparisons, is_measure
from rl.study.pairs import gains, pairs
from rl.study.rates import correlation, points, sensitivity
from rl.study.runs import Arm
from rl.study.stated import stated_claims


def insights(
    arms: Sequence[Arm],
    *,
    metric: str = "pass@1",
    set: str = HELDOUT,
    criteria: Mapping[str, Sequence[str]] | None = None,
    base: str | None = None,
) -> list[Insight]:
    """The claims of a study, in the order in which they should be read.

    Args:
        metric: what arms are compared by: pass@k or maj@k. Runs of other tools are compared by it where they have it,
            else by each result that they state.
        set: the problem set that it is measured on.
        criteria: by the name of an arm, as written in the plan.
        base: an arm that each other one is compared with, as the best one is.

    Raises:
        UsageError: there is no such metric or base, or a criterion cannot be read.
    """
    names = [arm.name for arm in arms]
    if base is not None and base not in names:
        raise UsageError(f"there is no arm {base!r} to compare with", fix=f"name one of: {', '.join(names)}")
    ours = [arm for arm in arms if arm.runs[0].ours]
    foreign = [arm for arm in arms if not arm.runs[0].ours]
    if ours and not is_measure(metric):
        raise UsageError(f"runs cannot be compared by {metric!r}", fix="take pass@1, another pass@k, or maj@k")
    study = Comparisons(arms, metric, set)
    claims = [*_of_ours(study, base)] if ours else []
    if ours and foreign:
        text = "runs of other tools hold no questions: they are not compared with ours"
        claims.append(Insight(kind=Kind.CAUTION, text=text, arms=[arm.name for arm in foreign]))
    claims += stated_claims(foreign, metric)
    claims += _criteria(study, arms, criteria or {})
    return sorted(claims, key=lambda claim: _ORDER.index(claim.kind))


_ORDER = [
    *(Kind.NO_DATA, Kind.CAUTION, Kind.DEPLOY, Kind.BEST, Kind.BETTER, Kind.NO_DIFFERENCE),
    *(Kind.SENSITIVITY, Kind.CORRELATION, Kind.CRITERION),
]


def _of_ours(study: Comparisons, base: str | None) -> Iterator[Insight]:
    yield from no_data(study)
    yield from cautions(study)
    yield from pairs(study, base)
    yield from gains(study)
    if not study.parts:
        yield nothing_to_deploy(study)
    results = [[(m.arm, float(m.scores(m.last).mean())) for m in part] for part in study.parts]
    correlations = sum(correlation(own, study.metric) is not None for own in results)
    for part, own in zip(study.parts, results, strict=True):
        yield deploy(study, part)
        yield from best_arm(study, part)
        yield from sensitivity(points(study, part), study.metric, study)
        if found := correlation(own, study.metric, comparisons=max(1, correlations)):
            yield found


def _criteria(study: Comparisons, arms: Sequence[Arm], criteria: Mapping[str, Sequence[str]]) -> Iterator[Insight]:
    for arm in arms:
        for text in criteria.get(arm.name, []):
            judgement = judge_in(study, parse_criterion(text), arm)
            data = {"criterion": text, "outcome": judgement.outcome.value, "why": judgement.why, **judgement.data}
            line = f"{arm.name}: {text}: {judgement.outcome}, {judgement.why}"
            yield Insight(kind=Kind.CRITERION, text=line, arms=[arm.name], data=data)
