"""What is said of a study: every claim from its numbers, and none without."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from rl.core.errors import UsageError
from rl.evaluate.power import Needed
from rl.study.claims import insights
from rl.study.insights import Insight, Kind
from rl.study.measured import Comparisons
from rl.study.pairs import more
from rl.study.runs import Status, StudyRun, arms_of
from tests.study.made import foreign_run, made_run


def claims(runs: Sequence[StudyRun], **options: Any) -> list[Insight]:
    found = insights(arms_of(runs), **options)
    for insight in found:
        json.dumps(insight.data, allow_nan=False)  # data is JSON, without exception
    return found


def texts(found: Sequence[Insight], kind: Kind) -> list[str]:
    return [insight.text for insight in found if insight.kind is kind]


def only(found: Sequence[Insight], kind: Kind) -> Insight:
    (insight,) = (insight for insight in found if insight.kind is kind)
    return insight


def rates(values: dict[float, float], seeds: int = 2, **settings: Any) -> list[StudyRun]:
    """Runs at learning rates, each with its pass@1 after 60 steps."""
    return [
        made_run(
            f"lr{lr:g}-seed{seed}", {0: 0.3, 60: value}, lr=lr, seed=seed, chance=1000 * i + 100 * seed, **settings
        )
        for i, (lr, value) in enumerate(values.items())
        for seed in range(seeds)
    ]


# Better, and no difference


def test_a_clear_difference_between_arms_with_seeds_is_a_claim_about_the_settings() -> None:
    found = claims(rates({1e-4: 0.4, 5e-4: 0.6}, seeds=3))
    between = [insight for insight in found if insight.kind is Kind.BETTER and len(insight.arms) == 2]
    (claim,) = between
    assert claim.arms == ["lr 0.0005", "lr 0.0001"]
    assert claim.text.startswith("lr 0.0005 is better than lr 0.0001 by +0.")
    for words in ("pass@1", "95 %", "paired on 256 questions", "3 seeds each", "at step 60"):
        assert words in claim.text
    assert claim.data["low"] > 0.1
    assert claim.data["value"] == pytest.approx(0.2, abs=0.04)
    assert claim.data["p_value"] < 0.05


def test_with_one_seed_the_claim_is_about_the_runs_and_says_so() -> None:
    found = claims(rates({1e-4: 0.4, 5e-4: 0.6}, seeds=1))
    claim = next(insight for insight in found if insight.kind is Kind.BETTER and len(insight.arms) == 2)
    assert claim.text.startswith("the run of lr 0.0005 is better than the run of lr 0.0001")
    assert "not of the settings" in claim.text
    assert any("every arm has one seed" in text for text in texts(found, Kind.CAUTION))


def test_arms_alike_are_not_told_apart_and_it_is_said_what_it_would_take() -> None:
    found = claims(rates({1e-4: 0.5, 2e-4: 0.5}, seeds=1, questions=128))
    claim = only(found, Kind.NO_DIFFERENCE)
    assert "no difference shown" in claim.text
    assert "more questions would show +0.02" in claim.text
    assert claim.data["questions_needed"] > 128
    assert claim.data["low"] < 0 < claim.data["high"]


def test_a_few_questions_that_all_agree_have_no_power() -> None:
    (claim,) = texts(claims(rates({1e-4: 0.9999, 5e-4: 0.9999}, seeds=1, questions=10)), Kind.NO_DIFFERENCE)
    assert "+0.000 [−0.236, +0.236]" in claim
    assert "would have been seen" not in claim


@pytest.mark.parametrize(("high", "seen"), [(0.015, True), (0.03, False)])
def test_power_is_claimed_of_no_interval_that_is_wider_than_the_effect(high: float, seen: bool) -> None:
    study = Comparisons(arms_of(rates({1e-4: 0.5, 5e-4: 0.5}, seeds=1, questions=64)), "pass@1", "heldout")
    (made,) = study.comparisons
    narrow = replace(made, difference=replace(made.difference, low=-high, high=high))
    narrow.__dict__["needed"] = Needed(questions=10, seeds=None)  # by a variance that is smaller than the interval's
    assert ("would have been seen" in more(narrow)) is seen
    assert ("may have been missed" in more(narrow)) is not seen


def test_all_pairs_are_counted_though_only_the_best_ones_are_told() -> None:
    found = claims(rates({1e-4: 0.4, 2e-4: 0.45, 5e-4: 0.7, 1e-3: 0.5}, seeds=1))
    pairs = [insight for insight in found if len(insight.arms) == 2 and "comparisons" in insight.data]
    assert {insight.data["comparisons"] for insight in pairs} == {6}
    assert all("corrected for 6 comparisons" in insight.text for insight in pairs)
    assert len(pairs) == 3
    with_base = claims(rates({1e-4: 0.4, 2e-4: 0.45, 5e-4: 0.7, 1e-3: 0.5}, seeds=1), base="lr 0.0001")
    assert len([i for i in with_base if len(i.arms) == 2 and "comparisons" in i.data]) == 5


def test_a_base_that_is_no_arm_and_a_metric_that_none_has_are_refused() -> None:
    with pytest.raises(UsageError, match="no arm 'x'"):
        claims(rates({1e-4: 0.4}), base="x")
    with pytest.raises(UsageError, match="cannot be compared by 'reward'"):
        claims(rates({1e-4: 0.4}), metric="reward")


def test_training_that_helped_is_told_of_each_arm() -> None:
    found = claims([made_run("a", {0: 0.3, 60: 0.6}, chance=5)])
    assert any("is better after 60 steps than before: +0." in text for text in texts(found, Kind.BETTER))


def test_many_arms_of_two_seeds_know_together_how_seeds_scatter() -> None:
    """Each alone would have one degree of freedom, and an interval from -1 to +1."""
    values = dict(zip(range(1, 13), [0.4] * 11 + [0.8], strict=True))
    runs = [
        made_run(f"{i}-{seed}", {0: 0.4, 60: mean + 0.02 * seed}, lr=i * 1e-4, seed=seed, chance=1000 * i + 100 * seed)
        for i, mean in values.items()
        for seed in (0, 1)
    ]
    gain = next(i for i in claims(runs) if i.kind is Kind.BETTER and i.data.get("before") == 0)
    assert gain.arms == ["lr 0.0012"]
    assert gain.data["low"] > 0.3


# What to compare at


def test_a_run_that_ended_early_is_compared_at_the_last_step_that_both_have() -> None:
    early = made_run("a", {0: 0.3, 20: 0.4}, lr=1e-4, steps=60, status=Status.BEATEN, why="beaten by b", chance=7)
    found = claims([early, made_run("b", {0: 0.3, 20: 0.6, 40: 0.7, 60: 0.7}, lr=5e-4)])
    claim = next(insight for insight in found if insight.kind is Kind.BETTER and len(insight.arms) == 2)
    assert "at step 20" in claim.text
    assert any("no data for run a at steps 40–60 (beaten by b): no conclusion" in t for t in texts(found, Kind.NO_DATA))


def test_finished_runs_of_other_lengths_are_compared_at_their_ends_and_at_equal_samples() -> None:
    long = made_run("long", {0: 0.3, 20: 0.4, 60: 0.8}, steps=60)
    found = claims([made_run("short", {0: 0.3, 20: 0.4}, steps=20, chance=3), long])
    (ends, equal) = [i for i in found if len(i.arms) == 2 and "equal_samples" in i.data]
    assert ends.data["comparisons"] == equal.data["comparisons"] == 2
    assert "at their ends, steps 60 and 20" in ends.text
    assert ends.kind is Kind.BETTER
    assert "at equal samples: steps 60 at step 20, 640 samples against steps 20 at step 20, 640 samples" in equal.text
    assert equal.kind is Kind.NO_DIFFERENCE


def test_other_batches_are_not_comparable_by_steps_alone() -> None:
    runs = [
        made_run("a", {0: 0.3, 16: 0.35, 64: 0.6}, batch=128, eval_every=16),
        made_run("b", {0: 0.3, 64: 0.5}, batch=32, eval_every=64, chance=9),
    ]
    found = claims(runs)
    (caution,) = [text for text in texts(found, Kind.CAUTION) if "not comparable by steps alone" in text]
    assert "batch 128, eval_every 16 has seen 8192 samples at step 64" in caution
    assert "batch 32, eval_every 64 has seen 2048 samples at step 64" in caution
    equal = next(insight for insight in found if insight.data.get("equal_samples"))
    assert equal.data["base_step"] == 16
    assert equal.data["better"] == "batch 32, eval_every 64"  # by steps it is the other one


# No data, and what cannot be compared


def test_a_run_without_evaluation_is_no_data_and_in_no_claim() -> None:
    runs = [*rates({1e-4: 0.4, 5e-4: 0.6}), made_run("broken", {}, lr=1e-2, status=Status.DIVERGED, why="loss is nan")]
    found = claims(runs)
    missing = only(found, Kind.NO_DATA)
    assert missing.text.startswith(
        "no data for run broken: no evaluation on the held-out problems (diverged: loss is nan)"
    )
    others = [insight for insight in found if insight.kind not in (Kind.NO_DATA, Kind.SENSITIVITY)]
    assert not any("lr 0.01" in insight.arms or "0.01" in insight.text for insight in others)


def test_a_diverged_run_is_no_result_however_good_it_was_before() -> None:
    good = made_run("good", {0: 0.3, 20: 0.9}, lr=1e-2, steps=60, status=Status.DIVERGED)
    found = claims([good, *rates({1e-4: 0.6}, seeds=1)])
    assert only(found, Kind.DEPLOY).data["choice"] == "lr0.0001-seed0"
    assert any("at steps 40–60 (diverged)" in text for text in texts(found, Kind.NO_DATA))


def test_an_arm_that_lost_a_seed_is_optimistic() -> None:
    runs = rates({1e-4: 0.4, 5e-4: 0.6})
    lost = made_run("lost", {0: 0.3}, lr=5e-4, seed=2, steps=60, eval_every=60, status=Status.DIVERGED)
    assert any("lost diverged: what is said of lr 0.0005" in t for t in texts(claims([*runs, lost]), Kind.CAUTION))


def test_arms_on_other_problems_are_compared_among_themselves() -> None:
    elsewhere = [
        made_run(f"other{seed}-{value}", {0: 0.3, 60: value}, lr=lr, seed=seed, problems="cd" * 32, chance=seed)
        for lr, value in ((1e-3, 0.9), (2e-3, 0.4))
        for seed in (5, 6)
    ]
    found = claims([*rates({1e-4: 0.4, 5e-4: 0.6}), *elsewhere])
    (caution,) = [text for text in texts(found, Kind.CAUTION) if "different problems" in text]
    assert caution.endswith("only among themselves: lr 0.0001 and lr 0.0005; lr 0.001 and lr 0.002")
    pairs = [i for i in found if i.kind is Kind.BETTER and len(i.arms) == 2]
    assert [i.arms for i in pairs] == [["lr 0.0005", "lr 0.0001"], ["lr 0.001", "lr 0.002"]]
    assert {i.data["comparisons"] for i in pairs} == {2}, "all pairs of the study are one family"
    assert [i.arms for i in found if i.kind is Kind.DEPLOY] == [["lr 0.0005"], ["lr 0.001"]]
    assert [i.arms for i in found if i.kind is Kind.BEST] == [["lr 0.0005"], ["lr 0.001"]]


def test_a_seed_on_other_problems_is_left_out_of_its_arm() -> None:
    runs = rates({1e-4: 0.4, 5e-4: 0.6}, seeds=3)
    stray = made_run("stray", {0: 0.3, 60: 0.9}, lr=5e-4, seed=9, problems="cd" * 32)
    assert any("stray was evaluated with other problems" in t for t in texts(claims([*runs, stray]), Kind.CAUTION))


def test_a_metric_that_takes_more_samples_is_no_data() -> None:
    found = claims(rates({1e-4: 0.4, 5e-4: 0.6}), metric="pass@16")
    assert len(texts(found, Kind.NO_DATA)) == 4
    assert not texts(found, Kind.BETTER)
    assert only(found, Kind.DEPLOY).data["choice"] is None


def test_an_empty_study_says_nothing() -> None:
    assert insights([]) == []


# The best, and what to deploy


def test_the_best_of_many_has_an_interval_that_knows_of_the_choice() -> None:
    alike = claims(rates({k * 1e-5: 0.5 for k in range(1, 9)}, seeds=1))
    chosen, single = only(alike, Kind.BEST), only(claims(rates({1e-5: 0.5, 1e-2: 0.1}, seeds=1)), Kind.BEST)
    assert chosen.data["of"] == 8
    width = (chosen.data["value"] - chosen.data["low"]) / (single.data["value"] - single.data["low"])
    assert width > 1.1


def test_it_names_the_run_to_deploy_and_why() -> None:
    choice = only(claims(rates({1e-4: 0.4, 5e-4: 0.65}, seeds=3)), Kind.DEPLOY)
    assert choice.text.startswith("deploy lr0.0005-seed")
    assert choice.data["step"] == 60
    assert choice.data["rivals"] == []
    assert "lr 0.0005 is shown to be better than the other one" in choice.text


def test_the_checkpoint_is_the_best_on_the_held_out_problems_and_its_value_elsewhere_is_told() -> None:
    run = made_run("a", {0: 0.3, 20: 0.7, 40: 0.6, 60: 0.5})
    unseen = made_run("b", {0: 0.2, 20: 0.4, 40: 0.45, 60: 0.45}, set="math500").evaluations
    run.evaluations.update(unseen)
    choice = only(claims([run]), Kind.DEPLOY)
    assert (choice.data["step"], choice.data["checkpoint"]["of"]) == (20, 3)
    assert choice.data["checkpoint"]["not_chosen_on"]["math500"]["value"] == pytest.approx(0.4, abs=0.05)


# Learning rates


def test_the_basin_is_what_is_not_shown_to_be_worse() -> None:
    found = claims(rates({1e-6: 0.3, 1e-5: 0.35, 1e-4: 0.6, 3e-4: 0.61, 1e-3: 0.3}, seeds=1))
    basin = only(found, Kind.SENSITIVITY)
    assert basin.data["basin"] == [1e-4, 3e-4]
    assert basin.data["edge"] is None
    assert basin.data["worse"] == [1e-6, 1e-5, 1e-3]


def test_rates_are_judged_among_arms_that_differ_in_nothing_else_and_each_group_says_what_it_is_of() -> None:
    runs = [
        made_run(f"steps{steps}-lr{lr}", {0: 0.3, steps: value}, lr=lr, steps=steps, eval_every=steps)
        for steps in (20, 60)
        for lr, value in ((1e-5, 0.35), (1e-4, 0.6), (1e-3, 0.3))
    ]
    found = [insight for insight in claims(runs) if insight.kind is Kind.SENSITIVITY]
    assert [insight.data["at"] for insight in found] == ["steps 20 and eval_every 20", "steps 60 and eval_every 60"]
    assert all(insight.text.startswith(f"pass@1 against lr at {insight.data['at']}: ") for insight in found)
    assert only(claims(rates({1e-5: 0.35, 1e-4: 0.6, 1e-3: 0.3}, seeds=1)), Kind.SENSITIVITY).data["at"] == ""


def test_a_best_at_the_edge_of_the_grid_is_said_to_be_one() -> None:
    basin = only(claims(rates({1e-6: 0.3, 1e-5: 0.4, 1e-4: 0.6}, seeds=1)), Kind.SENSITIVITY)
    assert (basin.data["edge"], basin.data["try"]) == ("highest", 1e-3)
    assert "try --lr 0.001" in basin.text


def test_the_next_rate_is_a_decade_away_at_the_most() -> None:
    rising = only(claims(rates({1e-5: 0.3, 2e-5: 0.35, 5e-4: 0.6}, seeds=1)), Kind.SENSITIVITY)
    assert (rising.data["edge"], rising.data["try"]) == ("highest", 5e-3)
    falling = only(claims(rates({5e-5: 0.6, 2e-3: 0.35, 5e-3: 0.3}, seeds=1)), Kind.SENSITIVITY)
    assert (falling.data["edge"], falling.data["try"]) == ("lowest", 5e-6)


def test_a_rate_that_diverged_is_no_edge() -> None:
    broken = made_run("broken", {0: 0.3}, lr=1e-2, steps=60, eval_every=60, status=Status.DIVERGED)
    basin = only(claims([*rates({1e-6: 0.3, 1e-5: 0.4, 1e-4: 0.6}, seeds=1), broken]), Kind.SENSITIVITY)
    assert basin.data["edge"] is None
    assert basin.data["broken"] == [1e-2]


def test_the_correlation_with_the_rate_has_an_interval_and_with_three_none() -> None:
    five = only(claims(rates({1e-6: 0.3, 1e-5: 0.4, 1e-4: 0.5, 1e-3: 0.6, 1e-2: 0.7}, seeds=1)), Kind.CORRELATION)
    assert five.data["pearson"]["low"] > 0.8
    three = only(claims(rates({1e-6: 0.3, 1e-5: 0.4, 1e-4: 0.6}, seeds=1)), Kind.CORRELATION)
    assert three.data["pearson"]["low"] is None
    assert "too few" in three.text
    assert not texts(claims(rates({1e-6: 0.3, 1e-5: 0.4})), Kind.CORRELATION)


# Tables of other tools

STUDY_000 = [
    foreign_run("Batch 64", {"pass_rate": {20: 0.556, 40: 0.571, 60: 0.577}}),
    foreign_run("Buffer 256", {"pass_rate": {20: 0.569, 40: 0.585, 60: 0.609}}),
]


@pytest.mark.parametrize("cell", [0.0, None])
def test_a_column_of_nothing_but_zeros_is_no_data_no_rank_and_no_claim(cell: float | None) -> None:
    empty = foreign_run("2x LR", {"pass_rate": {20: cell, 40: cell, 60: cell}})
    found = claims([*STUDY_000, empty])
    assert only(found, Kind.NO_DATA).text.startswith("no data for run 2x LR at steps 20–60")
    assert not any("2x LR" in i.arms or "2x LR" in i.text for i in found if i.kind is not Kind.NO_DATA)
    assert not texts(found, Kind.BETTER)


def test_a_table_without_questions_and_seeds_carries_no_claim() -> None:
    found = claims(STUDY_000)
    highest = only(found, Kind.NO_DIFFERENCE)
    assert "highest pass_rate in this table: Buffer 256, 0.609" in highest.text
    assert "no claim" in highest.text
    assert "does not choose" in only(found, Kind.DEPLOY).text


def test_an_infinite_result_is_told_and_compared_with_none() -> None:
    runs = [
        foreign_run(n, {}, {"perplexity": v}) for n, v in (("a", math.inf), ("b", 9.0), ("c", 8.0), ("d", math.nan))
    ]
    found = claims(runs)
    assert sorted(texts(found, Kind.CAUTION)) == [
        "the perplexity of run a is infinite: it is in no comparison",
        "the perplexity of run d is not a number: it is in no comparison",
    ]
    assert "lowest perplexity in this table: c, 8, before b, 9" in only(found, Kind.NO_DIFFERENCE).text


def test_runs_of_other_tools_are_not_compared_with_ours() -> None:
    found = claims([*rates({1e-4: 0.4, 5e-4: 0.6}, seeds=1), *STUDY_000])
    assert any("not compared with ours" in text for text in texts(found, Kind.CAUTION))
    ours = next(i for i in found if i.kind is Kind.BETTER and len(i.arms) == 2)
    assert ours.arms == ["lr 0.0005", "lr 0.0001"]
