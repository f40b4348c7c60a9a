"""One learner rank of a run, started by torchrun's elastic agent (`rl.launch.ranks`), or by hand:

torchrun --nproc-per-node N -m rl.learner RUN --policy NAME --server-url URL …
"""

import asyncio
import os
import time
from datetime import timedelta

import torch
import torch.distributed as dist

from rl.collect.servers import servers_of
from rl.core import cli, log, metrics, telemetry
from rl.core.parent import die_with_parent
from rl.core.pulse import beat_in_thread, pulse_file
from rl.core.rundir import RunDir
from rl.learner.training import Training
from rl.learner.vitals import RankVitals

PEER_S = 5.0
RANKS_LIMIT_S = 2.0 * 3600
"""Longer than all that rank 0 waits for in one step, each with a limit of its own, while the others wait for it."""


async def train(run: RunDir, server_urls: list[str], policy: str, vitals: RankVitals) -> None:
    turning = asyncio.create_task(vitals.turning())
    if run.config().replay is None:
        async with servers_of(run, server_urls) as servers:
            training = Training(run, servers, policy, vitals)
            with log.waiting("a server that serves"):
                await servers.wait_ready()
            await training.run()
    else:
        await Training(run, None, policy, vitals).run()
    turning.cancel()


def main(argv: list[str]) -> None:
    args = cli.process_args(argv, "rl.learner", "One learner rank of a run; start it by torchrun.")
    if args.parent is not None:
        die_with_parent(args.parent)
    run = RunDir(args.run)
    rank, on_this_node = int(os.environ["RANK"]), os.environ["LOCAL_RANK"]
    role, vitals = f"learner-{rank}", RankVitals(leads=rank == 0)
    log.begin(run.root, role)
    beat_in_thread(pulse_file(run, f"learner-{on_this_node}"))
    port = None if args.metrics_port is None else args.metrics_port + rank
    telemetry.serve(run, role, vitals, [metrics.LEARNING], host=args.metrics_host, port=port)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=RANKS_LIMIT_S))
    try:
        asyncio.run(train(run, args.server_urls, args.policy, vitals))
        dist.broadcast_object_list([None], src=0, device=torch.device("cpu"))  # no pulse ends before rank 0 has saved
    except RuntimeError:  # torch's own, as when another rank has gone: that one's end is the reason, and
        time.sleep(PEER_S)  # the agent ends this one meanwhile
        raise
    dist.destroy_process_group()  # not where it failed: the other ranks' complaints would hide the reason


if __name__ == "__main__":
    cli.run(main)
