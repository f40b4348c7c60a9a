"""Which checkpoint to deploy, and why: the reason is of the checkpoint that is named."""

from collections.abc import Mapping

import pytest

from rl.study.claims import insights
from rl.study.insights import Insight, Kind
from rl.study.runs import Status, StudyRun, arms_of
from tests.study.made import made_run
from tests.study.test_claims import rates


def deploy(*runs: StudyRun, metric: str = "pass@1", set: str = "heldout") -> Insight:
    return all_deploy(*runs, metric=metric, set=set)[0]


def all_deploy(*runs: StudyRun, metric: str = "pass@1", set: str = "heldout") -> list[Insight]:
    return [found for found in insights(arms_of(runs), metric=metric, set=set) if found.kind is Kind.DEPLOY]


def test_a_checkpoint_in_the_middle_is_deployed_though_the_last_one_gained_nothing() -> None:
    choice = deploy(made_run("a", {0: 0.3, 20: 0.7, 60: 0.3}, steps=60))
    assert (choice.data["choice"], choice.data["step"]) == ("a", 20)
    assert choice.data["gain"]["value"] == pytest.approx(0.4, abs=0.04)
    assert "it gained +0.3" in choice.text or "it gained +0.4" in choice.text


def test_the_gain_is_of_the_checkpoint_that_is_named_and_corrected_for_the_choice() -> None:
    choice = deploy(made_run("a", {0: 0.3, 20: 0.7, 60: 0.4}, steps=60))
    assert choice.data["gain"]["value"] == pytest.approx(0.4, abs=0.04)
    assert choice.data["gain"]["comparisons"] == 2
    assert "corrected for 2 checkpoints" in choice.text


def test_nothing_is_deployed_only_where_no_arm_gained() -> None:
    nothing = deploy(*rates({1e-6: 0.3, 2e-6: 0.3}, seeds=1))
    assert nothing.text.startswith("deploy none of them: none is shown to be better")
    assert nothing.data["choice"] is None
    scattering = [
        made_run(f"a{seed}", {0: 0.3, 60: value}, lr=1e-3, seed=seed, chance=7 * seed)
        for seed, value in ((0, 0.25), (1, 0.75))
    ]
    steady = [made_run(f"b{seed}", {0: 0.3, 60: 0.48}, lr=1e-4, seed=seed, chance=50 + seed) for seed in (0, 1)]
    assert "none" not in deploy(*scattering, *steady).text


def test_a_single_run_is_not_called_the_only_arm() -> None:
    choice = deploy(made_run("a", {0: 0.3, 60: 0.6}))
    assert choice.text.startswith("deploy a, step 60, because it gained +0.")
    poor = deploy(made_run("a", {0: 0.3, 60: 0.3}))
    assert poor.text.startswith("deploy no checkpoint of a")


def test_two_sets_of_problems_have_one_choice_each_and_say_so() -> None:
    runs = [made_run("a", {0: 0.3, 60: 0.6}, lr=1e-4), made_run("b", {0: 0.3, 60: 0.6}, lr=5e-4, problems="cd" * 32)]
    texts = [found.text for found in all_deploy(*runs)]
    assert len(texts) == 2
    assert all("because it is the only arm on these problems and it gained" in text for text in texts)


def test_without_a_measurement_before_training_a_checkpoint_has_no_gain() -> None:
    choice = deploy(made_run("a", {20: 0.6, 60: 0.5}, steps=60))
    assert choice.data["gain"] is None
    assert choice.text.startswith("deploy a, step 20, because it is the only arm on these problems.")


def test_the_cheapest_is_named_where_it_costs_a_tenth_less() -> None:
    slow = made_run("slow", {0: 0.3, 120: 0.6}, lr=2e-4, steps=120, chance=77)
    choice = deploy(*rates({1e-4: 0.6}, seeds=1), slow)
    assert choice.data["choice"] is None
    assert choice.text.startswith("the evidence does not choose between")
    assert "no difference is shown" in choice.text
    assert choice.data["cheapest"] == "steps 60, lr 0.0001, eval_every 60"
    assert "1.0 minutes of training and 6000 tokens a run, against 2.0 minutes" in choice.text


@pytest.mark.parametrize("steps", [{60: Status.DONE}, {20: Status.BEATEN}, {20: Status.STOPPED}])
def test_no_arm_is_cheapest_for_ending_early_or_by_nothing(steps: Mapping[int, Status]) -> None:
    ((last, status),) = steps.items()
    early = made_run("early", {0: 0.3, last: 0.6}, lr=2e-4, steps=60, status=status, chance=77)
    choice = deploy(*rates({1e-4: 0.6}, seeds=1), early)
    assert choice.data["choice"] is None
    assert "cheapest" not in choice.data
    assert "cheapest" not in choice.text


def test_arms_that_could_not_be_compared_are_not_said_to_show_no_difference() -> None:
    at_40 = made_run("b", {0: 0.3, 40: 0.6}, lr=5e-4, steps=60, status=Status.STOPPED)
    choice = deploy(made_run("a", {0: 0.3, 60: 0.6}, lr=1e-4), at_40)
    assert choice.data["choice"] is None
    assert "could not be compared with" in choice.text
    assert "no difference" not in choice.text


def test_a_metric_that_the_held_out_problems_have_too_few_samples_for_is_chosen_by_on_the_studys_set() -> None:
    run = made_run("a", {0: 0.3, 20: 0.5, 60: 0.4}, set="math500", steps=60)
    few = made_run("a", {0: 0.3, 20: 0.5, 60: 0.9}, steps=60).evaluations["heldout"]
    for evaluated in few:
        for question in evaluated.result.questions:
            for samples in (question.marks, question.answers, question.completions, question.reasons):
                del samples[4:]
    run.evaluations["heldout"] = few
    choice = deploy(run, metric="pass@8", set="math500")
    assert (choice.data["checkpoint"]["set"], choice.data["step"]) == ("math500", 20)


def test_the_best_arm_and_the_one_to_deploy_are_chosen_on_the_same_questions() -> None:
    """On its easy questions alone `part` has the higher mean, and on the same ones `whole`."""
    whole, part = made_run("whole", {0: 0.3, 60: 0.5}, lr=1e-4), made_run("part", {0: 0.3, 60: 0.45}, lr=5e-4)
    last = part.evaluations["heldout"][-1].result
    easy = {question.problem_id for question in last.questions if (question.pass_at(1) or 0) >= 0.5}
    for evaluated in part.evaluations["heldout"]:
        questions = evaluated.result.questions
        questions[:] = [question for question in questions if question.problem_id in easy]
    found = insights(arms_of([whole, part]))
    (best,), (choice,) = ([i for i in found if i.kind is kind] for kind in (Kind.BEST, Kind.DEPLOY))
    assert best.arms == choice.arms[:1] == ["lr 0.0001"]
