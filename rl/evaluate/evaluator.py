"""Evaluation of one policy on held-out problems, pinned to the bytes of its adapter."""

import asyncio
import hashlib
import time
from collections.abc import Callable

from rewards import VerifierPool
from rl.collect.client import ServerClient
from rl.collect.collector import sample_group
from rl.core.config import TrainConfig
from rl.core.errors import PublishError
from rl.core.types import Group, Problem
from rl.evaluate.result import EvalResult, QuestionResult, hash_problems
from rl.problems.prompt import Prompter
from rl.problems.sources import load_problems

IN_FLIGHT = 16
"""Questions asked at once: enough to fill the server's batches, few enough to leave room for training."""


class Evaluator:
    """Evaluates policies of one model on one frozen set of problems.

    Args:
        config: says which problems, how many samples, and how they are drawn.
    """

    def __init__(self, config: TrainConfig, client: ServerClient, prompter: Prompter, verifiers: VerifierPool) -> None:
        self._config, self._client, self._prompter, self._verifiers = config, client, prompter, verifiers
        self._problems = load_problems(config, "heldout")[: config.eval_problems or None]

    async def evaluate(
        self,
        *,
        policy: str,
        step: int,
        adapter: bytes | None,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> EvalResult:
        """Evaluates an adapter, or the base model where there is none.

        Args:
            policy: a name of its own on the server, so that no later version can take its place.
            progress: called with (questions done, questions in all).

        Raises:
            ServerError: the server is unreachable, or refused.
            PublishError: the server holds other bytes than these.
        """
        start = time.monotonic()
        if adapter is None:
            questions = await self._ask(None, None, progress)
        else:
            receipt = await self._client.put_adapter(policy, step, adapter)
            if receipt.sha256 != (sha256 := hashlib.sha256(adapter).hexdigest()):
                raise PublishError(f"the server holds an adapter {receipt.sha256[:12]}, not {sha256[:12]}")
            try:
                questions = await self._ask(policy, step, progress)
            finally:
                await self._client.remove(policy, step)
        return EvalResult(
            step=step,
            adapter_sha256=None if adapter is None else sha256,
            model=self._config.model,
            problems=self._config.problems,
            problems_sha256=hash_problems(self._problems),
            samples_per_problem=self._config.eval_samples,
            temperature=self._config.temperature,
            max_tokens=self._config.max_tokens,
            questions=questions,
            seconds=time.monotonic() - start,
        )

    async def _ask(
        self, policy: str | None, version: int | None, progress: Callable[[int, int], None]
    ) -> list[QuestionResult]:
        room = asyncio.Semaphore(IN_FLIGHT)
        sampling = self._prompter.sampling(self._config.temperature, self._config.max_tokens)
        done = 0

        async def ask(problem: Problem) -> QuestionResult:
            nonlocal done
            async with room:
                group = await sample_group(
                    self._client,
                    self._verifiers,
                    self._prompter,
                    problem,
                    group_id=0,
                    n=self._config.eval_samples,
                    sampling=sampling,
                    policy=policy,
                    policy_version=version,
                )
            done += 1
            progress(done, len(self._problems))
            return question_result(group)

        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(ask(problem)) for problem in self._problems]
        return [task.result() for task in asked]


def question_result(group: Group) -> QuestionResult:
    verdicts = [sample.verdict for sample in group.samples]
    return QuestionResult(
        problem_id=group.problem.id, answers=[v.answer for v in verdicts], marks=[v.mark for v in verdicts]
    )
