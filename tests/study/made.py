"""Studies made in memory: runs with evaluations of a known pass@1, and the tables of other tools."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rewards.verdict import Mark
from rl.core.config import TrainConfig
from rl.evaluate.result import QuestionResult
from rl.study.runs import Curve, Evaluated, Status, StudyRun
from tests.results import eval_result

SAMPLES = 8


def made_run(
    name: str,
    pass_at_1: Mapping[int, float],
    *,
    questions: int = 256,
    status: Status = Status.DONE,
    why: str = "",
    set: str = "heldout",
    problems: str = "ab" * 32,
    curves: Mapping[str, Sequence[float | None]] | None = None,
    chance: int = 0,
    **settings: Any,
) -> StudyRun:
    """A run whose questions are solved with probabilities around its pass@1 (step → the mean); easier ones more often.

    Args:
        chance: seeds what is sampled; the same in two runs makes their samples as alike as their pass@1.
    """
    every = min((step for step in pass_at_1 if step), default=20)
    config = TrainConfig(**{"steps": max(pass_at_1, default=0) or 60, "eval_every": every, **settings})
    evaluations = []
    for step, mean in pass_at_1.items():
        result = eval_result(_questions(mean, questions, chance + step), step=step, n=SAMPLES, set=set)
        result = replace(result, problems_sha256=problems)
        cost = {"samples": step * config.batch, "tokens": 100 * step, "seconds": float(step)}
        evaluations.append(Evaluated(result=result, **cost))
    made = range(1, max(pass_at_1, default=0) + 1)
    default = {"step_s": [1.0] * len(made), "grad_norm": [0.5] * len(made), "loss": [0.0] * len(made)}
    return StudyRun(
        name=name,
        path=Path("runs") / name,
        settings=config.model_dump(mode="json"),
        status=status,
        why=why,
        curves={
            metric: Curve(steps=list(range(1, len(values) + 1)), values=list(values))
            for metric, values in {**default, **(curves or {})}.items()
        },
        evaluations={set: evaluations} if evaluations else {},
    )


def foreign_run(
    name: str,
    curves: Mapping[str, Mapping[int, float | None]] | None = None,
    finals: Mapping[str, float | None] | None = None,
    *,
    why: str = "",
    **settings: Any,
) -> StudyRun:
    """A run of another tool's table."""
    return StudyRun(
        name=name,
        path=Path("table.csv"),
        settings=settings,
        why=why,
        curves={
            metric: Curve(steps=list(cells), values=list(cells.values())) for metric, cells in (curves or {}).items()
        },
        finals=dict(finals or {}),
        ours=False,
    )


def _questions(mean: float, n: int, chance: int) -> list[QuestionResult]:
    ease = np.random.default_rng(0).beta(1.0, 1.0, n)  # of each question in every run
    logits = np.log(ease / (1 - ease))
    low, high = -8.0, 8.0
    for _ in range(40):  # the shift that gives this mean
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(1 / (1 + np.exp(-logits - middle))) < mean else (low, middle)
    right = np.random.default_rng(chance).binomial(SAMPLES, 1 / (1 + np.exp(-logits - low)))
    return [
        QuestionResult(
            problem_id=f"q{i}",
            problem=f"{i}+0",
            gold=str(i),
            completions=["a"] * SAMPLES,
            answers=[str(i)] * k + ["x"] * (SAMPLES - k),
            marks=[Mark.RIGHT] * k + [Mark.WRONG] * (SAMPLES - k),
            reasons=["by hand"] * SAMPLES,
        )
        for i, k in enumerate(right.tolist())
    ]
