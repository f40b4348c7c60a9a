"""What may be wrong with what a run learns from: its samples, their marks, and whether anybody looks at the result."""

from typing import Any

from rewards.verdict import TRUNCATED
from rl.core.config import HELDOUT
from rl.evaluate.result import EvalResult
from rl.evaluate.stats import Difference, paired_difference
from rl.observe.findings import FEW_GROUPS, TIED, Finding, Subject, clipped, compared, tied_share
from rl.observe.readings import RECENT

TIED_UNUSUALLY = 0.4
"""The same, where an unusual temperature is there to be blamed."""
RIGHT = 0.7
"""Mean reward of groups without signal above which they are right for the most part; below 1 − this they are wrong."""
CUT = 0.2
LONGEST = 2**20
"""More tokens than a model's context has: what a log says beyond is no limit to be doubled."""
COLD, HOT = 0.5, 1.3
"""Temperatures outside which they are what is tried first."""
UNMARKED = 0.02
LARGEST_GROUP = 1024
"""What `TrainConfig` takes."""
COLLAPSED = 0.2
"""Share of its first entropy that a collapsed policy has left."""


def tied(s: Subject) -> Finding | None:
    """Most groups have one reward throughout, so there is nothing to compare: they are too easy, too hard, or small."""
    (share, reward), temperature = tied_share(s), s.number("temperature")
    is_usual = temperature is None or COLD <= temperature <= HOT
    if share is None or share < (TIED if is_usual else TIED_UNUSUALLY):
        return None
    if reward is not None and reward > RIGHT:
        rule, what = "all_right", "most groups are all right"
        cure, changes = "train on harder problems (--problems), or pay less", {}
    elif reward is not None and reward < 1 - RIGHT:
        rule, what = "all_wrong", "most groups are all wrong"
        cure, changes = "ask more often, train on easier problems (--problems), or mend the golds", _larger_groups(s)
    else:
        rule, what = "ties", "most groups are tied"
        cure, changes = "compare more completions of each problem (--group-size)", _larger_groups(s)
    if not is_usual:
        cure, changes = "sample as the model was trained to speak", {"temperature": 1}
    stated = f"; their mean reward is {reward:.2f}" if reward is not None else ""
    return Finding(
        rule=rule,
        what=what,
        evidence=f"{share:.0%} of the groups have no signal{stated}"
        + ("" if is_usual else f"; they are sampled at temperature {temperature:g}"),
        cure=cure,
        changes=changes,
        command=f"python -m rl.show {s.run.path} --set {HELDOUT} --worst" if s.run.ours else "",
        data={"no_signal": share, "tied_reward": reward},
    )


def truncation(s: Subject) -> Finding | None:
    """Completions end at the limit, most of them before an answer."""
    limit, (share, of) = s.number("max_tokens"), _cut(s)
    if share <= CUT:
        return None
    return Finding(
        rule="truncation",
        what="completions are cut off",
        evidence=f"{share:.0%} of {of} end at the limit" + (f" of {limit:g} tokens" if limit else ""),
        cure="let them be longer" + ("" if limit else " (--max-tokens)"),
        changes={"max_tokens": 2 * int(limit)} if limit and 1 <= limit <= LONGEST else {},
        data={"truncated": share, "max_tokens": limit},
    )


def entropy_collapse(s: Subject) -> Finding | None:
    """The policy says one thing only, and what it does not try it cannot learn."""
    entropy, share = s.course("entropy"), s.recent("no_signal")
    if entropy is None or len(entropy) < 2 * RECENT:
        return None
    first, last = entropy.part(0, 5).mean, entropy.part(-RECENT).mean
    fewer = _pass_at_most(s)
    is_poorer = fewer is not None and fewer.high < 0
    if last > COLLAPSED * first or not ((share or 0.0) > 0.5 or is_poorer):
        return None
    evidence = f"entropy fell from {first:.3g} to {last:.3g} nats a token"
    evidence += f", {share:.0%} of the groups have no signal" if share else ""
    return Finding(
        rule="entropy_collapse",
        what="the policy has lost its variety",
        evidence=evidence,
        cure="let the clip leave unlikely tokens more room, and stay near the base",
        changes={"clip_high": 0.28, "kl_coef": 0.01},
        data={"first": first, "last": last, "no_signal": share},
    )


def stale(s: Subject) -> Finding | None:
    """Samples are so old that they no longer speak of the policy that learns from them."""
    age, ess = s.recent("staleness_mean"), s.course("ess")
    course = clipped(s)
    clip = course.part(-RECENT).mean if course else 0.0
    if age is None or ess is None or age < 1 or len(ess) < 5:
        return None
    left = ess.part(-RECENT).mean
    if left > 0.5 and clip < 0.1:
        return None
    config = s.config
    changes = {"buffer": max(config.batch, config.buffer // 4 // config.batch * config.batch)} if config else {}
    return Finding(
        rule="stale",
        what="the samples are stale",
        evidence=f"they are {age:.1f} steps old, their effective sample size is {left:.0%}, {clip:.1%} are clipped",
        cure="hold fewer samples, or move less in a step",
        changes=changes,
        data={"staleness": age, "ess": left, "clipped": clip},
    )


def mismatch(s: Subject) -> Finding | None:
    """Sampler and learner compute different numbers for the same policy."""
    kl = s.recent("mismatch_kl")
    if kl is None or kl <= 1e-3:
        return None
    return Finding(
        rule="mismatch",
        what="sampler and learner compute different numbers",
        evidence=f"a KL of {kl:.0e} nats a token at the same version",
        cure="compute both in full, and see logs/server.log",
        changes={"dtype": "float32"},
        data={"mismatch_kl": kl},
    )


def verifier_errors(s: Subject) -> Finding | None:
    """The verifier cannot mark what it is given, and those samples are lost."""
    errors, unverified, config = s.course("errors"), s.course("unverified"), s.config
    if config is None:
        return None
    share = errors.mean / config.batch if errors else 0.0
    counts = s.groups.counts if s.groups else {}
    groups = max(counts.get("unverified", 0), unverified.values.sum() if unverified else 0)
    of = max(sum(counts.values()), len(errors or ()) * config.batch / config.group_size, FEW_GROUPS)
    if share <= UNMARKED and groups / of <= UNMARKED:
        return None
    return Finding(
        rule="verifier_errors",
        what="the verifier fails",
        evidence=f"{share:.1%} of the samples and {groups:.0f} whole groups could not be marked",
        cure="see why",
        command=f"python -m rl.show {s.run.path} --mark error",
        data={"errors": share, "groups": float(groups)},
    )


def starved(s: Subject) -> Finding | None:
    """The learner waits for samples nearly all the time."""
    wait, step = s.recent("wait_s"), s.recent("step_s")
    config = s.config
    if wait is None or not step or wait / step < 0.85 or config is None:
        return None
    return Finding(
        rule="starved",
        what="the learner waits for samples",
        evidence=f"{wait / step:.0%} of the time of the last steps",
        cure="sample on more servers" if config.staleness_bound else "sample while it learns",
        changes={"servers": 2 * config.servers} if config.staleness_bound else {"buffer": 2 * config.batch},
        data={"wait": wait / step},
    )


def _cut(s: Subject) -> tuple[float, str]:
    """(share of completions that were cut, of which): lately; or, where hardly any group teaches now, at the start:
    those that were left may be what little fits."""
    evaluations, course = s.evaluations(), s.course("truncated")
    shares = [(s.recent("truncated") or 0.0, "the completions trained on lately")]
    shares += [(_cut_in(result), "those of the newest evaluation") for result in evaluations[-1:]]
    if (tied_share(s)[0] or 0.0) >= TIED:
        shares += [(_cut_in(result), "those of the first evaluation") for result in evaluations[:1]]
        shares += [(course.part(0, RECENT).mean, "the first completions trained on")] if course else []
    return next(((share, of) for share, of in shares if share > CUT), shares[0])


def _cut_in(result: EvalResult) -> float:
    """The share of an evaluation's completions that were cut before an answer."""
    reasons = [reason for question in result.questions for reason in question.reasons]
    return reasons.count(TRUNCATED) / max(1, len(reasons))


def _larger_groups(s: Subject) -> dict[str, Any]:
    """Twice the completions of a problem, with the batch and the buffer that hold as many groups as before."""
    config = s.config
    if config is None:
        return {}
    size = min(max(8, 2 * config.group_size), LARGEST_GROUP)
    batch = max(config.batch, size) // size * size
    changes = {"group_size": size, "batch": batch, "buffer": max(batch, config.buffer // size * size)}
    return {name: value for name, value in changes.items() if value != getattr(config, name)}


def _pass_at_most(s: Subject) -> Difference | None:
    """The change of pass@k at the largest k, from the first to the last evaluation: what the policy can do at all."""
    results = s.evaluations()
    if len(results) < 2 or compared(results[0], results[-1]) is None:
        return None
    k = results[0].samples_per_problem
    before, after = (
        {question.problem_id: passed for question in result.questions if (passed := question.pass_at(k)) is not None}
        for result in (results[0], results[-1])
    )
    both = [problem_id for problem_id in before if problem_id in after]
    return paired_difference({q: before[q] for q in both}, {q: after[q] for q in both}) if both else None
