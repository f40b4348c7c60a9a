"""Tokens a second of a rollout server, beside vLLM's own offline engine on the same prompts with the same settings."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rl.collect.client import ServerClient
from rl.core.config import TrainConfig
from rl.core.processes import Children
from rl.launch.placement import SHARED
from rl.launch.server import listen, start_server, url_of
from rl.learner.checkpoint import read_adapter
from rl.measure.side import Side
from rl.measure.work import POLICY, Figures, Pairs, Work
from rl.problems.shapes import adapter_rank
from rollout_server.schema import GenerateRequest, GenerateResponse

BUFFERS = 3
"""In a round. The first one comes to the server at once, which takes a tenth of a second to read it: a run begins so,
and does not go on so."""
_offline: dict[str, Any] = {}
"""In its process: the engine, and the adapter that it samples by."""


def measure_sampling(work: Work, adapter: Path, folder: Path, rounds: int) -> Figures:
    """Both sides sample so many full buffers a round, in turn; a first round of each is not counted.

    Args:
        adapter: folder of a checkpoint.
    """
    requests = work.requests()
    log = folder / "logs"
    with Children() as children, listen(0) as listener, Side("vLLM", log / "offline.log", {}) as offline:
        url = url_of(listener)
        children.add(start_server(work.config, listener, log / "server.log", {}, gpu_memory=_share(work.config)))
        offline.call(_load, work.model, work.config, adapter)
        asyncio.run(_put(url, read_adapter(adapter)))
        rates: dict[str, list[float]] = {"server": [], "offline": [], "base": []}
        for counted in range(rounds + 1):
            server = asyncio.run(_served(url, BUFFERS * requests, at_a_time=len(requests)))
            theirs, base = (offline.call(_sample, BUFFERS * requests, by_adapter) for by_adapter in (True, False))
            for name, rate in (("server", server), ("offline", theirs), ("base", base)):
                rates[name] += [rate] * (counted > 0)
    figures = Pairs(ours=rates["server"], theirs=rates["offline"]).figures("tokens_per_s", "offline_tokens_per_s")
    adapted = Pairs(ours=rates["offline"], theirs=rates["base"]).figures("with_adapter", "without")
    return figures | {"offline_base_tokens_per_s": adapted["without"], "adapter_ratio": adapted["ratio"]}


def _share(config: TrainConfig) -> float:
    """Of a GPU's memory: both engines are there at the same time."""
    return config.gpu_memory or SHARED


async def _put(url: str, adapter: bytes) -> None:
    async with ServerClient(url) as client:
        await client.wait_ready()
        await client.put_adapter(POLICY, 0, adapter)
        await client.accept(POLICY, 0)


async def _served(url: str, requests: Sequence[GenerateRequest], at_a_time: int) -> float:
    """Tokens a second of a server that is asked as the collector asks: as many groups at a time as a buffer has."""
    slots = asyncio.Semaphore(at_a_time)
    async with ServerClient(url) as client:

        async def ask(request: GenerateRequest) -> GenerateResponse:
            async with slots:
                return await client.generate(request)

        await client.policies()  # connects
        begin = time.perf_counter()
        answers = await asyncio.gather(*map(ask, requests))
        seconds = time.perf_counter() - begin
    return sum(len(c.token_ids) for answer in answers for group in answer.completions for c in group) / seconds


def _load(model: str, config: TrainConfig, adapter: Path) -> None:
    """vLLM's offline engine, with the settings of a server."""
    from rollout_server.engines.vllm_load import Options, engine_settings

    options = Options(
        model=model,
        trust_remote_code=config.trust_remote_code,
        dtype=config.dtype,
        max_lora_rank=adapter_rank(config),
        gpu_memory=_share(config),
        seed=config.seed,
    )
    settings = engine_settings(options)
    from vllm import LLM
    from vllm.lora.request import LoRARequest

    _offline["engine"] = LLM(**settings)
    _offline["adapter"] = LoRARequest(lora_name="bench", lora_int_id=1, lora_path=str(adapter))


def _sample(requests: Sequence[GenerateRequest], by_adapter: bool) -> float:
    """Tokens a second of the offline engine."""
    from vllm.inputs import tokens_input

    from rollout_server.engines.vllm_process import token_params

    prompts = [tokens_input(prompt) for request in requests for prompt in request.prompts]
    lora = _offline["adapter"] if by_adapter else None
    begin = time.perf_counter()
    outputs = _offline["engine"].generate(prompts, token_params(requests[0]), use_tqdm=False, lora_request=lora)
    seconds = time.perf_counter() - begin
    return sum(len(c.token_ids) for output in outputs for c in output.outputs) / seconds
