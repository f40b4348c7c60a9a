"""One learner rank of a run, started by torchrun:

torchrun --nproc-per-node N -m rl.learner RUN --server-url URL … --policy NAME
"""

import asyncio

import torch
import torch.distributed as dist

from rl.collect.servers import Servers
from rl.core import cli
from rl.core.processes import die_with_parent
from rl.core.rundir import RunDir
from rl.learner.training import Training


async def train(run: RunDir, server_urls: list[str], policy: str) -> None:
    async with Servers(server_urls) as servers:
        training = Training(run, servers, policy)
        await servers.wait_ready()
        await training.run()


def main(argv: list[str]) -> None:
    die_with_parent()
    args = cli.process_args(argv, "rl.learner", "One learner rank of a run; start it by torchrun.")
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    asyncio.run(train(RunDir(args.run), args.server_urls, args.policy))
    dist.destroy_process_group()  # not where it failed: the other ranks' complaints would hide the reason


if __name__ == "__main__":
    cli.run(main)
