"""A run directory as a run leaves it, made by the code that runs make theirs with; no model is needed."""

from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from rewards.verdict import Mark, Verdict
from rl.buffer.ledger import Buffer
from rl.core import cli
from rl.core.rundir import RunDir
from rl.core.types import Group, Problem, Rollout, Sample
from rl.evaluate.result import EvalResult, QuestionResult, summary_json
from tests.results import eval_result

QUIET_STEP = {
    **{"epoch": 0.5, "coverage": 0.25, "samples": 4, "tokens": 100, "reward": 0.6, "reward_trained": 0.5},
    **{"loss": 0.0, "grad_norm": 0.5, "lr": 5e-4, "ratio": 1.0, "clipped_low": 0.01, "clipped_high": 0.005, "kl": 0.0},
    "entropy": 0.4,
    **{"no_signal": 0.25, "unverified": 0, "errors": 0, "length": 18.24, "truncated": 0.031, "staleness_mean": 3.25},
    **{"staleness_max": 4, "ess": 0.9, "mismatch_kl": 2e-13, "wait_s": 0.1, "train_s": 0.3, "publish_s": 0.1},
    "step_s": 0.5,
    "by_age": {
        "3": {"tokens": 75, "mismatch_kl": 2e-5, "ess": 0.94, "clipped": 0.01},
        "4": {"tokens": 25, "mismatch_kl": 4e-5, "ess": 0.85, "clipped": 0.03},
    },
}
"""A step in which nothing looks wrong."""


def new_run(root: Path, *flags: str) -> RunDir:
    parser = cli.Parser()
    cli.add_config_flags(parser)
    run = RunDir(root)
    run.create(cli.resolve(parser.parse_args(["--group-size", "2", "--batch", "4", "--buffer", "8", *flags])))
    return run


def step_record(step: int, **changes: Any) -> dict[str, Any]:
    return {"kind": "step", "step": step, **QUIET_STEP, **changes}


def log_evaluation(run: RunDir, result: EvalResult) -> None:
    result.save(run.eval_file(result.set, result.step))
    record = {"adapter_sha256": result.adapter_sha256, "summary": summary_json(result), "seconds": result.seconds}
    run.log(kind="eval", set=result.set, step=result.step, **record)


def evaluation(step: int, right: dict[str, int], *, n: int = 4, set: str = "heldout") -> EvalResult:
    """`right` says for each problem (by its text) how many of n samples are right."""
    questions = [
        QuestionResult(
            problem_id=f"id-{text}",
            problem=text,
            gold="7",
            completions=[rf"so \boxed{{7}} at {step}"] * k + [f"lost at {step}"] * (n - k),
            answers=["7"] * k + [None] * (n - k),
            marks=[Mark.RIGHT] * k + [Mark.WRONG] * (n - k),
            reasons=["same text"] * k + ["no answer found"] * (n - k),
        )
        for text, k in right.items()
    ]
    return eval_result(questions, step=step, n=n, set=set)


def fill_ledger(run: RunDir, texts: Sequence[tuple[str, str]], *, problem: str = "3+4") -> None:
    """One group for each pair of completions; the first of a pair is right, the second wrong; two groups a step."""
    config = run.config()
    with closing(Buffer(run.buffer_url, capacity=config.buffer, group_size=config.group_size)) as buffer:
        a_step, pairs = config.batch // config.group_size, iter(texts)
        for step in range(len(texts) // a_step):
            buffer.proved("p", step, "ab")
            buffer.issue()
            for id, pair in zip(buffer.unfinished(), islice(pairs, a_step), strict=False):
                buffer.put(_group(id, pair, problem=f"{problem} ({id})", version=step))
            leased = buffer.lease(a_step, policy_version=step, max_staleness=0)
            buffer.trained([group.id for group in leased])


def _group(id: int, texts: Sequence[str], *, problem: str, version: int) -> Group:
    samples = [
        Sample(
            rollout=Rollout(
                token_ids=[5, 6, 1],
                sampler_logprobs=[-0.5, -0.25, -0.125],
                policy_version=version,
                finish_reason="stop",
                text=text,
            ),
            verdict=Verdict(mark=mark, reason=f"{mark.value} by hand", answer=text[-9:], gold="7"),
        )
        for text, mark in zip(texts, (Mark.RIGHT, Mark.WRONG), strict=True)
    ]
    problem_ = Problem(id=f"id-{id}", text=problem, gold="7")
    return Group(id=id, problem=problem_, prompt_ids=[3, 4], policy="p", adapter_sha256="ab", samples=samples)
