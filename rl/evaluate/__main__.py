"""The evaluator's process: `python -m rl.evaluate RUN --server-url URL … --policy NAME`.

It makes the evaluations that the ledger asks for, on held-out problems first, until it is ended.
"""

import asyncio
import logging

from rewards import VerifierPool
from rl.buffer.courier import Courier
from rl.buffer.ledger import Buffer
from rl.collect.servers import servers_of
from rl.core import cli, log, metrics, telemetry
from rl.core.errors import TallyError
from rl.core.pulse import beat, pulse_file
from rl.core.rundir import RunDir, name_of
from rl.evaluate.evaluator import Evaluator, measure
from rl.evaluate.result import summary_json
from rl.learner.checkpoint import ADAPTER, MANIFEST, read_adapter
from rl.problems.models import resolve_model
from rl.problems.prompt import Prompter
from rl.problems.sources import load_eval_sets

LOOK_S = 0.25
READ = (ADAPTER, MANIFEST)
"""Of a checkpoint; the optimizer's state is twice as large."""
logger = logging.getLogger("rl.evaluate")


async def run_evaluator(run: RunDir, server_urls: list[str], policy: str, vitals: telemetry.Vitals) -> None:
    config = run.config()
    buffer = Buffer(run.buffer_url, capacity=config.buffer, group_size=config.group_size)
    prompter = Prompter(resolve_model(config), config)
    sets = load_eval_sets(config)
    courier = Courier(run)
    async with (
        asyncio.TaskGroup() as tasks,
        servers_of(run, server_urls) as servers,
        VerifierPool(workers=1, check=config.check) as verifiers,
    ):
        tasks.create_task(beat(pulse_file(run, "evaluator")))
        tasks.create_task(vitals.turning())
        servers.measure()
        with log.waiting("a server that serves"):
            health = await servers.wait_ready()
        for problems in sets.values():
            prompter.check_length(problems, health.max_model_len or 0, config.max_tokens)
        evaluator = Evaluator(config, servers, prompter, verifiers)
        vitals.ready = lambda: servers.there > 0
        logger.info("ready: evaluates on %s", ", ".join(sets))
        while True:
            if not (awaited := buffer.awaited()):
                await asyncio.sleep(LOOK_S)
                continue
            step, name = awaited[0]
            # A large one takes a while, in which this process has to beat.
            await asyncio.to_thread(courier.fetch, run.checkpoints / name_of(step), READ)
            try:
                adapter = read_adapter(run.checkpoints / name_of(step))
            except TallyError as damage:  # it has cost an evaluation, and must not cost the run
                logger.warning("%s; its evaluations will be missing", damage, extra={"step": step})
                buffer.forget_commit(step)
                continue
            result = await evaluator.evaluate(
                name,
                sets[name],
                policy=policy,
                step=step,
                adapter=adapter,
                path=run.eval_file(name, step),
            )
            courier.send(run.eval_file(name, step))
            courier.log(
                kind="eval",
                step=step,
                set=name,
                adapter_sha256=result.adapter_sha256,
                summary=summary_json(result),
                seconds=result.seconds,
            )
            measure(result)
            buffer.evaluated(step, name)


def main(argv: list[str]) -> None:
    args = cli.process_args(argv, "rl.evaluate", "The evaluator of a run.")
    run, vitals = RunDir(args.run), telemetry.Vitals()
    log.begin(run.root, "evaluator")
    shown = [metrics.SAMPLING, metrics.EVALUATING]
    telemetry.serve(run, "evaluator", vitals, shown, host=args.metrics_host, port=args.metrics_port)
    asyncio.run(run_evaluator(run, args.server_urls, args.policy, vitals))


if __name__ == "__main__":
    cli.run(main)
