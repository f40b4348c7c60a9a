"""Whether the verifier can mark answers to a problem, found by having it judge the gold itself."""

import asyncio
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from rewards import Mark, Verdict, VerifierPool
from rewards.latex.numbers import number
from rewards.latex.text import normalise
from rl.core.config import VERIFY, TrainConfig
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
    async with VerifierPool(workers=os.cpu_count() or 1, check="rewards:judge_gold") as pool:
        while some := list(islice(rest, AT_ONCE)):
            marked = await asyncio.gather(*(pool.verify([""], gold) for gold in some))
            faults |= {verdict.gold: verdict.reason for (verdict,) in marked if verdict.mark is not Mark.RIGHT}
    return faults


def has_own_reward(config: TrainConfig) -> bool:
    """Whether completions are marked by a function of the user's: what a gold may be is then its business."""
    return config.reward != VERIFY


def check_reward(config: TrainConfig, gold: str | None = None) -> None:
    """Starts the verifier's processes with a reward of the user's own once.

    Args:
        gold: of a problem of the run; the reward is tried on an empty completion, and on the gold in a box.

    Raises:
        UsageError: it cannot be imported, is no function of a completion and a gold, or can say of neither completion.
    """

    async def tried() -> list[Verdict]:
        async with VerifierPool(workers=1, check=config.reward) as pool:
            return [] if gold is None else await pool.verify(["", rf"\boxed{{{gold}}}"], gold)

    if not has_own_reward(config):
        return
    try:
        verdicts = asyncio.run(tried())
    except (ValueError, RuntimeError) as error:
        fix = (
            "name module:function; the module is in this directory or installed, the function takes (completion, gold)"
        )
        raise UsageError(f"--reward {config.reward}: {error}", fix=fix) from None
    if verdicts and all(verdict.mark is Mark.ERROR for verdict in verdicts):
        message = f"--reward {config.reward} marks neither '' nor '\\boxed{{{gold}}}' for the gold {gold!r}"
        raise UsageError(f"{message}: {verdicts[-1].reason}", fix="have it return a number for any text")
