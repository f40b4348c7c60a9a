"""A run as large as they come: 10,000 steps, 1M samples, 201 evaluations; the rows that the service itself writes.

python -m tests.page.large DIR
"""

import json
import math
import random
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from rewards.verdict import Mark, Verdict
from rl.buffer import codec
from rl.buffer.ledger import Buffer
from rl.buffer.tables import State, commits, facts, groups, payloads, proofs
from rl.core.rundir import RunDir
from rl.core.types import Group, Problem, Rollout, Sample
from rl.evaluate.result import EvalResult, QuestionResult, summary_json
from tests.observe.recorded import new_run, step_record
from tests.results import eval_result

STEPS, SAMPLES = 10_000, 1_000_000
GROUP, BATCH, QUESTIONS, EVERY = 8, 64, 256, 50
AT_ONCE = 5_000
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def large_run(root: Path, *, steps: int = STEPS, samples: int = SAMPLES) -> RunDir:
    """Two groups in five teach nothing, so that there are more samples than the steps were trained on."""
    sizes = {"--group-size": GROUP, "--batch": BATCH, "--buffer": 4 * BATCH, "--steps": steps, "--eval-samples": 8}
    run = new_run(root, *(str(word) for pair in sizes.items() for word in pair))
    chance = random.Random(0)
    with run.metrics_file.open("w") as file:
        file.writelines(f"{json.dumps(record)}\n" for record in _records(run, steps, chance))
    with closing(Buffer(run.buffer_url, capacity=4 * BATCH, group_size=GROUP)):
        pass  # makes the tables
    _fill(run, steps, samples // GROUP, chance)
    return run


def _records(run: RunDir, steps: int, chance: random.Random) -> Iterator[dict[str, Any]]:
    for step in range(steps + 1):
        when = {"time": (BEGAN + timedelta(seconds=5 * step)).isoformat(timespec="milliseconds")}
        share = 1 - math.exp(-3 * step / steps)
        if step:
            spike = 40.0 if step == steps * 3 // 4 else chance.lognormvariate(-0.7, 0.3)
            values = {"reward": 0.2 + 0.6 * share + chance.gauss(0, 0.06), "grad_norm": spike, "lr": 2e-5}
            values |= {"entropy": 0.5 - 0.3 * share + chance.gauss(0, 0.02), "length": 200 + 80 * share}
            values |= {"wait_s": chance.expovariate(2), "step_s": 5.0, "mismatch_kl": chance.lognormvariate(-9, 0.5)}
            values |= {"tokens": 64 * 240, "samples": BATCH * step, "no_signal": 0.2 + 0.3 * share}
            yield {**when, **step_record(step, **values)}
        if step % EVERY == 0:
            result = _evaluation(step, share, chance)
            result.save(run.eval_file(result.set, step))
            known = {"set": result.set, "step": step, "adapter_sha256": result.adapter_sha256, "seconds": 60.0}
            yield {**when, "kind": "eval", **known, "summary": summary_json(result)}


def _evaluation(step: int, share: float, chance: random.Random) -> EvalResult:
    questions = []
    for number in range(QUESTIONS):
        odds = 4 * (number / QUESTIONS - 0.6) + 2 * share
        right = [chance.random() < 1 / (1 + math.exp(-odds)) for _ in range(8)]
        questions.append(
            QuestionResult(
                problem_id=f"id-{number}",
                problem=f"What is {number} + 1?",
                gold=str(number + 1),
                completions=[f"Adding 1 to {number}: \\boxed{{{number + is_right}}}" for is_right in right],
                answers=[str(number + is_right) for is_right in right],
                marks=[Mark.RIGHT if is_right else Mark.WRONG for is_right in right],
                reasons=["equal as numbers" if is_right else "another number" for is_right in right],
            )
        )
    return eval_result(questions, step=step, n=8)


def _fill(run: RunDir, steps: int, n_groups: int, chance: random.Random) -> None:
    a_step = BATCH // GROUP
    engine = sa.create_engine(run.buffer_url)
    turn = n_groups / (steps * a_step)  # groups had for each that is trained
    taken = {math.ceil((number + 1) * turn): number // a_step + 1 for number in range(steps * a_step)}
    with engine.begin() as db:
        db.execute(facts.insert().values(name="problems", value=7_473))
        db.execute(proofs.insert(), [{"policy": "p", "version": v, "sha256": "ab"} for v in range(steps)])
        saved = range(EVERY, steps + 1, EVERY)
        db.execute(commits.insert(), [{"step": s, "checkpoint": f"step-{s:06d}"} for s in saved])
    for first in range(1, n_groups + 1, AT_ONCE):
        ids = range(first, min(first + AT_ONCE, n_groups + 1))
        made = [_group(id, taken.get(id), chance) for id in ids]
        rows = []
        for group in made:
            step = taken.get(group.id)
            state = {"state": State.TRAINED if step else State.NO_SIGNAL, "step": step}
            rows.append({"id": group.id, **codec.row(group), **state})
        with engine.begin() as db:
            db.execute(groups.insert(), rows)
            db.execute(payloads.insert(), [{"id": group.id, "payload": codec.encode(group)} for group in made])
    engine.dispose()


def _group(id: int, step: int | None, chance: random.Random) -> Group:
    right = chance.randint(1, GROUP - 1) if step else chance.choice([0, GROUP])
    number, version = chance.randrange(7_473), max(0, (step or 1) - 2)
    problem = Problem(id=f"{number:016x}", text=f"What is {number} + 1?", gold=str(number + 1))
    samples = [_sample(number, i < right, version) for i in range(GROUP)]
    return Group(id=id, problem=problem, prompt_ids=[3, 4], policy="p", adapter_sha256="ab", samples=samples)


def _sample(number: int, is_right: bool, version: int) -> Sample:
    answer = str(number + is_right)
    rollout = Rollout(
        token_ids=list(range(100, 140)),
        sampler_logprobs=[-0.125] * 40,
        policy_version=version,
        finish_reason="stop",
        text=f"We add 1 to {number}, which gives \\boxed{{{answer}}}.",
    )
    mark, reason = (Mark.RIGHT, "equal as numbers") if is_right else (Mark.WRONG, "another number")
    return Sample(rollout=rollout, verdict=Verdict(mark=mark, reason=reason, answer=answer, gold=str(number + 1)))


if __name__ == "__main__":
    print(large_run(Path(sys.argv[1])).root)
