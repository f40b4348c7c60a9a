"""Curves of any length have few points, and lose nothing that matters: spikes, gaps, and how sure a trend is."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl.page.curves import BUCKETS, curves, trend, width_for
from rl.page.numbers import Numbers
from tests.observe.recorded import step_record


def numbers_of(file: Path, *records: dict[str, Any]) -> Numbers:
    with file.open("a") as out:
        out.writelines(json.dumps(record) + "\n" for record in records)
    numbers = Numbers(file)
    numbers.read()
    return numbers


@pytest.mark.parametrize("steps", [1, 255, 256, 257, 10_000])
def test_there_are_few_buckets_and_the_last_ends_at_the_last_step(tmp_path: Path, steps: int) -> None:
    made = curves(numbers_of(tmp_path / "m", *(step_record(step) for step in range(1, steps + 1))))
    assert len(made["steps"]) == len(made["series"]["reward"]["mean"]) <= BUCKETS
    assert made["steps"][-1] == steps
    assert made["width"] == width_for(steps)
    assert steps / made["width"] > BUCKETS / 2 or made["width"] == 1


def test_a_spike_of_one_step_is_seen_among_ten_thousand(tmp_path: Path) -> None:
    steps = [step_record(step, grad_norm=40.0 if step == 7_777 else 0.5) for step in range(1, 10_001)]
    made = curves(numbers_of(tmp_path / "m", *steps))
    most = made["series"]["grad_norm"]["most"]
    place = next(i for i, end in enumerate(made["steps"]) if end >= 7_777)
    assert most[place] == 40
    assert sorted(most)[-2] == 0.5


def test_buckets_are_the_least_and_the_most_of_their_own_steps(tmp_path: Path) -> None:
    made = curves(numbers_of(tmp_path / "m", *(step_record(step, reward=step) for step in range(1, 1_001))))
    reward = made["series"]["reward"]
    assert made["width"] == 4
    assert reward["least"] == list(range(1, 1_001, 4))
    assert reward["most"] == list(range(4, 1_001, 4))
    assert reward["mean"][-1] == np.mean(range(981, 1_001))


def test_where_nothing_was_measured_there_is_a_gap(tmp_path: Path) -> None:
    values = [1.0, None, math.nan, 4.0]
    made = curves(numbers_of(tmp_path / "m", *(step_record(i, ess=value) for i, value in enumerate(values, start=1))))
    least = made["series"]["ess"]["least"]
    assert [least[0], least[3]] == [1, 4]
    assert math.isnan(least[1])
    assert math.isnan(least[2])
    assert made["series"]["ess"]["broken"] == 1


@pytest.mark.parametrize(("before", "after"), [(10, 11), (100, 101), (200, 300), (300, 301), (511, 513), (0, 5)])
def test_what_is_added_to_what_is_known_is_the_whole(tmp_path: Path, before: int, after: int) -> None:
    file = tmp_path / "m"
    chance = np.random.default_rng(before)
    steps = [step_record(step, reward=float(chance.normal())) for step in range(1, after + 1)]
    known = curves(numbers_of(file, *steps[:before]))
    added = curves(numbers_of(file, *steps[before:]), known["key"])
    whole = curves(numbers_of(file))
    kept = added["from"]
    assert known["steps"][:kept] + added["steps"] == whole["steps"]
    for key in ("least", "most", "mean", "low", "high"):
        joined = (known["series"]["reward"][key][:kept] if kept else []) + added["series"]["reward"][key]
        assert np.array_equal(joined, whole["series"]["reward"][key], equal_nan=True)
    if known["width"] == whole["width"] and before:
        assert len(added["steps"]) <= after - before + 1


def test_after_a_resume_went_back_all_is_sent_again(tmp_path: Path) -> None:
    file = tmp_path / "m"
    known = curves(numbers_of(file, *(step_record(step) for step in range(1, 50))))
    again = curves(numbers_of(file, step_record(20)), known["key"])
    assert again["from"] == 0
    assert again["steps"] == list(range(1, 21))


@pytest.mark.parametrize("known", ["", "-", "x-1-2", "0-1-99999", "0-1--3", "0-1-²", f"0-1-{'9' * 5000}"], ids=range(7))
def test_what_somebody_else_knows_does_no_harm(tmp_path: Path, known: str) -> None:
    made = curves(numbers_of(tmp_path / "m", *(step_record(step) for step in range(1, 6))), known)
    assert made["steps"][-1] == 5
    assert made["from"] + len(made["steps"]) == 5


def test_a_trend_holds_the_truth_in_95_of_100_places() -> None:
    chance = np.random.default_rng(0)
    truth = np.sin(np.linspace(0, 6, 20_000))
    values = truth + chance.normal(0, 0.3, len(truth))
    places = np.arange(20, len(truth), 20)
    mean, half = trend(values, places, 20)
    true = np.array([truth[place - 19 : place + 1].mean() for place in places])
    assert 0.93 < np.mean(np.abs(mean - true) <= half) < 0.97


def test_of_few_values_a_trend_has_no_interval() -> None:
    mean, half = trend(np.array([1.0, 2.0, 3.0]), np.array([0, 2]), 20)
    assert mean.tolist() == [1, 2]
    assert np.isnan(half).all()
