"""Each rule sees its fault in a run that is sound but for it, with numbers, and names flags that can be pasted."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rewards.verdict import TRUNCATED, Mark
from rl.core.config import TrainConfig
from rl.evaluate.result import EvalResult, QuestionResult
from rl.observe.findings import Finding, Groups
from rl.observe.rules import findings, findings_so_far
from rl.study.runs import Evaluated, Status, StudyRun, curves_of
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


@pytest.mark.parametrize(
    ("reward", "last"), [(ramp(0.35, 0.6), 0.35), (ramp(0.35, 0.35), 0.7)], ids=["its reward rose", "it passes more"]
)  # fmt: skip
def test_a_rate_that_learns_is_not_too_low(reward: Shape, last: float) -> None:
    """Whatever the effective size of its samples says."""
    steps = steps_of(reward=reward, staleness_mean=ramp(3, 3), ess=ramp(0.9999, 0.9999))
    assert "lr_low" not in found(steps, [evaluated(0, 0.35), evaluated(STEPS, last)], lr=2e-6)
    still = steps_of(reward=ramp(0.35, 0.35), staleness_mean=ramp(3, 3), ess=ramp(0.9999, 0.9999))
    assert "effective size of 99.99%" in found(still, SOUND[:1], lr=2e-6)["lr_low"].evidence


def test_gradients_that_are_mostly_zero_have_nothing_to_clip() -> None:
    norms = {"grad_norm": lambda step: 3.0 if step % 10 == 0 else 0.0}
    assert "never_clipped" not in found(steps_of(**norms), SOUND, grad_clip=100)


def test_what_is_proposed_at_the_edge_of_what_is_allowed_can_be_run() -> None:
    """`found` proves it for every run."""
    tied = {"no_signal": ramp(0.9, 0.9), "reward": ramp(0.06, 0.06)}
    largest = found(steps_of(**tied), SOUND[:1], group_size=600, batch=600, buffer=600)
    assert largest["all_wrong"].changes["group_size"] == 1024
    by_heart = steps_of(reward=ramp(0.4, 0.85), epoch=lambda step: step / 4)
    best_at_5 = [evaluated(0, 0.2), evaluated(5, 0.6), evaluated(STEPS, 0.25)]
    assert found(by_heart, best_at_5)["overfitting"].pasted == "--steps 5"
    assert found(by_heart, best_at_5, warmup=10)["overfitting"].pasted == "--patience 2"


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
