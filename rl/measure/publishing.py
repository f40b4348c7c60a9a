"""From a saved adapter to the first token by it, while the server samples; and what sampling loses by that."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
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
"""From the begin of a publish to that of the next, or longer where a publish takes longer."""
LOOK_S = 0.1
PUBLISHES = 8
"""In a round, or twice as many and so on where requests take long."""
MOVE = 1e-3
"""What is added to the adapter's weights between two versions, times a normal number."""
_state: dict[str, Any] = {}
"""In the learner's process: the policy, and the number of its next version."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Publish:
    version: int
    begin: float
    """On the machine's monotonic clock, before the adapter is saved."""
    load_s: float
    """Until the engine has loaded the adapter, from when it is sent."""
    first_token_s: float
    """From the begin to a token by it: of a request for one token, which goes before those for more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Some seconds of a server that samples all the time."""

    seconds: float
    tokens: int
    publishes: list[Publish]
    arrived: dict[int, float] = field(default_factory=dict)
    """When the first whole group by each version came."""


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
        without, with_ = list[Window](), list[Window]()
        for _ in range(rounds):
            without.append(asyncio.run(_sampled(url, requests, None)))
            with_.append(asyncio.run(_sampled(url, requests, learner)))
    return figures_of(with_, without)


def figures_of(with_: Sequence[Window], without: Sequence[Window]) -> Figures:
    """
    Args:
        with_: the windows with publishes.
        without: those without, in turn with them.
    """
    pairs = Pairs(ours=[w.tokens / w.seconds for w in with_], theirs=[w.tokens / w.seconds for w in without])
    figures = pairs.figures("tokens_per_s", "tokens_per_s_without_publishing")
    publishes = [(publish, window) for window in with_ for publish in window.publishes]
    every_s = sum(window.seconds for window in with_) / len(publishes)
    groups = [w.arrived[publish.version] - publish.begin for publish, w in publishes if publish.version in w.arrived]
    lost = 1 - figures["ratio"]
    return {
        "publishes": len(publishes),
        "every_s": every_s,
        "engine_load": quantiles([publish.load_s for publish, _ in publishes]),
        "first_token": quantiles([publish.first_token_s for publish, _ in publishes]),
        "first_group": quantiles(groups) if groups else None,
        "lost": lost,
        "lost_at_one_in_30_s": lost * every_s / 30,
        **figures,
    }


async def _ready(url: str) -> None:
    async with ServerClient(url) as client:
        await client.wait_ready()


async def _sampled(url: str, requests: Sequence[GenerateRequest], learner: Side | None) -> Window:
    """A window in which as many requests as these are always under way.

    Tokens are counted when their request ends, so that at least as many must end as are under way.
    """
    tokens, ended, endless, publishes, arrived = 0, 0, cycle(requests), list[Publish](), dict[int, float]()
    async with ServerClient(url) as client, asyncio.TaskGroup() as tasks:

        async def ask() -> None:
            nonlocal tokens, ended
            while True:
                answer = await client.generate(next(endless))
                completions = [completion for siblings in answer.completions for completion in siblings]
                arrived.setdefault(completions[0].policy_version or 0, time.monotonic())
                tokens += sum(len(completion.token_ids) for completion in completions)
                ended += 1

        asking = [tasks.create_task(ask()) for _ in requests]
        while ended < len(requests):  # until as many end as begin
            await asyncio.sleep(LOOK_S)
        begin, tokens, ended = time.monotonic(), 0, 0
        while ended < len(requests):
            if learner is None:
                await asyncio.sleep(PUBLISHES * EVERY_S)
            else:
                publishes += await asyncio.to_thread(learner.call, _publish, url, requests, PUBLISHES)
        window = Window(seconds=time.monotonic() - begin, tokens=tokens, publishes=publishes, arrived=arrived)
        for task in asking:
            task.cancel()
    return window


def _load(config: TrainConfig) -> None:
    import torch

    from rl.learner.policy import Policy

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _state.update(policy=Policy(resolve_model(config), config, device), version=0, temperature=config.temperature)


def _publish(url: str, requests: Sequence[GenerateRequest], times: int) -> list[Publish]:
    """Publishes so many versions."""
    return asyncio.run(_publish_all(url, requests, times))


async def _publish_all(url: str, requests: Sequence[GenerateRequest], times: int) -> list[Publish]:
    import torch

    from rl.learner.canary import CANARY_PROMPTS
    from rl.learner.publish import Publisher

    policy, publishes = _state["policy"], list[Publish]()
    one_token = requests[0].sampling.model_copy(update={"max_tokens": 1})
    first_token = requests[0].model_copy(update={"n": 1, "sampling": one_token})
    loads: list[float] = []

    class Timed(ServerClient):
        async def put_adapter(self, *args: Any) -> AdapterReceipt:
            begin = time.monotonic()
            receipt = await super().put_adapter(*args)
            loads.append(time.monotonic() - begin)
            return receipt

    async with Servers([url], Timed) as servers:
        canaries = [request.prompts[0] for request in requests[:CANARY_PROMPTS]]
        publisher = Publisher(servers, policy, POLICY, canaries, _state["temperature"], enter=lambda *_: None)
        for _ in range(times):
            version, begin = _state["version"], time.monotonic()
            with torch.no_grad():
                for parameter in policy.trainable:
                    parameter.add_(MOVE * torch.randn_like(parameter))
            await publisher.publish(version)
            answer = await servers.generate(first_token)
            assert answer.completions[0][0].policy_version == version
            seconds = time.monotonic() - begin
            publishes.append(Publish(version=version, begin=begin, load_s=loads[-1], first_token_s=seconds))
            _state["version"] += 1
            await asyncio.sleep(max(0.0, EVERY_S - seconds))
    return publishes
