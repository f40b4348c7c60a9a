"""What a study cannot say, and what must be kept in mind."""

from rl.study.claims import insights
from rl.study.insights import Insight, Kind
from rl.study.rates import Point, sensitivity
from rl.study.runs import Arm, Status, StudyRun, arms_of
from rl.study.words import spans, steps
from tests.study.made import made_run


def of(kind: Kind, *runs: StudyRun) -> list[Insight]:
    return [insight for insight in insights(arms_of(runs)) if insight.kind is kind]


def test_a_range_of_steps_leaves_none_out() -> None:
    assert spans([3, 5, 6, 7, 12]) == "3, 5–7, 12"
    assert spans([20, 60, 80, 100], among=[0, 20, 40, 60, 80, 100]) == "20, 60–100"
    assert (steps([20]), steps([20, 60])) == ("step 20", "steps 20, 60")


def test_steps_that_were_measured_are_in_no_range_of_missing_ones() -> None:
    run = made_run("a", {0: 0.3, 40: 0.5, 100: 0.5}, steps=100, eval_every=20)
    (missing,) = of(Kind.NO_DATA, run)
    assert missing.text == "no data for run a at steps 20, 60–80: no conclusion"
    assert missing.data["steps"] == [20, 60, 80]


def test_a_run_that_its_own_rule_ended_lacks_nothing_after_its_end() -> None:
    assert not of(Kind.NO_DATA, made_run("a", {0: 0.3, 20: 0.4, 40: 0.5}, steps=100, why="no better for 2 evaluations"))
    stopped = made_run("a", {0: 0.3, 20: 0.4, 40: 0.5}, steps=100, status=Status.STOPPED)
    assert [insight.data["steps"] for insight in of(Kind.NO_DATA, stopped)] == [[60, 80, 100]]


def test_a_seed_that_comes_twice_is_no_second_seed() -> None:
    runs = [made_run(name, {0: 0.3, 60: 0.5}, seed=0) for name in ("a", "copy")]
    texts = [insight.text for insight in of(Kind.CAUTION, *runs)]
    assert "copy has the seed 0 of a: the same seed twice is no second seed, and it is left out" in texts
    assert any("one seed" in text for text in texts)
    (gain,) = of(Kind.BETTER, *runs)
    assert gain.data["seeds"] == 1


def test_of_two_runs_of_a_seed_the_one_that_came_further_counts() -> None:
    stopped = made_run("stopped", {0: 0.3, 20: 0.4}, steps=60, status=Status.STOPPED)
    whole = made_run("whole", {0: 0.3, 20: 0.4, 60: 0.6}, steps=60)
    (gain,) = of(Kind.BETTER, stopped, whole)
    assert gain.data["after"] == 60
    assert any(insight.data.get("kept") == "whole" for insight in of(Kind.CAUTION, stopped, whole))


def test_an_arm_that_ended_early_stands_beside_others_with_its_step() -> None:
    early = made_run("a", {0: 0.3, 20: 0.4}, lr=1e-4, steps=60, status=Status.BEATEN, chance=7)
    others = [made_run(f"{lr}", {0: 0.3, 20: 0.5, 60: 0.6}, lr=lr, steps=60) for lr in (2e-4, 5e-4)]
    ends = "lr 0.0001 at step 20, lr 0.0002 and lr 0.0005 at step 60"
    (caution,) = [found for found in of(Kind.CAUTION, early, *others) if "came to their end" in found.text]
    assert caution.text.endswith(ends)
    for kind in (Kind.BEST, Kind.SENSITIVITY):
        (found,) = of(kind, early, *others)
        assert f"each at its last evaluation: {ends}" in found.text
    assert not any("came to their end" in found.text for found in of(Kind.CAUTION, *others))


def test_the_neighbour_of_the_best_rate_is_another_rate() -> None:
    values = [(1e-3, 0.5), (1e-2, 0.55), (5e-2, 0.6), (5e-2, 0.59)]
    arms = [Arm(name=str(i), settings={"lr": lr}, runs=[]) for i, (lr, _) in enumerate(values)]
    points = [Point(arm=arm, lr=lr, value=value) for arm, (lr, value) in zip(arms, values, strict=True)]
    for order in (points, points[::-1]):
        (found,) = sensitivity(order, "accuracy")
        assert (found.data["edge"], found.data["try"]) == ("highest", 0.25)
