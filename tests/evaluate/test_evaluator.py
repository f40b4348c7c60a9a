"""The evaluator against a real server process with a scripted engine: every question once, also after it was killed."""

import asyncio
from pathlib import Path

import pytest

from rewards import VerifierPool
from rl.collect.servers import Servers
from rl.core.config import TrainConfig
from rl.evaluate.draft import Counter
from rl.evaluate.evaluator import Evaluator
from rl.evaluate.result import EvalResult
from rl.problems.prompt import Prompter
from rl.problems.starter import STARTER_MODEL, starter_problems

CONFIG = TrainConfig(eval_samples=2)
PROBLEMS = starter_problems("heldout")[:40]


class KilledError(BaseException):
    """Stands for SIGKILL in the middle of an evaluation."""


def evaluate(url: str, path: Path, *, killed_after: int | None = None) -> tuple[EvalResult, list[int]]:
    """The base model on `PROBLEMS` as the set `sums@test`, and the questions done each time one more was."""
    done: list[int] = []

    def progress(so_far: int, of: int) -> None:
        done.append(so_far)
        assert of == len(PROBLEMS)
        if len(done) == killed_after:
            raise KilledError

    async def run() -> EvalResult:
        prompter = Prompter(str(STARTER_MODEL), CONFIG)
        async with Servers([url]) as servers, VerifierPool(workers=1) as verifiers:
            await servers.wait_ready(60)
            evaluator = Evaluator(CONFIG, servers, prompter, verifiers)
            return await evaluator.evaluate(
                "sums@test", PROBLEMS, policy="p", step=0, adapter=None, path=path, progress=progress
            )

    return asyncio.run(run()), done


def test_a_killed_evaluation_asks_only_what_is_missing(url: str, tmp_path: Path) -> None:
    path = tmp_path / "sums@test" / "step-000000.json"
    with pytest.raises(BaseExceptionGroup) as killed:
        evaluate(url, path, killed_after=15)
    assert killed.group_contains(KilledError)
    assert not path.exists()
    kept = Counter(path).answered()
    assert 15 <= kept < len(PROBLEMS)

    result, done = evaluate(url, path)
    assert done == list(range(kept + 1, len(PROBLEMS) + 1))
    assert result == EvalResult.load(path)
    assert (result.set, result.problems, result.adapter_sha256) == ("sums@test", "sums@test", None)
    assert [question.problem_id for question in result.questions] == [problem.id for problem in PROBLEMS]
    assert all(len(question.completions) == CONFIG.eval_samples for question in result.questions)
    assert [(q.problem, q.gold) for q in result.questions] == [(p.text, p.gold) for p in PROBLEMS]
