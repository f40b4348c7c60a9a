"""The evaluator against a real server process with a scripted engine: every question once, also after it was killed."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from rewards import VerifierPool
from rl.collect.client import ServerClient
from rl.collect.servers import Servers
from rl.core.config import TrainConfig
from rl.core.errors import PublishError
from rl.evaluate.draft import Counter
from rl.evaluate.evaluator import Evaluator
from rl.evaluate.result import EvalResult
from rl.problems.prompt import Prompter
from rl.problems.starter import STARTER_MODEL, starter_problems
from rollout_server.schema import GenerateRequest, GenerateResponse
from tests.collect.scripted import ScriptedServer, adapter, scripted_servers

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
            await servers.wait_ready()
            evaluator = Evaluator(CONFIG, servers, prompter, verifiers)
            return await evaluator.evaluate(
                "sums@test", PROBLEMS, policy="p", step=0, adapter=None, path=path, progress=progress
            )

    return asyncio.run(run()), done


def test_an_adapter_is_evaluated_by_its_bytes_also_when_its_server_is_started_again(tmp_path: Path) -> None:
    body = adapter()

    async def run(server: ScriptedServer) -> EvalResult:
        def progress(so_far: int, of: int) -> None:
            if so_far == 5:
                server.kill()
                server.start()

        prompter = Prompter(str(STARTER_MODEL), CONFIG)
        async with Servers([server.url]) as servers, VerifierPool(workers=1) as verifiers:
            await servers.wait_ready()
            result = await Evaluator(CONFIG, servers, prompter, verifiers).evaluate(
                "s", PROBLEMS, policy="p", step=4, adapter=body, path=tmp_path / "s" / "r.json", progress=progress
            )
            assert (await servers.clients[0].policies()).versions == []
            return result

    with scripted_servers(1, tmp_path) as (server,):
        result = asyncio.run(run(server))
    assert len(result.questions) == len(PROBLEMS)
    assert result.adapter_sha256 == hashlib.sha256(body).hexdigest()


def test_an_evaluation_of_other_bytes_is_refused(url: str, tmp_path: Path) -> None:
    class KnowsBetter(ServerClient):
        """Answers by an adapter that it had before, under the same version."""

        async def generate(self, request: GenerateRequest) -> GenerateResponse:
            return (await super().generate(request)).model_copy(update={"adapter_sha256": "0" * 64})

    async def run() -> None:
        prompter = Prompter(str(STARTER_MODEL), CONFIG)
        async with Servers([url], KnowsBetter) as servers, VerifierPool(workers=1) as verifiers:
            await servers.wait_ready()
            with pytest.raises(ExceptionGroup) as refused:
                await Evaluator(CONFIG, servers, prompter, verifiers).evaluate(
                    "s", PROBLEMS, policy="p", step=4, adapter=adapter(), path=tmp_path / "s" / "r.json"
                )
            assert refused.group_contains(PublishError, match="sampled by the adapter 000000")

    asyncio.run(run())
    assert Counter(tmp_path / "s" / "r.json").answered() == 0


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
