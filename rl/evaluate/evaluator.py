"""Evaluation of one policy on one set of problems, pinned to the bytes of its adapter."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rewards import VerifierPool
from rl.collect.collector import sample_group
from rl.collect.servers import Servers
from rl.core import metrics
from rl.core.config import HELDOUT, TrainConfig
from rl.core.errors import PublishError
from rl.core.types import Group, Problem
from rl.evaluate.draft import Draft
from rl.evaluate.result import EvalResult, QuestionResult, hash_problems, summary
from rl.problems.prompt import Prompter

logger = logging.getLogger(__name__)
IN_FLIGHT = 16
"""Questions asked at once: enough to fill the server's batches, few enough to leave room for training."""


class Evaluator:
    """Evaluates policies of one model.

    Args:
        config: says how many samples are drawn, and how.
    """

    def __init__(self, config: TrainConfig, servers: Servers, prompter: Prompter, verifiers: VerifierPool) -> None:
        self._config, self._servers, self._prompter, self._verifiers = config, servers, prompter, verifiers

    async def evaluate(
        self,
        set: str,
        problems: Sequence[Problem],
        *,
        policy: str,
        step: int,
        adapter: bytes | None,
        path: Path,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> EvalResult:
        """Evaluates an adapter, or the base model where there is none, and writes the result.

        What an earlier attempt at the same `path` has answered is not asked again.

        Args:
            set: the name of the problems.
            policy: a name of its own on the server, so that no later version can take its place.
            progress: called with (questions done, questions in all).

        Raises:
            ServerError: a server refused, or none has served for too long.
            PublishError: a server sampled by other bytes than these.
        """
        start = time.monotonic()
        config = self._config
        sha256 = None if adapter is None else hashlib.sha256(adapter).hexdigest()
        pinned = EvalResult(
            set=set,
            step=step,
            adapter_sha256=sha256,
            model=config.model,
            problems=config.problems if set == HELDOUT else set,
            problems_sha256=hash_problems(problems),
            samples_per_problem=config.eval_samples,
            temperature=config.temperature,
            max_tokens=config.max_tokens,
            extraction=config.extraction,
            questions=[],
            seconds=0.0,
        )
        draft = Draft(path, pinned)
        if adapter is None:
            questions = await self._ask(problems, draft, None, None, sha256, progress)
        else:
            self._servers.pin(policy, step, adapter)
            try:
                questions = await self._ask(problems, draft, policy, step, sha256, progress)
            finally:
                await self._servers.unpin(policy, step)
        return draft.finish(path, questions, time.monotonic() - start)

    async def _ask(
        self,
        problems: Sequence[Problem],
        draft: Draft,
        policy: str | None,
        version: int | None,
        sha256: str | None,
        progress: Callable[[int, int], None],
    ) -> list[QuestionResult]:
        """The questions in the order of the problems."""
        room = asyncio.Semaphore(IN_FLIGHT)
        sampling = self._prompter.sampling(self._config.temperature, self._config.max_tokens)
        results = {question.problem_id: question for question in draft.answered}

        async def ask(problem: Problem) -> None:
            async with room:
                group = await sample_group(
                    self._servers,
                    self._verifiers,
                    self._prompter,
                    problem,
                    group_id=0,
                    n=self._config.eval_samples,
                    sampling=sampling,
                    policy=policy,
                    policy_version=version,
                )
            if group.adapter_sha256 != sha256:
                message = f"{policy} {version} was sampled by the adapter {group.adapter_sha256}, not by {sha256}"
                raise PublishError(message, fix="see the server's log in logs/")
            results[problem.id] = question = question_result(group)
            draft.add(question)
            progress(len(results), len(problems))

        async with asyncio.TaskGroup() as tasks:
            for problem in problems:
                if problem.id not in results:
                    tasks.create_task(ask(problem))
        return [results[problem.id] for problem in problems]


def measure(result: EvalResult) -> None:
    """Tells of an evaluation that was made."""
    metrics.EVALUATION_SECONDS.labels(result.set).observe(result.seconds)
    metrics.QUESTIONS.labels(result.set).inc(len(result.questions))
    metrics.EVALUATED_STEP.labels(result.set).set(result.step)
    facts = {"set": result.set, "step": result.step, "seconds": result.seconds}
    if estimate := summary(result)["pass@1"]:
        bounds = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
        for bound, value in bounds.items():
            metrics.PASS_AT_1.labels(result.set, bound).set(value)
        facts["pass_at_1"] = bounds
    logger.info("evaluated %s at step %d", result.set, result.step, extra=facts)


def question_result(group: Group) -> QuestionResult:
    verdicts = [sample.verdict for sample in group.samples]
    return QuestionResult(
        problem_id=group.problem.id,
        problem=group.problem.text,
        gold=group.problem.gold,
        completions=[sample.rollout.text for sample in group.samples],
        answers=[v.answer for v in verdicts],
        marks=[v.mark for v in verdicts],
        reasons=[v.reason for v in verdicts],
        rules=[v.rule for v in verdicts],
        compared=[v.compared for v in verdicts],
        verify_seconds=[v.seconds for v in verdicts],
    )
