"""What may be wrong with what comes of a run: learned by heart, earned by wrong answers, or no longer growing."""

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np

from rewards import Mark, verify
from rl.evaluate.result import EvalResult
from rl.observe.course import Course
from rl.observe.findings import (
    ENOUGH,
    FEW_TOLERANCE,
    SPAN,
    Finding,
    Subject,
    compared,
    has_telling,
    interval,
    is_lora,
    is_still,
    moved,
    progress,
    rounded,
)
from rl.observe.readings import RECENT
from rl.observe.rules_of_learning import loss_rise, lr_low

SMALL_RANK = 4
SATURATED = 0.9
"""Reward above which there is little left to gain."""
EXAMPLES = 5


def overfitting(s: Subject) -> Finding | None:
    """What is trained on gets better, and what is held out gets worse, or stays far behind."""
    return _overfit_by_loss(s) or _overfit_by_reward(s)


def reward_hacking(s: Subject) -> Finding | None:
    """The reward rises, and what it pays for is not right by our verifier."""
    results, reward = s.evaluations(), s.course("reward")
    if not s.has_own_reward or reward is None or len(results) < 2:
        return None
    judged = [found for result in (results[0], results[-1]) if (found := _judged(result)) is not None]
    if len(judged) < 2:
        return None
    (first, paid_first), (last, paid) = judged
    truth, rewarded = compared(first, last), compared(results[0], results[-1])
    if truth is None or truth.pass_at_1 is None or rewarded is None or rewarded.pass_at_1 is None:
        return None
    up = reward.change().low > 0 or rewarded.pass_at_1.low > 0
    marks = [mark for question in results[-1].questions for mark in question.marks]
    share = len(paid) / max(1, marks.count(Mark.RIGHT))
    grew = len(paid) > 1.5 * len(paid_first) or truth.pass_at_1.high < 0
    if not up or share < 0.2 or truth.pass_at_1.low > 0 or not grew:
        return None
    examples = list(dict.fromkeys(paid))[:EXAMPLES]
    shown = ", ".join(f"{text!r} for {gold}" for text, gold in examples)
    change = truth.pass_at_1
    return Finding(
        rule="reward_hacking",
        what="the reward is earned by wrong answers",
        evidence=f"the reward rose by {reward.change().value:+.2f}, while what rewards:verify calls right changed by "
        f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}] on the held-out problems; {share:.0%} of what is "
        f"paid is wrong: {shown}",
        cure="mark by the verifier, or mend the reward",
        changes={"reward": "rewards:verify"},
        data={"paid_and_wrong": share, "verified_change": change.value, "examples": list(map(list, examples))},
    )


def plateau(s: Subject) -> Finding | None:
    """Nothing more is gained, and there is something left to gain; of a loss, nothing was gained at all."""
    course = progress(s)
    still = _still_part(course) if course is not None else None
    if course is None or still is None:
        return None
    rate = s.number("lr")
    return Finding(
        rule="plateau",
        what="it has stopped getting better",
        evidence=moved(still),
        cure="try a higher rate (--lr), or other problems",
        changes={"lr": rounded(2 * rate)} if rate and rate > 0 else {},
        data={"metric": course.name, "from_step": int(still.steps[0])},
    )


def rank_small(s: Subject) -> Finding | None:
    """It has stopped getting better at a rate that learns, with an adapter of very few dimensions."""
    rank, lr, stopped = s.number("lora_rank"), s.number("lr"), plateau(s)
    small = SMALL_RANK if s.run.ours else 2 * SMALL_RANK
    if stopped is None or rank is None or not 1 <= rank <= small or not is_lora(s) or (s.run.ours and lr_low(s)):
        return None
    alpha = s.number("lora_alpha")
    return Finding(
        rule="rank_small",
        what="the rank may be too small",
        evidence=f"{stopped.evidence}; the adapter has rank {rank:g}",
        cure="try twice the rank and alpha, which keeps the adapter's scale",
        changes={"lora_rank": int(2 * rank), **({"lora_alpha": 2 * alpha} if alpha and alpha > 0 else {})},
        data={"lora_rank": rank, "lr": lr},
    )


def no_evaluation(s: Subject) -> Finding | None:
    """It is over, and nobody has looked at what it made."""
    if not s.run.ours or not s.over or s.run.evaluations or s.setting("replay") is not None:
        return None
    return Finding(
        rule="no_evaluation",
        what="it was never evaluated",
        evidence=f"{s.run.last_step} steps are made, and there is no evaluation",
        cure="evaluate it",
        command=f"python -m rl.eval {s.run.path}",
    )


def _still_part(course: Course) -> Course | None:
    """The whole of a loss that hardly moved; of a reward the second half, where that gains no more, and is not yet near
    the most there is."""
    if course.name.endswith("loss"):
        return course if is_still(course) else None
    half = len(course) // 2
    before, since = course.part(0, half), course.part(half)
    if len(course) < SPAN or since.mean > SATURATED:
        return None
    gain = since.change()
    return since if gain.high <= max(0.03, before.change().value / 4) and gain.low >= -0.1 else None


def _overfit_by_loss(s: Subject) -> Finding | None:
    train, val = s.course("train loss"), s.course("val loss")
    if s.run.ours or train is None or val is None:
        return None
    best = int(np.argmin(val.values))
    train = train.part(int(np.searchsorted(train.steps, val.steps[best])))
    rise = float(val.values[-1] / val.values[best] - 1) if val.values[best] > 0 else 0.0
    if rise < FEW_TOLERANCE or not _stays_up(s, val, best) or train.change().high >= 0:
        return None
    evidence = (
        f"{val.name} rose from {val.values[best]:.4g} at step {val.steps[best]} to {val.values[-1]:.4g} at step "
        f"{val.steps[-1]}, while {train.name} fell from {train.values[0]:.4g} to {train.values[-1]:.4g}"
    )
    return _overfitted(s, evidence, {"best_step": int(val.steps[best]), "rise": rise}, int(val.steps[best]))


def _stays_up(s: Subject, val: Course, best: int) -> bool:
    """Whether a loss rose from its best, and is up at the end; of a few points, whether each is above the last."""
    if not has_telling(val) and len(val) - best > 2 and bool(np.all(np.diff(val.values[best:]) > 0)):
        return True
    rose = loss_rise(s, val)
    return rose is not None and not rose.recovered


def _overfit_by_reward(s: Subject) -> Finding | None:
    reward, epoch, results = s.course("reward"), s.course("epoch"), s.evaluations()
    if reward is None or epoch is None or len(results) < 2 or len(reward) < ENOUGH or epoch.values[-1] < 2:
        return None
    if s.has_own_reward:
        return None  # it is paid for another thing than pass@1
    recent = reward.part(-RECENT)
    passed = [question.pass_at(1) for question in results[-1].questions]
    known = np.array([value for value in passed if value is not None])
    if len(known) < 2:
        return None
    gap = recent.mean - float(known.mean())
    error = math.sqrt(recent.noise**2 / len(recent) + float(known.var()) / len(known))
    worse = [compared(result, results[-1]) for result in results[:-1]]
    falls = [c.pass_at_1 for c in worse if c and c.pass_at_1 and c.pass_at_1.p_value * len(worse) < 0.05]
    fell = min((d for d in falls if d.value < 0), key=lambda d: d.value, default=None)
    rises = reward.change().low > 0
    if gap < 4 * error or not (fell or (rises and gap > 0.15)):  # what is learned at once rises in no later step
        return None
    evidence = (
        f"after {epoch.values[-1]:.3g} passes over its problems the reward is {recent.mean:.2f}, "
        f"held-out pass@1 {known.mean():.2f}" + (f", {interval(fell)} from its best" if fell else "")
    )
    best = max(results, key=lambda result: np.mean([question.pass_at(1) or 0.0 for question in result.questions]))
    return _overfitted(s, evidence, {"gap": gap, "passes": float(epoch.values[-1])}, best.step)


def _overfitted(s: Subject, evidence: str, data: dict[str, float], best_step: int) -> Finding:
    warmup = s.number("warmup") or 0.0  # no run is shorter
    return Finding(
        rule="overfitting",
        what="it learns its problems by heart",
        evidence=evidence,
        cure="train on more problems, or end by the held-out ones",
        changes={"steps": best_step} if best_step > warmup else {"patience": 2},
        data=data,
    )


@lru_cache(maxsize=2**15)
def _mark(text: str, gold: str) -> Mark:
    """The verifier's; kept, as the rules look at the same evaluations again and again while a run goes on."""
    return verify(text, gold).mark


def _judged(result: EvalResult) -> tuple[EvalResult, list[tuple[str, str]]] | None:
    """(the evaluation with the verifier's own marks, (completion, gold) of what is paid and wrong); None where its
    golds are none for the verifier."""
    questions, wrong = [], []
    for question in result.questions:
        marks = [_mark(text, question.gold) for text in question.completions]
        questions.append(replace(question, marks=marks, rules=[], compared=[], verify_seconds=[]))
        both = zip(question.completions, question.marks, marks, strict=True)
        wrong += [(text, question.gold) for text, paid, mark in both if paid is Mark.RIGHT and mark is Mark.WRONG]
    marked = replace(result, questions=questions)
    return (marked, wrong) if not marked.missing else None
