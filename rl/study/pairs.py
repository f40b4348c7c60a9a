"""Which arm is better than which, beyond chance; and what it would take to show what was not."""

from collections.abc import Iterator
from typing import Any

from rl.evaluate.power import EFFECT
from rl.evaluate.stats import Difference
from rl.study.choice import best
from rl.study.insights import Insight, Kind
from rl.study.measured import Comparison, Comparisons
from rl.study.words import as_data, counted, interval, number


def pairs(study: Comparisons, base: str | None) -> Iterator[Insight]:
    """The best arm of each part against its others, and each against the base arm; corrected for all pairs."""
    told = {best(part).name for part in study.parts} | ({base} if base else set())
    for comparison in study.comparisons:
        if told & {comparison.base.name, comparison.other.name}:
            yield claim(comparison)


def gains(study: Comparisons) -> Iterator[Insight]:
    """Of each arm: after its training against before."""
    for name, difference in study.gains.items():
        measured = study.of(name)
        assert measured is not None
        seeds = len(measured.runs)
        what = name if seeds > 1 else f"the run of {name}"
        data = {"metric": study.metric, "before": 0, "after": measured.last, "seeds": seeds, **as_data(difference)}
        if difference.low > 0 or difference.high < 0:
            way = "better" if difference.low > 0 else "worse"
            text = (
                f"{what} is {way} after {measured.last} steps than before: {interval(difference, '+')} {study.metric}"
            )
            kind = Kind.BETTER
        else:
            text = f"no difference shown between {what} before and after {measured.last} steps: "
            text += interval(difference, "+")
            kind = Kind.NO_DIFFERENCE
        yield Insight(kind=kind, text=f"{text} ({_basis(difference, seeds)})", arms=[name], data=data)


def claim(comparison: Comparison) -> Insight:
    """What two arms' evaluations say of them."""
    c, shown = comparison, comparison.shown
    names = [arm.name if c.seeds > 1 else f"the run of {arm.name}" for arm in (c.base, c.other)]
    data: dict[str, Any] = {
        "metric": c.base.metric,
        "base": c.base.name,
        "other": c.other.name,
        "base_step": c.base_step,
        "other_step": c.other_step,
        "base_samples": c.base.samples(c.base_step),
        "other_samples": c.other.samples(c.other_step),
        "equal_samples": c.equal_samples,
        "seeds": [len(c.base.runs), len(c.other.runs)],
        **as_data(c.difference),
    }
    basis = f"{_basis(c.difference, c.seeds, len(c.base.runs) != len(c.other.runs))}; {_at(c)}"
    if shown is None:
        text = (
            f"no difference shown between {names[1]} and {names[0]}: {interval(c.difference, '+')}; {more(c)} ({basis})"
        )
        data |= {"effect": EFFECT, "questions_needed": c.needed.questions, "seeds_needed": c.needed.seeds}
        return Insight(kind=Kind.NO_DIFFERENCE, text=text, arms=[c.other.name, c.base.name], data=data)
    winner, loser = (1, 0) if shown is c.other else (0, 1)
    by = c.difference if shown is c.other else _turned(c.difference)
    text = f"{names[winner]} is better than {names[loser]} by {interval(by, '+')} {c.base.metric} ({basis})"
    arms = [(c.base, c.other)[i].name for i in (winner, loser)]
    return Insight(kind=Kind.BETTER, text=text, arms=arms, data=data | {"better": arms[0]})


def more(comparison: Comparison) -> str:
    """What it would take to see a difference of `EFFECT`."""
    asked, trained = comparison.difference.n_questions, comparison.seeds
    questions, seeds = comparison.needed.questions, comparison.needed.seeds
    if questions is not None and questions <= asked:
        half = (comparison.difference.high - comparison.difference.low) / 2
        if half > EFFECT:
            return f"the interval reaches ±{number(half)}: a difference of {EFFECT:+.2f} may have been missed"
        return f"a difference of {EFFECT:+.2f} would have been seen in four of five such studies"
    ways = []
    if questions is not None:
        ways.append(f"about {counted(_rounded(questions - asked), 'more question')}")
    if seeds is not None and seeds > trained:
        ways.append(f"about {counted(seeds - trained, 'more seed')} each")
    if not ways:
        return f"neither questions nor seeds alone would show {EFFECT:+.2f}: it takes more of both"
    limit = "" if questions is not None or trained == 1 else ", and no number of questions"
    return f"{' or '.join(ways)}{limit} would show {EFFECT:+.2f}"


def _basis(difference: Difference, seeds: int, at_least: bool = False) -> str:
    corrected = f", corrected for {difference.comparisons} comparisons" if difference.comparisons > 1 else ""
    who = "one seed: of these checkpoints, not of the settings" if seeds == 1 else f"{seeds} seeds"
    if seeds > 1:
        who += " or more each" if at_least else " each"
    return f"95 %{corrected}; paired on {counted(difference.n_questions, 'question')}; {who}"


def _at(c: Comparison) -> str:
    if c.equal_samples:
        sides = [
            f"{arm.name} at step {step}, {arm.samples(step)} samples"
            for arm, step in ((c.other, c.other_step), (c.base, c.base_step))
        ]
        return f"at equal samples: {' against '.join(sides)}"
    if c.base_step == c.other_step:
        return f"at step {c.base_step}"
    return f"at their ends, steps {c.other_step} and {c.base_step}"


def _turned(difference: Difference) -> Difference:
    return Difference(
        value=-difference.value,
        low=-difference.high,
        high=-difference.low,
        p_value=difference.p_value,
        n_questions=difference.n_questions,
        comparisons=difference.comparisons,
    )


def _rounded(n: int) -> int:
    """To two digits: more would pretend to know more."""
    return int(float(f"{n:.1e}"))
