"""The finer grid: where it lies, and what is said of the choice."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.core.errors import UsageError
from rl.evaluate.result import EvalResult
from rl.study.plan import Phase
from rl.study.refine import finer, grid
from rl.study.runs import Evaluated, Status, StudyRun
from rl.study.sweepdir import Entry
from tests.observe.recorded import evaluation

Results = dict[float, list[int]]
"""rate → how many of 8 samples of each question are right"""


def entry(rate: float, *, seed: int = 0, phase: str = "", status: Status = Status.DONE, **changes: int) -> Entry:
    name = f"{phase}{'-' if phase else ''}lr{rate:g}"
    settings = {"lr": rate, "steps": 6, **changes}
    path = Path(f"{name}-seed{seed}")
    return Entry(name=str(path), arm=name, seed=seed, path=path, phase=phase, settings=settings, status=status)


def run(entry: Entry, right: list[int]) -> StudyRun:
    result: EvalResult = evaluation(6, {f"q{i}": count for i, count in enumerate(right)}, n=8)
    evaluated = Evaluated(result=result, samples=None, tokens=None, seconds=None)
    return StudyRun(name=entry.name, path=entry.path, settings={}, evaluations={"heldout": [evaluated]})


def choose(phase: Phase, results: Results, **kwargs: Status) -> tuple[list[float], str]:
    entries = [entry(rate, **kwargs) for rate in results]
    runs = [run(own, results[rate]) for own, rate in zip(entries, results, strict=True)]
    chosen = finer(phase, entries, runs, metric="pass@1", set="heldout")
    return [row.changes["lr"] for row in chosen.rows], chosen.why


LOW, HIGH = [2, 3, 1, 2] * 16, [6, 7, 5, 6] * 16


def test_between_the_neighbours_of_the_best_without_what_was_tried() -> None:
    rates, why = choose(Phase(name="f"), {1e-5: LOW, 1e-4: HIGH, 1e-3: LOW})
    assert rates == [2.15e-5, 4.64e-5, 2.15e-4, 4.64e-4]
    assert why == "around lr0.0001, pass@1 0.750"


def test_beyond_the_edge_where_the_best_is_there() -> None:
    assert choose(Phase(name="f", points=3), {1e-5: LOW, 1e-4: HIGH})[0] == [3.16e-5, 3.16e-4]
    assert choose(Phase(name="f", points=3), {1e-5: HIGH, 1e-3: LOW})[0] == [1e-6, 1e-4]


def test_over_the_span_and_again_where_the_phase_changes_the_runs() -> None:
    phase = Phase(name="f", points=3, span=2, changes={"steps": 12})
    assert choose(phase, {1e-5: LOW, 1e-4: HIGH})[0] == [5e-5, 1e-4, 2e-4]


def test_neighbours_that_cannot_be_told_apart_are_named() -> None:
    _, why = choose(Phase(name="f"), {1e-5: LOW, 1e-4: HIGH, 1e-3: [*HIGH[1:], 1], 1e-2: [*HIGH[:-1], 0]})
    assert why == "around lr0.0001, pass@1 0.750; it cannot be told apart from lr 0.001"


def test_other_settings_are_the_best_arms_and_only_its_kin_are_its_neighbours() -> None:
    entries = [entry(1e-4), entry(1e-3), entry(1e-2, buffer=512), entry(2e-3, buffer=512)]
    runs = [run(own, right) for own, right in zip(entries, (LOW, LOW, HIGH, LOW), strict=True)]
    chosen = finer(Phase(name="f", points=2), entries, runs, metric="pass@1", set="heldout")
    assert [row.changes["buffer"] for row in chosen.rows] == [512, 512]
    assert [row.name for row in chosen.rows] == ["f-lr0.00585", "f-lr0.0171"]


def test_the_next_phase_looks_at_the_newest_and_at_what_is_comparable_with_it() -> None:
    entries = [entry(1e-4), entry(1e-3), entry(3e-4, phase="f")]
    runs = [run(own, right) for own, right in zip(entries, (LOW, HIGH, LOW), strict=True)]
    assert "around lr0.001" in finer(Phase(name="g"), entries, runs, metric="pass@1", set="heldout").why
    longer = [entry(1e-4), entry(1e-3), entry(3e-4, phase="f", steps=12)]
    runs = [run(own, right) for own, right in zip(longer, (LOW, HIGH, LOW), strict=True)]
    assert "around f-lr0.0003" in finer(Phase(name="g"), longer, runs, metric="pass@1", set="heldout").why


@pytest.mark.parametrize("status", [Status.DIVERGED, Status.FAILED, Status.BEATEN, Status.PLANNED])
def test_without_a_result_nothing_is_chosen(status: Status) -> None:
    with pytest.raises(UsageError, match="no arm before it has a pass@1 on heldout"):
        choose(Phase(name="f"), {1e-5: LOW, 1e-4: HIGH}, status=status)


def test_an_arm_is_judged_by_all_its_seeds_and_named_where_it_cannot_be() -> None:
    entries = [entry(1e-4), entry(1e-4, seed=1), entry(1e-3), entry(1e-3, seed=1, status=Status.BEATEN), entry(1e-2)]
    runs = [run(own, right) for own, right in zip(entries, (LOW, LOW, HIGH, HIGH, []), strict=True)]
    why = finer(Phase(name="f"), entries, runs, metric="pass@1", set="heldout").why
    assert why == "around lr0.0001, pass@1 0.250; left out: lr0.001 (done, beaten), lr0.01 (not measured)"


def test_any_measure_of_the_evaluations_can_choose() -> None:
    entries = [entry(1e-4), entry(1e-3)]
    runs = [run(own, right) for own, right in zip(entries, ([3] * 64, [0, 6] * 32), strict=True)]
    chosen = [finer(Phase(name="f"), entries, runs, metric=metric, set="heldout").why for metric in ("pass@3", "maj@8")]
    assert [why.split(";")[0] for why in chosen] == ["around lr0.0001, pass@3 0.821", "around lr0.0001, maj@8 1.000"]


@given(
    st.floats(1e-8, 1e2),
    st.lists(st.floats(1e-8, 1e2), max_size=6),
    st.integers(2, 30),
    st.one_of(st.none(), st.floats(1.01, 1e3)),
)
def test_a_grid_rises_between_the_neighbours_of_the_best(
    best: float, others: list[float], points: int, span: float | None
) -> None:
    values = grid(Phase(name="f", points=points, span=span), best, others)
    assert len(values) == points
    assert values == sorted(values)
    assert all(value > 0 for value in values)
    if span is None:
        assert not any(other < best and other * 0.99 > values[0] for other in others)
        assert not any(other > best and other * 1.01 < values[-1] for other in others)
    else:
        assert values[0] == pytest.approx(best / span, rel=0.01)
        assert values[-1] == pytest.approx(best * span, rel=0.01)
