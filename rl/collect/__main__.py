"""The collector's process: `python -m rl.collect RUN --server-url URL … --policy NAME`."""

import asyncio
import logging

from rl.buffer.ledger import Buffer
from rl.collect.collector import collect
from rl.collect.servers import servers_of
from rl.core import cli, log, metrics, telemetry
from rl.core.pulse import beat, pulse_file
from rl.core.rundir import RunDir
from rl.problems.models import resolve_model
from rl.problems.prompt import Prompter
from rl.problems.sources import load_problems

logger = logging.getLogger("rl.collect")


async def run_collector(run: RunDir, server_urls: list[str], policy: str, vitals: telemetry.Vitals) -> None:
    config = run.config()
    buffer = Buffer(run.buffer_url, capacity=config.buffer, group_size=config.group_size)
    prompter, problems = Prompter(resolve_model(config), config), load_problems(config, "train")
    async with asyncio.TaskGroup() as tasks, servers_of(run, server_urls) as servers:
        tasks.create_task(beat(pulse_file(run, "collector")))
        tasks.create_task(vitals.turning())
        servers.measure()
        with log.waiting("a version that a server has accepted"):
            health = await servers.wait_accepted(policy)
        prompter.check_length(problems, health.max_model_len or 0, config.max_tokens)

        def begins() -> None:
            vitals.ready = lambda: servers.there > 0
            logger.info("ready: samples %s", policy, extra={"policy": policy})

        await collect(config, buffer, servers, prompter, policy=policy, begins=begins)


def main(argv: list[str]) -> None:
    args = cli.process_args(argv, "rl.collect", "The collector of a run.")
    run, vitals = RunDir(args.run), telemetry.Vitals()
    log.begin(run.root, "collector")
    shown = [metrics.SAMPLING, metrics.COLLECTING]
    telemetry.serve(run, "collector", vitals, shown, host=args.metrics_host, port=args.metrics_port)
    asyncio.run(run_collector(run, args.server_urls, args.policy, vitals))


if __name__ == "__main__":
    cli.run(main)
