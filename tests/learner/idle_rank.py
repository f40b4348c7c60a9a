"""A learner whose rank 0 works on until the file `go` is there, and whose other ranks have nothing more to do.

torchrun --nproc-per-node N idle_rank.py RUN --policy NAME --server-url URL
"""

import asyncio
import sys
from pathlib import Path

import torch.distributed as dist

from rl.core.rundir import RunDir
from rl.learner import __main__ as learner


async def train(run: RunDir, server_urls: list[str], policy: str, vitals: object) -> None:
    Path(run.root / f"trained-{dist.get_rank()}").touch()
    while dist.get_rank() == 0 and not (run.root / "go").exists():
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    learner.train = train
    learner.main(sys.argv[1:])
