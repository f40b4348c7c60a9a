"""Each rule sees its fault in a run that is sound but for it, with numbers, and names flags that can be pasted."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.verdict import TRUNCATED, Mark
from rl.core.config import TrainConfig
from rl.evaluate.result import EvalResult, QuestionResult
from rl.observe.course import Course
from rl.observe.diagnosis import as_json
from rl.observe.findings import Finding, Groups
from rl.observe.rules import findings, findings_so_far
from rl.study.runs import Curve, Evaluated, Status, StudyRun, curves_of
from tests.observe.recorded import step_record
from tests.results import eval_result

STEPS = 80
Shape = Callable[[int], float]


def ramp(first: float, last: float, start: int = 1, end: int = STEPS) -> Shape:
    """Flat until `start`, and from `end`."""
    return lambda step: first + (last - first) * min(1.0, max(0.0, (step - start) / (end - start)))


def steps_of(n: int = STEPS, *, seed: int = 0, noise: float = 0.06, **shapes: Shape) -> list[dict[str, Any]]:
    """Records in which the reward rises from 0.35 to 0.65, as noisy as 32 samples make it, unless `shapes` say else."""
    random = Random(seed)
    shapes = {"reward": ramp(0.35, 0.65)} | shapes
    records = []
    for step in range(1, n + 1):
        values = {name: shape(step) for name, shape in shapes.items()}
        values["reward"] = min(1.0, max(0.0, values["reward"] + random.gauss(0, noise)))
        records.append(step_record(step, **{"epoch": 0.01 * step, "reward_trained": 0.5, "grad_norm": 1.2, **values}))
    return records


def evaluated(step: int, right: float, *, seed: int = 0, questions: int = 128, n: int = 4) -> EvalResult:
    """Questions of differing difficulty, of whose samples so many are right on average."""
    random = Random(f"{seed} {step}")
    asked = []
    for number in range(questions):
        hard = Random(number).random()
        p = min(1.0, max(0.0, right + (hard - 0.5) * 0.6))
        marks = [Mark.RIGHT if random.random() < p else Mark.WRONG for _ in range(n)]
        asked.append(
            QuestionResult(
                problem_id=str(number),
                problem=f"{number}+1",
                gold=str(number + 1),
                completions=[rf"\boxed{{{number + (mark is Mark.RIGHT)}}}" for mark in marks],
                answers=[str(number + (mark is Mark.RIGHT)) for mark in marks],
                marks=marks,
                reasons=["by hand"] * n,
            )
        )
    return eval_result(asked, step=step, n=n)


def found(
    steps: Sequence[dict[str, Any]],
    evaluations: Sequence[EvalResult] = (),
    groups: Groups | None = None,
    **settings: Any,
) -> dict[str, Finding]:
    config = TrainConfig(steps=STEPS, **settings)
    measured = [Evaluated(result=result, samples=None, tokens=None, seconds=None) for result in evaluations]
    run = StudyRun(
        name="run",
        path=Path("runs/run"),
        settings=config.model_dump(mode="json"),
        status=Status.DONE if len(steps) == STEPS else Status.STOPPED,
        curves=curves_of(steps),
        evaluations={"heldout": measured} if measured else {},
    )
    all_found = {finding.rule: finding for finding in findings(run, groups)}
    for finding in all_found.values():
        TrainConfig.model_validate(config.model_dump() | finding.changes)  # what is proposed can be run
        assert finding.pasted
        assert any(map(str.isdigit, finding.evidence))
        numbers = [value for value in finding.data.values() if isinstance(value, float)]
        assert all(map(math.isfinite, numbers))
    return all_found


SOUND = (evaluated(0, 0.35), evaluated(STEPS, 0.62))


@pytest.mark.parametrize("seed", range(20))
def test_a_sound_run_has_no_finding(seed: int) -> None:
    assert found(steps_of(seed=seed), SOUND) == {}


def test_a_run_that_has_just_begun_has_no_finding() -> None:
    for n in range(6):
        assert findings_so_far(TrainConfig(), steps_of(n), []) == []


@pytest.mark.parametrize(
    ("rule", "shapes", "settings", "pasted"),
    [
        ("truncation", {"truncated": ramp(0.4, 0.3)}, {}, "--max-tokens 80"),
        ("mismatch", {"mismatch_kl": ramp(0.01, 0.02)}, {}, "--dtype float32"),
        ("verifier_errors", {"errors": ramp(4, 4)}, {}, "python -m rl.show runs/run --mark error"),
        ("lr_low", {"reward": ramp(0.35, 0.35)}, {"lr": 2e-6}, "--lr 0.0005"),
        ("lr_high", {"ess": ramp(0.9, 0.2)}, {"lr": 5e-3}, "--lr 0.0005"),
        ("lr_high", {"clipped_low": ramp(0.0, 0.3)}, {"lr": 5e-3}, "--lr 0.0005"),
        ("lr_high", {"reward": ramp(0.6, 0.02, 30, 40)}, {"lr": 5e-3, "buffer": 32}, "--lr 0.0005"),
        ("divergence", {"reward": ramp(0.6, 0.02, 30, 40)}, {"buffer": 32}, "--lr 0.0002 --warmup 0.05"),
        ("stale", {"ess": ramp(0.9, 0.3)}, {"buffer": 1024}, "--buffer 256"),
        ("no_warmup", {"clipped_low": ramp(0.4, 0.0, 14, 16)}, {}, "--warmup 16"),
        ("always_clipped", {"grad_norm": ramp(1.0, 1.4)}, {"grad_clip": 1e-3}, "--grad-clip 2"),
        ("never_clipped", {"grad_norm": lambda step: 40.0 if step in (31, 52) else 1.0}, {"grad_clip": 100}, None),
        ("all_wrong", {"no_signal": ramp(0.9, 0.9), "reward": ramp(0.06, 0.06)}, {}, "--group-size 16"),
        ("all_right", {"no_signal": ramp(0.9, 0.9), "reward": ramp(0.94, 0.94)}, {}, None),
        ("ties", {"no_signal": ramp(0.75, 0.75), "reward": ramp(0.4, 0.5)}, {"group_size": 2}, "--group-size 8"),
        ("all_wrong", {"no_signal": ramp(0.5, 0.5), "reward": ramp(0.26, 0.26)}, {"temperature": 2}, "--temperature 1"),
        ("plateau", {"reward": ramp(0.35, 0.6, 1, 20)}, {}, "--lr 0.001"),
        ("rank_small", {"reward": ramp(0.35, 0.6, 1, 20)}, {"lora_rank": 2}, "--lora-rank 4 --lora-alpha 64"),
        ("starved", {"wait_s": ramp(0.48, 0.48)}, {}, "--servers 2"),
        ("non_finite", {"loss": lambda step: math.nan if step == 30 else 0.1}, {}, "--lr 0.0002 --warmup 0.05"),
        ("entropy_collapse", {"entropy": ramp(0.5, 0.01, 1, 40), "no_signal": ramp(0.3, 0.65)}, {}, None),
    ],
)  # fmt: skip
def test_a_fault_is_named(rule: str, shapes: dict[str, Shape], settings: dict[str, Any], pasted: str | None) -> None:
    noise = 0.03 if "plateau" in rule or "rank" in rule else 0.06
    finding = found(steps_of(noise=noise, **shapes), SOUND[:1], **settings)[rule]
    assert pasted in (None, finding.pasted)
    assert finding.line.startswith(f"{finding.what}: {finding.evidence}; ")


def test_gspo_clips_most_sequences_and_is_sound() -> None:
    clips = {"clipped_low": ramp(0.6, 0.6), "staleness_mean": ramp(3, 3)}
    assert found(steps_of(**clips), SOUND, loss="gspo") == {}
    assert list(found(steps_of(**clips), SOUND)) == ["stale"]


def test_a_fall_that_is_made_good_is_instability() -> None:
    def dip(step: int) -> float:
        return ramp(0.6, 0.1, 30, 35)(step) if step < 45 else ramp(0.1, 0.6, 45, 50)(step)

    assert list(found(steps_of(reward=dip), SOUND)) == ["instability"]


def test_a_cause_hides_what_it_brings_about() -> None:
    collapsed = steps_of(reward=ramp(0.6, 0.0, 20, 30), ess=ramp(1, 0.1, 10, 20), no_signal=ramp(0.2, 0.95, 20, 30))
    assert list(found(collapsed, SOUND[:1], lr=5e-2)) == ["lr_high"]
    assert "stale" in found(collapsed, SOUND[:1])


@pytest.mark.parametrize(
    ("tied_reward", "rule"), [(0.0, "all_wrong"), (1.0, "all_right"), (None, "ties")]
)  # fmt: skip
def test_a_run_that_makes_no_step_is_told_by_its_ledger(tied_reward: float | None, rule: str) -> None:
    groups = Groups(counts={"issued": 32, "no_signal": 200}, tied_reward=tied_reward)
    assert list(found([], groups=groups)) == [rule]
    assert found([], groups=Groups(counts={"issued": 32, "no_signal": 10}, tied_reward=tied_reward)) == {}


def test_a_policy_that_collapsed_at_once_is_told_from_problems_that_are_too_hard() -> None:
    """It made one step, and leaves no curve."""
    groups = Groups(counts={"trained": 4, "no_signal": 30}, tied_reward=0.02)
    assert list(found(steps_of(1), [evaluated(0, 0.35)], groups, lr=1e-2)) == ["lr_high"]
    assert list(found(steps_of(1), [evaluated(0, 0.0)], groups, lr=1e-2)) == ["all_wrong"]
    assert list(found(steps_of(1), [evaluated(0, 0.35)], groups)) == ["all_wrong"]


def test_whole_groups_without_a_verdict_are_errors() -> None:
    groups = Groups(counts={"trained": 300, "unverified": 60})
    assert list(found(steps_of(), SOUND, groups)) == ["verifier_errors"]
    assert list(found([], groups=Groups(counts={"unverified": 64}))) == ["verifier_errors"]


@pytest.mark.parametrize(("last", "rules"), [(0.25, ["overfitting"]), (0.35, ["overfitting"]), (0.85, [])])
def test_learning_by_heart_is_seen_on_held_out_problems(last: float, rules: list[str]) -> None:
    steps = steps_of(reward=ramp(0.4, 0.85), epoch=lambda step: step / 4)
    assert list(found(steps, [evaluated(0, 0.4), evaluated(STEPS, last)])) == rules


def test_one_pass_over_the_problems_is_not_learned_by_heart() -> None:
    assert found(steps_of(reward=ramp(0.4, 0.85)), [evaluated(0, 0.4), evaluated(STEPS, 0.4)]) == {}


@pytest.mark.parametrize(
    ("truth", "rules"), [(0.35, ["reward_hacking"]), (0.1, ["reward_hacking"]), (0.85, [])]
)  # fmt: skip
def test_a_reward_that_wrong_answers_earn_is_told_from_one_that_teaches(truth: float, rules: list[str]) -> None:
    """The reward pays nearly everything at the end; what is right is told from the completions."""

    def paid(result: EvalResult, share: float) -> EvalResult:
        random = Random(1)
        for question in result.questions:
            right = [mark is Mark.RIGHT for mark in question.marks]
            question.marks[:] = [
                Mark.RIGHT if is_right or random.random() < share else Mark.WRONG for is_right in right
            ]
        return result

    evaluations = [paid(evaluated(0, 0.35), 0.2), paid(evaluated(STEPS, truth), 0.9 if rules else 0.0)]
    all_found = found(steps_of(reward=ramp(0.4, 0.95)), evaluations, reward="mine:reward")
    assert list(all_found) == rules
    if rules:
        finding = all_found["reward_hacking"]
        assert finding.pasted == "--reward rewards:verify"
        assert len(finding.data["examples"]) == 5
        assert all(answer != rf"\boxed{{{gold}}}" for answer, gold in finding.data["examples"])
        assert repr(finding.data["examples"][0][0]) in finding.evidence


def test_completions_that_are_cut_before_any_step_are_seen_in_the_evaluation() -> None:
    base = evaluated(0, 0.1)
    for question in base.questions:
        question.reasons[:2] = [TRUNCATED] * 2
    groups = Groups(counts={"no_signal": 100}, tied_reward=0.0)
    assert [(f.rule, f.pasted) for f in found([], [base], groups).values()] == [("truncation", "--max-tokens 80")]


def test_a_limit_that_only_guesses_fit_is_told_though_nothing_is_cut_any_more() -> None:
    shapes = {"truncated": ramp(0.5, 0.0, 1, 30), "reward": ramp(0.08, 0.08)}
    assert list(found(steps_of(**shapes, no_signal=ramp(0.9, 0.9)), SOUND[:1])) == ["truncation"]
    assert list(found(steps_of(truncated=ramp(0.5, 0.0, 1, 30)), SOUND)) == []  # it has learned to be brief


def test_a_run_that_nobody_looked_at_is_told() -> None:
    (finding,) = found(steps_of()).values()
    assert (finding.rule, finding.pasted) == ("no_evaluation", "python -m rl.eval runs/run")


def test_a_warm_up_that_does_not_happen_is_told() -> None:
    def rate(config: TrainConfig) -> Shape:
        return lambda step: config.lr_at(step)

    warm = TrainConfig(steps=STEPS, warmup=10)
    assert found(steps_of(lr=rate(warm)), SOUND, warmup=10) == {}
    assert list(found(steps_of(lr=ramp(5e-4, 5e-4)), SOUND, warmup=10)) == ["warmup_ignored"]


# ---- logs of other tools


def logged(settings: dict[str, Any], **curves: Sequence[tuple[int, float]]) -> dict[str, Finding]:
    as_curves = {
        name: Curve(steps=[s for s, _ in pairs], values=[v for _, v in pairs]) for name, pairs in curves.items()
    }
    run = StudyRun(name="log", path=Path("a.log"), settings=settings, curves=as_curves, ours=False)
    return {finding.rule: finding for finding in findings(run)}


STUDY = {"lr": 1e-5, "lora_rank": 8, "lora_alpha": 16, "grad_clip": 1.0}


def test_the_plateau_of_a_log_is_diagnosed() -> None:
    train = [(1500, 6.67), (2000, 6.75), (2500, 6.52)]
    all_found = logged(STUDY, train_loss=train, val_loss=[(1500, 6.71), (2000, 6.93), (2500, 6.72)])
    assert "6.71 at step 1500 to 6.93 at step 2000" in all_found["instability"].evidence
    assert all_found["instability"].pasted == "--warmup 0.05"
    assert all_found["lr_low"].pasted == "--lr 0.0001"
    assert all_found["rank_small"].pasted == "--lora-rank 16 --lora-alpha 32"


def test_over_fitting_is_seen_in_the_losses_of_a_log() -> None:
    steps = range(100, 1100, 100)
    train = [(step, 2.0 - step / 1000) for step in steps]
    val = [(step, 2.0 + abs(step - 400) / 2000) for step in steps]
    assert list(logged({}, loss=train, eval_loss=val)) == ["overfitting"]
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
    known=st.dictionaries(st.sampled_from(["lr", "lora_rank", "lora_alpha", "grad_clip", "warmup", "steps"]), NUMBERS),
    ours=st.booleans(),
)
def test_no_numbers_bring_the_rules_down(
    curves: dict[str, list[float | None]], known: dict[str, float | None], ours: bool
) -> None:
    config = TrainConfig(steps=STEPS, lr=2e-6, lora_rank=2).model_dump(mode="json")
    run = StudyRun(
        name="any",
        path=Path("a.csv"),
        settings=config if ours else known,
        curves={name: Curve(steps=list(range(1, len(v) + 1)), values=v) for name, v in curves.items()},
        ours=ours,
    )
    json.dumps(as_json(run, findings(run)), allow_nan=False)
