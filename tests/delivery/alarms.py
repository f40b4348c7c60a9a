"""False alarms of the proof: publishes in which nothing is wrong, and how many are refused.

    python -m tests.delivery.alarms --publishes 1000 --vllm 50

publishes so many versions, 50 of them through real vLLM and the others through a server of peft. From one to the next
the policy moves by a step of AdamW at a rate from 2e-6 to 5e-4, or not at all; now and then it begins anew, so that
small and large distances from the base are both tried. Ends with 1 where a version was refused.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from rl.collect.servers import Servers
from rl.core.errors import PublishError
from rl.core.processes import Children
from rl.launch.server import listen, start_server, url_of
from rl.learner.policy import Policy
from rl.learner.publish import Proof
from rl.problems.starter import STARTER_MODEL
from tests.delivery.conftest import PeftServer
from tests.delivery.published import CONFIG, publisher

RATES = (0.0, 2e-6, 1e-5, 5e-5, 2e-4, 5e-4)
ANEW = 100
"""Publishes until the policy begins at the base again."""


@dataclass(frozen=True, kw_only=True)
class Count:
    proofs: list[Proof]
    alarms: list[str]

    def __str__(self) -> str:
        gap = max((proof.logprob_gap for proof in self.proofs), default=0.0)
        moved = [proof.moved for proof in self.proofs]
        return (
            f"{len(self.proofs) + len(self.alarms)} publishes, {len(self.alarms)} false alarms; largest |server - "
            f"learner| {gap:.1e}, |learner - base| {min(moved, default=0.0):.1e} to {max(moved, default=0.0):.1e}"
        )


async def count_alarms(url: str, publishes: int, *, name: str = "alarms", seed: int = 0) -> Count:
    """Publishes to one server, once that is ready."""
    torch.set_num_threads(1)
    rng, draw = random.Random(seed), torch.Generator().manual_seed(seed)
    proofs, alarms = [], []
    async with Servers([url]) as servers:
        await servers.wait_ready()
        for version in range(publishes):
            if version % ANEW == 0:
                policy = Policy(str(STARTER_MODEL), CONFIG, torch.device("cpu"))
                adam = torch.optim.AdamW(policy.trainable)
                published = publisher(servers, policy, f"{name}-{version // ANEW}")
            for group in adam.param_groups:
                group["lr"] = rng.choice(RATES)
            for parameter in policy.trainable:
                parameter.grad = torch.randn(parameter.shape, generator=draw)
            adam.step()
            try:
                proofs.append(await published.publish(version))
            except PublishError as error:
                alarms.append(str(error))
    return Count(proofs=proofs, alarms=alarms)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.delivery.alarms", description=__doc__)
    parser.add_argument("--publishes", type=int, default=1000, help="of both kinds together")
    parser.add_argument("--vllm", type=int, default=50, help="those through real vLLM")
    args = parser.parse_args()
    refused = 0
    for engine, publishes in (("vllm", args.vllm), ("peft", args.publishes - args.vllm)):
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder, Children() as children, listen(0) as listener:
            log = Path(folder) / "server.log"
            if engine == "vllm":
                children.add(start_server(CONFIG, listener, log, {}))
            else:
                PeftServer(children, listener, log)
            count = asyncio.run(count_alarms(url_of(listener), publishes))
        refused += len(count.alarms)
        print(f"{engine}: {count}; {time.monotonic() - start:.0f} s", *count.alarms, sep="\n  ")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
