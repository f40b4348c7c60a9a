"""The rules on logs of other tools and on any numbers whatever, and the statistics that they rest on."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.observe.course import Course
from rl.observe.diagnosis import as_json, suggested
from rl.observe.findings import Finding
from rl.observe.rules import findings
from rl.study.runs import Curve, StudyRun


def logged(settings: dict[str, Any], **curves: Sequence[tuple[int, float]]) -> dict[str, Finding]:
    as_curves = {
        name: Curve(steps=[s for s, _ in pairs], values=[v for _, v in pairs]) for name, pairs in curves.items()
    }
    run = StudyRun(name="log", path=Path("a.log"), settings=settings, curves=as_curves, ours=False)
    return {finding.rule: finding for finding in findings(run)}


STUDY = {"lr": 1e-5, "lora_rank": 8, "lora_alpha": 16, "grad_clip": 1.0}


def test_the_plateau_of_a_log_is_diagnosed() -> None:
    """Of three evaluations nothing is known of their noise: that one is above all before it is taken at its word."""
    train = [(1500, 6.67), (2000, 6.75), (2500, 6.52)]
    all_found = logged(STUDY, train_loss=train, val_loss=[(1500, 6.71), (2000, 6.93), (2500, 6.72)])
    assert "6.71 at step 1500 to 6.93 at step 2000" in all_found["instability"].evidence
    assert all_found["instability"].pasted == "--warmup 0.05"
    assert all_found["lr_low"].pasted == "--lr 0.0001"
    assert all_found["rank_small"].pasted == "--lora-rank 16 --lora-alpha 32"


def test_a_rise_is_no_instability_where_more_was_gained_or_noise_is_known() -> None:
    assert logged(STUDY, val_loss=[(1500, 7.2), (2000, 6.71), (2500, 6.93)]) == {}
    random = Random(0)
    train = [(step, 6.7 - step / 5000 + random.gauss(0, 0.1)) for step in range(1300, 2600, 100)]
    assert logged(STUDY, train_loss=train, val_loss=[(1500, 6.71), (2000, 6.93), (2500, 6.72)]) == {}
    assert list(logged(STUDY, train_loss=[(100, 3.0), (200, 2.0), (300, 2.2), (400, 2.1)])) == []


def test_over_fitting_is_seen_in_the_losses_of_a_log() -> None:
    steps = range(100, 1100, 100)
    train = [(step, 2.0 - step / 1000) for step in steps]
    val = [(step, 2.0 + abs(step - 400) / 2000) for step in steps]
    assert list(logged({}, loss=train, eval_loss=val)) == ["overfitting"]
    assert list(logged({}, loss=train[:6], eval_loss=val[:6])) == ["overfitting"]
    assert logged({}, loss=train[:5], eval_loss=val[:5]) == {}  # one rise may be chance
    assert logged({}, loss=train, eval_loss=[(step, 2.1 - step / 1200) for step in steps]) == {}


@pytest.mark.parametrize("seed", range(20))
def test_a_loss_that_falls_with_noise_is_sound(seed: int) -> None:
    random = Random(seed)
    loss = [(step, 1 + 2 * math.exp(-step / 200) + random.gauss(0, 0.05)) for step in range(0, 500, 5)]
    assert logged({"lr": 2e-4, "lora_rank": 16}, loss=loss) == {}


def test_a_perplexity_that_is_infinite_is_told() -> None:
    run = StudyRun(name="1.7B", path=Path("a.csv"), settings={}, finals={"perplexity": math.inf}, ours=False)
    (finding,) = findings(run)
    assert (finding.rule, finding.evidence) == ("non_finite", "perplexity is inf at the end")


# ---- statistics


def test_noise_is_no_trend_and_a_trend_no_noise() -> None:
    random = Random(0)
    curve = Curve(steps=list(range(2000)), values=[step / 100 + random.gauss(0, 0.5) for step in range(2000)])
    assert Course.of("x", curve).noise == pytest.approx(0.5, rel=0.1)


def test_the_interval_of_a_change_holds_the_truth() -> None:
    held = 0
    for seed in range(1000):
        random = Random(seed)
        curve = Curve(steps=list(range(40)), values=[0.01 * step + random.gauss(0, 0.1) for step in range(40)])
        change = Course.of("x", curve).change()
        held += change.low <= 0.39 <= change.high
    assert 0.92 <= held / 1000 <= 0.97


def test_what_is_not_finite_is_left_out_of_a_course() -> None:
    course = Course.of("x", Curve(steps=[1, 2, 3, 4], values=[1.0, math.nan, None, 2.0]))
    assert (list(course.steps), list(course.values)) == ([1, 4], [1.0, 2.0])
    assert course.fall() is None


def refused(run: StudyRun, all_found: Sequence[Finding]) -> str:
    """Why there is no plan of what is proposed, which is made of settings that can be run; empty where there is one."""
    try:
        suggested(run, all_found)
    except UsageError as error:
        return str(error)
    return ""


NUMBERS = st.none() | st.floats() | st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e308, -1e308, 5e-324])


@settings(max_examples=200, deadline=None)
@given(
    curves=st.dictionaries(
        st.sampled_from(["reward", "ess", "clipped_low", "clipped_high", "grad_norm", "lr", "no_signal", "entropy"])
        | st.sampled_from(["loss", "val_loss", "errors", "truncated", "staleness_mean", "wait_s", "step_s", "epoch"])
        | st.sampled_from(["reward_trained", "unverified", "mismatch_kl"]),
        st.lists(NUMBERS, min_size=1, max_size=90),
        max_size=8,
    ),
    known=st.dictionaries(
        st.sampled_from(["lr", "lora_rank", "lora_alpha", "grad_clip", "warmup", "steps", "max_tokens", "temperature"]),
        NUMBERS | st.sampled_from([1, 2, 8, 500, 1e-6]),
    ),
    ours=st.booleans(),
)
@example(curves={"truncated": [0.0, 0.0, 0.0, 0.0, 2.0]}, known={"max_tokens": 5e139}, ours=False)
def test_no_numbers_bring_the_rules_down(
    curves: dict[str, list[float | None]], known: dict[str, float | None], ours: bool
) -> None:
    config = TrainConfig(steps=80, lr=2e-6, lora_rank=2).model_dump(mode="json")
    run = StudyRun(
        name="any",
        path=Path("a.csv"),
        settings=config if ours else known,
        curves={name: Curve(steps=list(range(1, len(v) + 1)), values=v) for name, v in curves.items()},
        ours=ours,
    )
    all_found = findings(run)
    json.dumps(as_json(run, all_found), allow_nan=False)
    assert refused(run, all_found) in ("", "no finding names a setting to try")
