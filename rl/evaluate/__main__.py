"""The evaluator's process: `python -m rl.evaluate RUN --server-url URL --policy NAME`.

It makes the evaluations that the learner asks for in the ledger, oldest first, until it is ended.
"""

import asyncio

from rewards import VerifierPool
from rl.buffer.ledger import Buffer
from rl.collect.client import ServerClient
from rl.core import cli
from rl.core.rundir import RunDir, name_of
from rl.evaluate.evaluator import Evaluator
from rl.evaluate.result import summary_json
from rl.learner.checkpoint import read_adapter
from rl.problems.models import resolve_model
from rl.problems.prompt import Prompter

LOOK_S = 0.25


async def run_evaluator(run: RunDir, server_url: str, policy: str) -> None:
    config = run.config()
    buffer = Buffer(run.buffer_url, capacity=config.buffer, group_size=config.group_size)
    prompter = Prompter(resolve_model(config), config)
    async with ServerClient(server_url) as client, VerifierPool(workers=1) as verifiers:
        await client.wait_accepted(policy)
        evaluator = Evaluator(config, client, prompter, verifiers)
        while True:
            if (step := buffer.next_evaluation()) is None:
                await asyncio.sleep(LOOK_S)
                continue
            adapter = read_adapter(run.checkpoints / name_of(step))
            result = await evaluator.evaluate(policy=f"{policy}-eval", step=step, adapter=adapter)
            result.save(run.evals / f"{name_of(step)}.json")
            run.log(
                kind="eval",
                step=step,
                adapter_sha256=result.adapter_sha256,
                summary=summary_json(result),
                seconds=result.seconds,
            )
            buffer.evaluated(step)


def main(argv: list[str]) -> None:
    args = cli.process_args(argv, "rl.evaluate", "The evaluator of a run.")
    asyncio.run(run_evaluator(RunDir(args.run), args.server_url, args.policy))


if __name__ == "__main__":
    cli.run(main)
