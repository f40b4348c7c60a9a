"""Whether the verifier can mark answers to a problem, found by having it mark the gold itself."""

import asyncio
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from rewards import Mark, VerifierPool
from rewards.exact import number
from rewards.text import normalise
from rl.core.config import TrainConfig
from rl.core.errors import UsageError

AT_ONCE = 1024
"""Golds that are handed to the verifier's processes at a time."""
_INTEGER = re.compile(r"-?\d{1,60}", re.ASCII)
"""What needs no closer look, so that a million take a second."""


def gold_faults(golds: Iterable[str]) -> dict[str, str]:
    """Gold → why it cannot be verified, of those that cannot. Plain numbers cost microseconds, others milliseconds."""
    hard = {gold for gold in golds if not _INTEGER.fullmatch(gold) and number(normalise(gold)) is None}
    with ThreadPoolExecutor(1) as thread:  # the caller may be in an event loop of its own
        return thread.submit(asyncio.run, _mark(hard)).result() if hard else {}


async def _mark(golds: Iterable[str]) -> dict[str, str]:
    faults: dict[str, str] = {}
    rest = iter(golds)
    async with VerifierPool(workers=os.cpu_count() or 1) as pool:
        while some := list(islice(rest, AT_ONCE)):
            marked = await asyncio.gather(*(pool.verify([rf"\boxed{{{gold}}}"], gold) for gold in some))
            faults |= {verdict.gold: verdict.reason for (verdict,) in marked if verdict.mark is not Mark.RIGHT}
    return faults


def has_own_reward(config: TrainConfig) -> bool:
    """Whether completions are marked by a function of the user's: what a gold may be is then its business."""
    return bool(config.reward != TrainConfig.model_fields["reward"].default)


def check_reward(config: TrainConfig) -> None:
    """Starts the verifier's processes with a reward of the user's own once.

    Raises:
        UsageError: it cannot be imported, or is no function of a completion and a gold.
    """

    async def start() -> None:
        async with VerifierPool(workers=1, check=config.reward):
            pass

    if not has_own_reward(config):
        return
    try:
        asyncio.run(start())
    except (ValueError, RuntimeError) as error:
        fix = (
            "name module:function; the module is in this directory or installed, the function takes (completion, gold)"
        )
        raise UsageError(f"--reward {config.reward}: {error}", fix=fix) from None
