"""From a saved adapter to the first token by it, while the server samples; and what sampling loses by that."""

import asyncio
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from rl.collect.client import ServerClient
from rl.collect.servers import Servers
from rl.core.config import TrainConfig
from rl.core.nursery import LIBRARY_ENV
from rl.core.processes import Children
from rl.launch.placement import SHARED
from rl.launch.server import listen, start_server, url_of
from rl.measure.side import Side
from rl.measure.work import POLICY, Figures, Pairs, Work, quantiles
from rl.problems.models import resolve_model
from rollout_server.schema import AdapterReceipt, GenerateRequest

EVERY_S = 1.0
LOOK_S = 0.1
PUBLISHES = 8
"""In a round, or twice as many and so on where requests take long."""
MOVE = 1e-3
"""What is added to the adapter's weights between two versions, times a normal number."""
Took = tuple[float, float]
"""Seconds of one publish: until the engine has loaded the adapter, and from before it is saved to a token by it."""
_state: dict[str, Any] = {}
"""In the learner's process: the policy, and the number of its next version."""


def measure_publishing(work: Work, folder: Path, rounds: int) -> Figures:
    """Each round samples for some seconds without a publish, and for as long with one a second."""
    requests = work.requests()
    log, memory = folder / "logs" / "publishing-server.log", work.config.gpu_memory or SHARED
    side = Side("learner", folder / "logs" / "publishing-learner.log", LIBRARY_ENV)
    with Children() as children, listen(0) as listener, side as learner:
        children.add(start_server(work.config, listener, log, {}, gpu_memory=memory))
        url = url_of(listener)
        asyncio.run(_ready(url))
        learner.call(_load, work.config)
        learner.call(_publish, url, requests, 1)
        with_, without, loads, latencies = list[float](), list[float](), list[float](), list[float]()
        for _ in range(rounds):
            rate, _ = asyncio.run(_sampled(url, requests, None))
            without.append(rate)
            rate, took = asyncio.run(_sampled(url, requests, learner))
            with_.append(rate)
            loads += (load_s for load_s, _ in took)
            latencies += (first_token_s for _, first_token_s in took)
    figures = Pairs(ours=with_, theirs=without).figures("tokens_per_s", "tokens_per_s_without_publishing")
    lost = 1 - figures["ratio"]
    return {
        "publishes": len(latencies),
        "engine_load": quantiles(loads),
        "first_token": quantiles(latencies),
        "lost": lost,
        "lost_at_one_in_30_s": lost * EVERY_S / 30,
        **figures,
    }


async def _ready(url: str) -> None:
    async with ServerClient(url) as client:
        await client.wait_ready()


async def _sampled(url: str, requests: Sequence[GenerateRequest], learner: Side | None) -> tuple[float, list[Took]]:
    """Tokens a second while as many requests as these are always under way, and what each publish took.

    Tokens are counted when their request ends, so that at least as many must end as are under way.
    """
    tokens, ended, endless, took = 0, 0, cycle(requests), list[Took]()
    async with ServerClient(url) as client, asyncio.TaskGroup() as tasks:

        async def ask() -> None:
            nonlocal tokens, ended
            while True:
                answer = await client.generate(next(endless))
                tokens += sum(len(c.token_ids) for siblings in answer.completions for c in siblings)
                ended += 1

        asking = [tasks.create_task(ask()) for _ in requests]
        while ended < len(requests):  # until as many end as begin
            await asyncio.sleep(LOOK_S)
        begin, tokens, ended = time.perf_counter(), 0, 0
        while ended < len(requests):
            if learner is None:
                await asyncio.sleep(PUBLISHES * EVERY_S)
            else:
                took += await asyncio.to_thread(learner.call, _publish, url, requests, PUBLISHES)
        rate = tokens / (time.perf_counter() - begin)
        for task in asking:
            task.cancel()
    return rate, took


def _load(config: TrainConfig) -> None:
    import torch

    from rl.learner.policy import Policy

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _state.update(policy=Policy(resolve_model(config), config, device), version=0, temperature=config.temperature)


def _publish(url: str, requests: Sequence[GenerateRequest], times: int) -> list[Took]:
    """Publishes so many versions, one each `EVERY_S`."""
    return asyncio.run(_publish_all(url, requests, times))


async def _publish_all(url: str, requests: Sequence[GenerateRequest], times: int) -> list[Took]:
    import torch

    from rl.learner.canary import CANARY_PROMPTS
    from rl.learner.publish import Publisher

    policy, took = _state["policy"], list[Took]()
    one_token = requests[0].sampling.model_copy(update={"max_tokens": 1})
    first_token = requests[0].model_copy(update={"n": 1, "sampling": one_token})
    loads: list[float] = []

    class Timed(ServerClient):
        async def put_adapter(self, *args: Any) -> AdapterReceipt:
            begin = time.perf_counter()
            receipt = await super().put_adapter(*args)
            loads.append(time.perf_counter() - begin)
            return receipt

    async with Servers([url], Timed) as servers:
        canaries = [request.prompts[0] for request in requests[:CANARY_PROMPTS]]
        publisher = Publisher(servers, policy, POLICY, canaries, _state["temperature"], enter=lambda *_: None)
        for _ in range(times):
            version, begin = _state["version"], time.perf_counter()
            with torch.no_grad():
                for parameter in policy.trainable:
                    parameter.add_(MOVE * torch.randn_like(parameter))
            await publisher.publish(version)
            answer = await servers.generate(first_token)
            assert answer.completions[0][0].policy_version == version
            seconds = time.perf_counter() - begin
            took.append((loads[-1], seconds))
            _state["version"] += 1
            await asyncio.sleep(max(0.0, EVERY_S - seconds))
    return took
