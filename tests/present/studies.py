"""Runs as they could have been, made by hand: each question has a chance, which training moves."""

import math
import random
from collections.abc import Callable
from pathlib import Path

from rewards.verdict import Mark
from rl.core.rundir import RunDir
from rl.evaluate.result import EvalResult, QuestionResult
from tests.observe.recorded import log_evaluation, new_run, step_record
from tests.results import eval_result

QUESTIONS, SAMPLES, STEPS, EVERY = 48, 4, 40, 10


def recorded_run(
    root: Path, *flags: str, gain: float = 1.0, batch: int = 16, minutes: float = 2.0, text: Callable[[int], str] = str
) -> RunDir:
    """
    Args:
        gain: of the log-odds of each question, at the end.
        minutes: of training.
        text: a question's number → what the model writes to it.
    """
    sizes = ["--batch", str(batch), "--buffer", str(batch), "--steps", str(STEPS), "--eval-every", str(EVERY)]
    run = new_run(root, *sizes, "--eval-samples", str(SAMPLES), *flags)
    chance = random.Random(str(root.name))
    for step in range(STEPS + 1):
        share = step / STEPS
        if step:
            noise = chance.gauss(0, 0.05)
            cost = {"samples": batch * step, "tokens": 12 * batch, "step_s": 60 * minutes / STEPS}
            changed = {"reward": 0.3 + 0.3 * gain * share + noise, "loss": noise / 10, "grad_norm": 0.6 + 4 * noise**2}
            run.log(**step_record(step, **cost, **changed))
        if step % EVERY == 0:
            log_evaluation(run, evaluated(step, gain * share, chance, text))
    return run


def evaluated(step: int, gain: float, chance: random.Random, text: Callable[[int], str] = str) -> EvalResult:
    questions = []
    for number in range(QUESTIONS):
        odds = 4 * (number / QUESTIONS - 0.6) + gain
        right = [chance.random() < 1 / (1 + math.exp(-odds)) for _ in range(SAMPLES)]
        questions.append(
            QuestionResult(
                problem_id=f"id-{number}",
                problem=f"{number}+1",
                gold=str(number + 1),
                completions=[text(number) for _ in right],
                answers=[str(number + 1) if r else None for r in right],
                marks=[Mark.RIGHT if r else Mark.WRONG for r in right],
                reasons=["by hand"] * SAMPLES,
            )
        )
    return eval_result(questions, step=step, n=SAMPLES)
