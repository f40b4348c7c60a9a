"""What is published in these tests: canaries, and a policy that moves."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import torch

from rl.collect.client import ServerClient
from rl.collect.servers import Servers
from rl.core.config import TrainConfig
from rl.learner.policy import Policy
from rl.learner.publish import Publisher
from rl.problems.prompt import Prompter
from rl.problems.sources import load_problems
from rl.problems.starter import STARTER_MODEL

CONFIG = TrainConfig(temperature=0.8)
PROMPTS = [Prompter(str(STARTER_MODEL), CONFIG).prompt_ids(p) for p in load_problems(CONFIG, "heldout")[:2]]

Enter = Callable[[str, int, str], None]


def nowhere(policy: str, version: int, sha256: str) -> None:
    """A ledger that forgets."""


def publisher(servers: Servers, policy: Policy, name: str, enter: Enter = nowhere) -> Publisher:
    return Publisher(servers, policy, name, PROMPTS, CONFIG.temperature, enter=enter)


def move(policy: Policy, size: float, seed: int = 0) -> None:
    """Adds noise of this size to every weight of the adapter."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.trainable:
            parameter.add_(size * torch.randn(parameter.shape, generator=draw))


async def wait_ready(client: ServerClient) -> None:
    """A server whose process has just begun does not even answer yet."""
    async with Servers([client.url]) as alone:
        await alone.wait_ready()


def against(
    urls: Sequence[str],
    use: Callable[[Servers], Awaitable[object]],
    client: Callable[[str], ServerClient] = ServerClient,
) -> None:
    """Runs `use` once all servers are ready."""

    async def run() -> None:
        async with Servers(urls, client) as servers:
            await asyncio.gather(*map(wait_ready, servers.clients))
            await use(servers)

    asyncio.run(run())


async def held(servers: Servers, policy: str, *, accepted: bool = False) -> list[list[int]]:
    """The versions of a policy on each server: all, or those that are accepted."""
    answers = await asyncio.gather(*(client.policies() for client in servers.clients))
    return [
        [v.policy_version for v in answer.versions if v.policy == policy and (v.accepted or not accepted)]
        for answer in answers
    ]
