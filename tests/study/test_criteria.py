"""Success criteria: read before anything runs, and judged as met, not met or not measured."""

import json
import math
from typing import Any

import pytest

from rl.core.errors import UsageError
from rl.study.claims import insights
from rl.study.criteria import Judgement, Outcome, check_metric, judge, parse_criterion
from rl.study.insights import Kind
from rl.study.runs import Status, StudyRun, arms_of
from tests.study.made import foreign_run, made_run


def judged(text: str, *runs: StudyRun, names: dict[str, str] | None = None, **options: Any) -> Judgement:
    """Of the first arm."""
    arms = arms_of(runs, names)
    judgement = judge(parse_criterion(text), arms[0], arms, **options)
    json.dumps(judgement.data, allow_nan=False)
    return judgement


@pytest.mark.parametrize(
    ("text", "metric", "sign", "bound"),
    [
        ("pass@1 >= 0.60", "pass@1", ">=", 0.6),
        ("pass@1 ≥ 60 %", "pass@1", ">=", 0.6),
        ("maj@8>.5", "maj@8", ">", 0.5),
        ("minutes < 10", "minutes", "<", 10.0),
        ("eval_loss ≤ 3.5e0", "eval_loss", "<=", 3.5),
        ("mismatch_kl < 1e-3", "mismatch_kl", "<", 0.001),
    ],
)
def test_a_bound_is_read(text: str, metric: str, sign: str, bound: float) -> None:
    criterion = parse_criterion(text)
    assert (criterion.metric, criterion.sign) == (metric, sign)
    assert criterion.bound == pytest.approx(bound)


def test_steps_and_comparisons_are_read() -> None:
    assert parse_criterion("grad_norm stays < 1.0").stays
    assert parse_criterion("pass@1 @ step 40 >= 0.5").step == 40
    assert parse_criterion("better than run X").than == "X"
    by = parse_criterion("better than lr 0.0001 by 2 %")
    assert (by.than, by.bound) == ("lr 0.0001", pytest.approx(0.02))


@pytest.mark.parametrize(
    "text", ["", "good", "pass@1", "pass@1 = 0.6", "pass@1 >= much", "better than", "loss stays < 1 @ step 3", "> 3"]
)
def test_nonsense_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(UsageError, match="no success criterion") as error:
        parse_criterion(text)
    assert "grad_norm stays < 1.0" in error.value.fix


def test_pass_at_1_is_judged_with_its_interval() -> None:
    run = made_run("a", {0: 0.3, 60: 0.6})
    sure, close = judged("pass@1 >= 0.4", run), judged("pass@1 >= 0.59", run)
    assert (sure.outcome, sure.data["interval_too"]) == (Outcome.MET, True)
    assert sure.why.endswith(": the interval, too")
    assert close.data["interval_too"] is False
    assert "the interval holds 0.59" in close.why
    assert judged("pass@1 >= 0.8", run).outcome is Outcome.NOT_MET
    assert judged("pass@1 < 0.8", run).outcome is Outcome.MET


def test_a_step_and_every_step() -> None:
    run = made_run("a", {0: 0.3, 20: 0.4, 40: 0.7, 60: 0.7})
    assert judged("pass@1 @ step 40 >= 0.6", run).outcome is Outcome.MET
    assert judged("pass@1 @ step 20 >= 0.6", run).outcome is Outcome.NOT_MET
    assert judged("pass@1 @ step 30 >= 0.6", run).outcome is Outcome.NOT_MEASURED
    assert judged("pass@1 stays >= 0.6", run).data["step"] == 20


@pytest.mark.parametrize("metric", ["pass@1", "grad_norm", "minutes", "no_such_metric"])
@pytest.mark.parametrize("status", [Status.PLANNED, Status.RUNNING, Status.BEATEN])
def test_of_a_run_that_is_not_done_nothing_is_met(metric: str, status: Status) -> None:
    evaluated = {} if status is Status.PLANNED else {0: 0.3, 20: 0.9}
    run = made_run("a", evaluated, status=status, steps=60)
    judgement = judged(f"{metric} < 100" if metric != "pass@1" else "pass@1 >= 0.1", run)
    assert judgement.outcome is Outcome.NOT_MEASURED
    assert f"a {status}" in judgement.why


@pytest.mark.parametrize("status", [Status.DIVERGED, Status.FAILED])
@pytest.mark.parametrize(
    "text",
    ["pass@1 >= 0.1", "pass@1 @ step 20 >= 0.1", "grad_norm stays < 1.0", "minutes < 10", "better than lr 0.0005"],
)
def test_of_an_arm_that_lost_a_seed_nothing_is_met(text: str, status: Status) -> None:
    good = made_run("good", {0: 0.3, 20: 0.8, 60: 0.9}, lr=1e-4)
    lost = made_run("lost", {0: 0.3, 20: 0.8}, lr=1e-4, seed=1, steps=60, status=status, why="loss is nan")
    other = made_run("other", {0: 0.3, 20: 0.3, 60: 0.3}, lr=5e-4, chance=7)
    assert judged(text, good, other).outcome is Outcome.MET
    judgement = judged(text, good, lost, other)
    assert judgement.outcome is Outcome.NOT_MET
    assert judgement.why == f"lost {status}: loss is nan"


@pytest.mark.parametrize("unfinished", ["a", "b"])
def test_better_than_takes_runs_that_are_done(unfinished: str) -> None:
    def run(name: str, value: float, lr: float) -> StudyRun:
        status = Status.RUNNING if name == unfinished else Status.DONE
        return made_run(name, {0: 0.3, 20: value}, lr=lr, status=status, steps=60 if name == unfinished else 20)

    judgement = judged("better than b", run("a", 0.8, 1e-4), run("b", 0.3, 5e-4), names={"a": "a", "b": "b"})
    assert judgement.outcome is Outcome.NOT_MEASURED
    assert f"{unfinished} running" in judgement.why


def test_a_seed_without_the_evaluation_leaves_a_criterion_not_measured() -> None:
    runs = [made_run("a", {0: 0.3, 20: 0.8}), made_run("b", {}, seed=1, steps=20)]
    judgement = judged("pass@1 >= 0.1", *runs)
    assert (judgement.outcome, judgement.why) == (Outcome.NOT_MEASURED, "no pass@1 of b")


@pytest.mark.parametrize("text", ["pass@1 >= 60", "maj@8 > 1.5", "truncated < 5", "better than a by 2"])
def test_a_share_above_one_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="a share is at most 1") as error:
        parse_criterion(text)
    assert "%" in error.value.fix


@pytest.mark.parametrize(("text", "near"), [("entropie stays < 3", "entropy"), ("no non-finite los", "loss")])
def test_a_plan_of_ours_takes_metrics_that_runs_have(text: str, near: str) -> None:
    with pytest.raises(UsageError, match="runs have no metric") as error:
        check_metric(parse_criterion(text))
    assert near in error.value.fix
    for known in ("entropy stays < 3", "no non-finite values", "pass@16 > 0.1", "minutes < 3", "better than x"):
        check_metric(parse_criterion(known))


def test_a_metric_that_nothing_recorded_is_not_measured() -> None:
    run = made_run("a", {0: 0.3, 20: 0.4})
    assert judged("entropy > 0.1", run).outcome is Outcome.NOT_MEASURED
    assert judged("pass@64 > 0.1", run).outcome is Outcome.NOT_MEASURED
    assert judged("no non-finite entropy", run).outcome is Outcome.NOT_MEASURED
    assert judged("better than nobody", run).outcome is Outcome.NOT_MEASURED


def test_a_curve_that_has_to_stay_below_is_told_where_it_did_not() -> None:
    calm = made_run("a", {0: 0.3, 3: 0.4}, curves={"grad_norm": [0.5, 0.9, 0.6]})
    wild = made_run("a", {0: 0.3, 3: 0.4}, curves={"grad_norm": [0.5, 1.5, 0.6]})
    assert judged("grad_norm stays < 1.0", calm).outcome is Outcome.MET
    broken = judged("grad_norm stays < 1.0", wild)
    assert broken.outcome is Outcome.NOT_MET
    assert "1.5 at step 2" in broken.why
    assert judged("grad_norm < 1.0", wild).outcome is Outcome.MET  # at the end it was


def test_each_seed_has_to_meet_it() -> None:
    runs = [made_run(f"s{n}", {0: 0.3, 2: 0.4}, seed=n, curves={"step_s": [60.0 * n] * 2}) for n in (1, 9)]
    assert judged("minutes < 10", runs[0]).outcome is Outcome.MET
    both = judged("minutes < 10", *runs)
    assert both.outcome is Outcome.NOT_MET
    assert "minutes of s9 is 18" in both.why


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_found_and_kept_as_a_word(bad: float) -> None:
    run = made_run("a", {0: 0.3, 3: 0.4}, curves={"loss": [0.1, bad, 0.1]})
    for text in ("no non-finite loss", "no non-finite values"):
        judgement = judged(text, run)
        assert judgement.outcome is Outcome.NOT_MET
        assert "loss of a is" in judgement.why
        assert judgement.data["step"] == 2
    assert judged("no non-finite grad_norm", run).outcome is Outcome.MET
    assert judged("loss stays < 1", run).outcome is (Outcome.MET if bad == -math.inf else Outcome.NOT_MET)


def test_a_run_that_diverged_was_not_finite() -> None:
    run = made_run("a", {0: 0.3, 3: 0.4}, status=Status.DIVERGED, why="loss is nan at step 4", steps=9)
    assert judged("no non-finite loss", run).outcome is Outcome.NOT_MET


def test_a_policy_that_collapsed_was_finite_all_the_while() -> None:
    why = "the policy has collapsed: the last 512 groups had no signal"
    run = made_run("a", {0: 0.3, 3: 0.4}, status=Status.DIVERGED, why=why, steps=9)
    assert judged("no non-finite loss", run).outcome is Outcome.NOT_MEASURED
    assert judged("pass@1 > 0.1", run).outcome is Outcome.NOT_MET


def test_against_a_run_that_was_beaten_the_steps_that_it_made_decide() -> None:
    good = made_run("a", {0: 0.3, 20: 0.5, 40: 0.6, 60: 0.7}, lr=1e-4)
    made = {0: 0.3, 20: 0.2, 40: 0.2}
    bad = made_run("b", made, lr=5e-4, steps=60, status=Status.BEATEN, why="beaten by a", chance=500)
    better = judged("better than lr 0.0005", good, bad)
    assert better.outcome is Outcome.MET
    assert "at step 40, as b was beaten and ended" in better.why
    worse = judged("better than lr 0.0001", bad, good)
    assert worse.outcome is Outcome.NOT_MET
    assert "it is worse" in worse.why


def test_better_than_is_by_the_corrected_interval() -> None:
    good, alike, bad = (
        made_run(name, {0: 0.3, 60: value}, lr=lr, chance=chance)
        for name, value, lr, chance in (("a", 0.6, 1e-4, 1), ("b", 0.59, 2e-4, 500), ("c", 0.4, 5e-4, 900))
    )
    assert judged("better than lr 0.0005", good, alike, bad).outcome is Outcome.MET
    assert judged("better than lr 0.0005 by 0.1", good, alike, bad).outcome is Outcome.MET
    assert judged("better than lr 0.0005 by 0.5", good, alike, bad).outcome is Outcome.NOT_MET
    undecided = judged("better than lr 0.0002", good, alike, bad)
    assert undecided.outcome is Outcome.NOT_MET
    assert "no difference is shown" in undecided.why
    worse = judged("better than lr 0.0001", bad, alike, good)
    assert "it is worse" in worse.why
    assert worse.data["comparisons"] == 3


def test_results_of_other_tools_are_judged_too() -> None:
    run = foreign_run("WikiText", {}, {"eval_loss": 3.4, "perplexity": math.inf})
    assert judged("eval_loss < 3.5", run).outcome is Outcome.MET
    assert judged("perplexity < 50", run).outcome is Outcome.NOT_MET
    assert judged("no non-finite perplexity", run).outcome is Outcome.NOT_MET
    assert judged("pass@1 > 0.5", run).outcome is Outcome.NOT_MEASURED


def test_every_criterion_of_a_plan_comes_back() -> None:
    run = made_run("a", {0: 0.3, 60: 0.6})
    found = insights(arms_of([run], {"a": "arm"}), criteria={"arm": ["pass@1 >= 0.5", "entropy > 1"]})
    criteria = [insight for insight in found if insight.kind is Kind.CRITERION]
    assert [insight.data["outcome"] for insight in criteria] == ["met", "not measured"]
    assert criteria[0].text.startswith("arm: pass@1 >= 0.5: met, 0.")
    with pytest.raises(UsageError, match="no success criterion"):
        insights(arms_of([run], {"a": "arm"}), criteria={"arm": ["great"]})
