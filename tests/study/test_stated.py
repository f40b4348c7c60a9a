"""What is said of other tools' runs: their files state results, and only seeds tell how sure these are."""

import json
from collections.abc import Mapping, Sequence

import numpy as np

from rl.study.claims import insights
from rl.study.insights import Insight, Kind
from rl.study.runs import Arm, arms_of
from tests.study.made import foreign_run


def seeded(arm: str, **values: Sequence[float]) -> Arm:
    """An arm whose runs state so many results."""
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return Arm(name=arm, settings={}, runs=[foreign_run(f"{arm}{i}", {}, row) for i, row in enumerate(rows)])


def of(kind: Kind, *arms: Arm, **options: str) -> list[Insight]:
    found = insights(arms, **options)
    json.dumps([insight.data for insight in found], allow_nan=False)
    return [insight for insight in found if insight.kind is kind]


GOOD, BAD = [0.90, 0.91, 0.89], [0.50, 0.51, 0.49]


def test_three_seeds_an_arm_carry_a_claim_and_a_loss_is_better_lower() -> None:
    arms = seeded("a", loss=[1.0, 1.01, 0.99]), seeded("b", loss=[2.0, 2.02, 1.99])
    (better,), (deploy,) = of(Kind.BETTER, *arms), of(Kind.DEPLOY, *arms)
    assert better.data["better"] == deploy.data["choice"] == "a"
    assert not of(Kind.BETTER, seeded("a", loss=[1.0, 3.0, 2.0]), seeded("b", loss=[2.0, 2.5, 1.9]))


def test_pairs_of_all_metrics_are_one_family() -> None:
    arms = [seeded(name, accuracy=values, eval_loss=values) for name, values in (("a", GOOD), ("b", BAD))]
    assert {insight.data["comparisons"] for insight in of(Kind.BETTER, *arms)} == {2}


def test_identical_arms_are_told_apart_in_one_study_of_twenty_at_most_whatever_the_number_of_metrics() -> None:
    names = ("accuracy", "f1", "score", "eval_loss", "bleu")
    rng = np.random.default_rng(4)

    def claims_something() -> bool:
        arms = [seeded(arm, **{name: rng.normal(0.5, 0.1, 3).tolist() for name in names}) for arm in ("a", "b")]
        return bool(of(Kind.BETTER, *arms))

    assert np.mean([claims_something() for _ in range(600)]) <= 0.05


def test_a_loss_of_training_chooses_no_run() -> None:
    arms = seeded("a", train_loss=GOOD), seeded("b", train_loss=BAD)
    (deploy,) = of(Kind.DEPLOY, *arms)
    assert deploy.data["choice"] is None
    assert deploy.text.endswith("only the training itself was measured")


def test_metrics_that_contradict_each_other_choose_no_run() -> None:
    arms = seeded("a", train_loss=GOOD, accuracy=GOOD), seeded("b", train_loss=BAD, accuracy=BAD)
    (deploy,) = of(Kind.DEPLOY, *arms)
    assert deploy.data["choice"] is None
    assert deploy.text.endswith("a is better than all others by accuracy, but b is better by train_loss")


def test_a_run_is_chosen_by_the_first_result_that_is_not_of_training() -> None:
    same = [0.5, 0.6, 0.7]
    arms = [seeded(name, train_loss=same, f1=own, bleu=same) for name, own in (("a", GOOD), ("b", BAD))]
    (deploy,) = of(Kind.DEPLOY, *arms)
    assert (deploy.data["choice"], deploy.data["metric"]) == ("a", "f1")


def test_several_correlations_are_corrected_for_their_number() -> None:
    finals: Mapping[float, Mapping[str, float]] = {
        lr: {"accuracy": 0.1 * i, "f1": 0.2 + 0.1 * i} for i, lr in enumerate((1e-6, 1e-5, 1e-4, 1e-3, 1e-2))
    }
    runs = [foreign_run(f"{lr:g}", {}, dict(own), lr=lr) for lr, own in finals.items()]
    found = of(Kind.CORRELATION, *arms_of(runs))
    assert [insight.data["comparisons"] for insight in found] == [2, 2]
    assert all("corrected for 2 correlations" in insight.text for insight in found)


def test_a_seed_that_comes_twice_is_one_run() -> None:
    def runs(name: str, values: Sequence[float], seeds: Sequence[int]) -> Arm:
        own = [
            foreign_run(f"{name}{i}", {}, {"f1": v}, seed=s) for i, (v, s) in enumerate(zip(values, seeds, strict=True))
        ]
        return Arm(name=name, settings={}, runs=own)

    arms = runs("a", GOOD, [0, 1, 1]), runs("b", BAD, [0, 1, 2])
    assert not of(Kind.BETTER, *arms)
    assert [c.text for c in of(Kind.CAUTION, *arms)] == ["a2 has a seed, 1, of another run of a: it is left out"]
    assert of(Kind.BETTER, runs("a", GOOD, [0, 1, 2]), arms[1])
