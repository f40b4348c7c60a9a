"""What may be wrong with how a run learns: its rate, its gradient, and what comes of them."""

import math

import numpy as np

from rl.core.config import FULL_FINE_TUNING_LR
from rl.observe.course import FEWEST, SURE, TELLING, Course, Fall
from rl.observe.findings import (
    ALIASES,
    ENOUGH,
    FEW_TOLERANCE,
    TIED,
    Finding,
    Subject,
    clipped,
    has_telling,
    heldout_change,
    interval,
    is_lora,
    is_still,
    moved,
    progress,
    rounded,
    tied_share,
)
from rl.study.runs import Status

TOO_HIGH = 3.0
"""Times the usual rate, beyond which trouble is put down to the rate."""
STRIDE = 5
"""Steps that a moment is taken over: one step may be odd."""
EARLY_CLIP = 0.2
"""Share of tokens; a tenth is clipped in the first steps of runs that learn well."""
ALWAYS = 0.95
"""Share of the steps that counts as always."""
FAR_ABOVE = 10.0
"""Times the clip, or the median: the norms of sound runs are within it."""


def non_finite(s: Subject) -> Finding | None:
    """A loss, a norm or anything else that is no number."""
    first = [
        (step, name, value)
        for name, curve in s.run.curves.items()
        for step, value in curve.measured
        if not math.isfinite(value)
    ][:1]
    for name, final in s.run.finals.items():
        if final is not None and not math.isfinite(final):
            first = first or [(-1, name, final)]
    if not first and s.run.status is not Status.DIVERGED:
        return None
    evidence, data = s.run.why or "training ended as a gradient was not finite", {}
    if first:
        ((step, name, value),) = first
        evidence = f"{name} is {value}" + (f" at step {step}" if step >= 0 else " at the end")
        data = {"metric": name, "step": step if step >= 0 else None, "value": str(value)}
    return Finding(
        rule="non_finite",
        what="something is not finite",
        evidence=evidence,
        cure="take smaller steps",
        changes={**_lower_rate(s), "warmup": 0.05},
        data=data,
    )


def lr_high(s: Subject) -> Finding | None:
    """The policy moves so far in a step that samples no longer speak of it, or its reward falls."""
    lr = s.number("lr")
    signs, data = _too_fast(s)
    if not signs or lr is None or lr <= TOO_HIGH * s.usual_lr:
        return None
    usual = f"{lr / s.usual_lr:.3g} times what {s.setting('model') or 'a model'} usually learns at"
    return Finding(
        rule="lr_high",
        what="the learning rate is too high",
        evidence=f"at lr {lr:g}, {usual}, {' and '.join(signs)}",
        cure="try a lower rate",
        changes=_lower_rate(s),
        data={"lr": lr, "usual_lr": s.usual_lr, **data},
    )


def lr_low(s: Subject) -> Finding | None:
    """The reward stays where it was, at a rate of full fine-tuning."""
    lr, course = s.number("lr"), progress(s)
    if lr is None or course is None or not 0 < lr <= FULL_FINE_TUNING_LR or not is_lora(s):
        return None
    gain = course.change()
    ess, change = _stale_ess(s), heldout_change(s)
    grows = gain.low > 0 or (change is not None and change.low > 0)
    if not (is_still(course) if course.name.endswith("loss") else len(course) >= ENOUGH and not grows):
        return None
    held_out = f"; held-out pass@1 {interval(change)}" if change else ""
    held_out += f"; stale samples have an effective size of {ess:.2%}" if ess is not None else ""
    return Finding(
        rule="lr_low",
        what="the learning rate is too low for LoRA",
        evidence=f"at lr {lr:g}, {moved(course)}{held_out}",
        cure="try the rate that LoRA is trained at",
        changes={"lr": max(s.usual_lr, 10 * lr) if s.run.ours else 10 * lr},
        data={"lr": lr, "change": gain.value, "heldout_change": change.value if change else None},
    )


def divergence(s: Subject) -> Finding | None:
    """The reward fell, or a loss rose, and did not come back."""
    return _fallen(s, back=False)


def instability(s: Subject) -> Finding | None:
    """The reward fell, or a loss rose, and came back."""
    return _fallen(s, back=True)


def no_warmup(s: Subject) -> Finding | None:
    """The first updates were too large for what comes later to be learned in peace."""
    clip, ess = clipped(s), s.course("ess")
    if clip is None or ess is None or len(clip) < ENOUGH or s.setting("warmup"):
        return None
    first = max(STRIDE, len(clip) // 5)
    early, late = clip.part(1, first).mean, clip.part(len(clip) // 2).mean
    if early < EARLY_CLIP or late > early / 3:
        return None
    return Finding(
        rule="no_warmup",
        what="the first updates are too large",
        evidence=f"{early:.0%} of the tokens were clipped in steps 2 to {first}, {late:.1%} in the second half",
        cure="let the rate rise from zero",
        changes={"warmup": first if s.run.ours else 0.05},
        data={"clipped_early": early, "clipped_late": late},
    )


def warmup_ignored(s: Subject) -> Finding | None:
    """A warm-up is configured, and the rate did not rise."""
    warmup, lr, peak = s.number("warmup"), s.course("lr"), s.number("lr")
    if lr is None or not peak or not warmup:
        return None
    steps = warmup if warmup >= 1 else warmup * (s.number("steps") or 0)
    if lr.steps[0] >= steps / 2 or lr.values[0] < 0.9 * peak:
        return None
    return Finding(
        rule="warmup_ignored",
        what="the rate does not warm up",
        evidence=f"it is {lr.values[0]:.3g} at step {lr.steps[0]}, and {steps:g} steps of warm-up to {peak:g} are set",
        cure="have the scheduler step, and set the warm-up",
        changes={"warmup": warmup} if s.run.ours or warmup < 1 else {},  # another tool's steps may not be known
        data={"lr": float(lr.values[0]), "warmup": warmup},
    )


def always_clipped(s: Subject) -> Finding | None:
    """Each gradient is cut to a small part of itself: the clip, and no more the gradient, says how long a step is."""
    norms, clip = s.course("grad_norm"), s.number("grad_clip")
    if norms is None or not clip or len(norms) < ENOUGH:
        return None
    share, median = float(np.mean(norms.values > clip)), float(np.median(norms.values))
    if share < ALWAYS or median < FAR_ABOVE * clip:
        return None
    return Finding(
        rule="always_clipped",
        what="the gradient is always clipped",
        evidence=f"in {share:.0%} of the steps, to {clip:g} from a median norm of {median:.3g}",
        cure="clip what stands out alone",
        changes={"grad_clip": rounded(2 * median)},
        data={"share": share, "median_norm": median, "grad_clip": clip},
    )


def never_clipped(s: Subject) -> Finding | None:
    """Gradients stand out by far, and the clip lets them pass; where most are zero there is nothing to stand out of."""
    norms, clip = s.course("grad_norm"), s.number("grad_clip")
    if norms is None or not clip or len(norms) < ENOUGH:
        return None
    median, largest = float(np.median(norms.values)), float(norms.values.max())
    spikes = int(np.sum(norms.values > FAR_ABOVE * median))
    if not spikes or largest > clip or median <= 0:
        return None
    return Finding(
        rule="never_clipped",
        what="the gradient is never clipped, though it stands out",
        evidence=f"norms up to {largest:.3g}, {spikes} of them over {FAR_ABOVE:g} times the median of {median:.3g}; "
        f"the clip is {clip:g}",
        cure="clip what stands out",
        changes={"grad_clip": rounded(2 * median)},
        data={"spikes": spikes, "median_norm": median, "largest_norm": largest, "grad_clip": clip},
    )


def _too_fast(s: Subject) -> tuple[list[str], dict[str, float]]:
    """Signs that the policy moves too fast, in words and as numbers."""
    signs, data = [], {}
    clip, ess = clipped(s), s.course("ess")
    if ess is not None and len(ess) >= STRIDE and (least := float(ess.smooth(STRIDE).min())) < 0.5:
        signs.append(f"the effective sample size fell to {least:.0%} of the tokens")
        data["ess"] = least
    if clip is not None and len(clip) >= STRIDE and (most := float(clip.smooth(STRIDE).max())) > 0.1:
        signs.append(f"up to {most:.0%} of the tokens were clipped")
        data["clipped"] = most
    if (fall := _reward_fall(s)) is not None:
        signs.append(f"the reward fell from {fall.top:.2f} to {fall.bottom:.2f} by step {fall.bottom_step}")
        data["reward_fall"] = fall.depth
    if (change := heldout_change(s)) is not None and change.high < 0:
        signs.append(f"held-out pass@1 {interval(change)}")
        data["heldout_change"] = change.value
    if not signs and (collapse := _collapse(s)) is not None:
        data["base"], data["tied_reward"] = base, reward = collapse
        signs.append(f"pass@1 of the base was {base:.2f}, and the mean reward of the tied groups since is {reward:.2f}")
    return signs, data


def _collapse(s: Subject) -> tuple[float, float] | None:
    """(pass@1 of the base, mean reward of the groups without signal) where most groups are tied, and right far less
    often than the base was: a policy that collapsed in its first steps makes no more, and leaves no curve."""
    share, reward = tied_share(s)
    if share is None or share < TIED or reward is None or not (asked := s.evaluations()):
        return None
    known = [value for question in asked[0].questions if (value := question.pass_at(1)) is not None]
    base = sum(known) / len(known) if known and asked[0].step == 0 else 0.0
    return (base, reward) if base > 0.1 and reward < base / 3 else None


def _fallen(s: Subject, *, back: bool) -> Finding | None:
    fall, name = _reward_fall(s), "the reward"
    if fall is None:
        for loss in ("val loss", "train loss") if not s.run.ours else ():
            course = s.course(loss)
            if course is not None and (fall := loss_rise(s, course)) is not None:
                name = f"the {course.name.replace('_', ' ')}"
                break
    if fall is None or fall.recovered != back:
        return None
    sign = -1 if name != "the reward" else 1
    way = f"{name} went from {sign * fall.top:.3g} at step {fall.top_step} to {sign * fall.bottom:.3g} at step"
    evidence = f"{way} {fall.bottom_step}, and is {sign * fall.last:.3g} at the end"
    return Finding(
        rule="instability" if back else "divergence",
        what="it is unstable: it got worse, and came back" if back else "it diverged: it got worse, and stayed so",
        evidence=evidence,
        cure="take smaller steps (--lr, --warmup)",
        changes=_lower_rate(s) | ({} if s.setting("warmup") else {"warmup": 0.05}),
        data={"metric": name, "from": sign * fall.top, "to": sign * fall.bottom, "last": sign * fall.last},
    )


def _reward_fall(s: Subject) -> Fall | None:
    course = s.course("reward")
    fall = course.fall() if course is not None and len(course) >= FEWEST else None
    deep = fall is not None and fall.errors > SURE and fall.depth > max(0.1, abs(fall.top) / 4)
    return fall if deep else None


def loss_rise(s: Subject, loss: Course) -> Fall | None:
    """The highest rise of a loss, if it is more than noise. As far as that cannot be told a rise by half counts; and a
    few evaluations, with no other loss near that tells of it, are believed where they rise by more than they fell."""
    n, up = len(loss), loss.negative()
    rise = up.fall(least_window=1)
    if rise is None or rise.depth <= FEW_TOLERANCE * abs(up.values[0]):
        return None
    beyond_noise = n >= TELLING and rise.errors > SURE
    by_half = n < FEWEST and rise.depth > abs(rise.top) / 2
    alone = not has_telling(loss) and not has_telling(s.course("train loss")) and loss.name in ALIASES["val loss"]
    return rise if beyond_noise or by_half or (alone and rise.depth > up.values.max() - up.values[0]) else None


def _stale_ess(s: Subject) -> float | None:
    """The effective sample size of the last steps; None where they were on-policy."""
    age, ess = s.recent("staleness_mean"), s.recent("ess")
    return ess if age is not None and age >= 1 else None


def _lower_rate(s: Subject) -> dict[str, float]:
    """Nothing where the rate is not known, or is one that LoRA hardly moves at."""
    lr = s.number("lr")
    if not lr or (lr <= FULL_FINE_TUNING_LR and is_lora(s)):
        return {}
    lower = s.usual_lr if s.run.ours and lr > TOO_HIGH * s.usual_lr else rounded(lr / 3)
    return {"lr": lower} if lower > 0 else {}
