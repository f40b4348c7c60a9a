"""A thread that trains, and who computes with the policy between two of its passes."""

import asyncio
import threading
from collections.abc import Callable

import pytest
import torch

from rl.learner.turnstile import Turnstile


def test_who_uses_the_policy_meanwhile_comes_between_two_passes() -> None:
    passing, seen = threading.Event(), list[tuple[bool, str]]()
    asked = threading.Event()

    def passes(between: Callable[[], None]) -> str:
        for _ in range(3):
            passing.set()
            assert asked.wait(10)
            passing.clear()
            between()
        return "trained"

    def use() -> int:
        seen.append((passing.is_set(), threading.current_thread().name))
        return len(seen)

    async def run() -> None:
        turnstile = Turnstile()
        training = asyncio.create_task(turnstile.train(passes))
        while not passing.is_set():
            await asyncio.sleep(0.001)
        using = [asyncio.create_task(turnstile.use(use)) for _ in range(2)]
        await asyncio.sleep(0)
        asked.set()
        assert await asyncio.gather(*using) == [1, 2]
        assert await training == "trained"
        assert await turnstile.use(use) == 3

    asyncio.run(run())
    assert [was_passing for was_passing, _ in seen] == [False] * 3
    names = [name for _, name in seen]
    assert names[0] == names[1] != threading.main_thread().name == names[2]


def test_who_comes_after_the_last_pass_is_let_through() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def passes(_between: Callable[[], None]) -> None:
        begun.set()
        assert go_on.wait(10)

    async def run() -> str:
        turnstile = Turnstile()
        training = asyncio.create_task(turnstile.train(passes))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        using = asyncio.create_task(turnstile.use(lambda: "used"))
        await asyncio.sleep(0)
        go_on.set()
        await training
        return await using

    assert asyncio.run(run()) == "used"


def test_what_fails_fails_for_who_asked() -> None:
    def fail() -> None:
        raise ValueError("theirs")

    def passes(between: Callable[[], None]) -> float:
        torch.manual_seed(0)
        while between_calls < 2:
            between()
        return float(torch.rand(()))

    between_calls = 0

    async def run() -> float:
        nonlocal between_calls
        turnstile = Turnstile()
        training = asyncio.create_task(turnstile.train(passes))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="theirs"):
            await turnstile.use(fail)
        await turnstile.use(lambda: torch.rand(3))
        between_calls = 2
        return await training

    drawn = asyncio.run(run())
    torch.manual_seed(0)
    assert drawn == float(torch.rand(()))  # whatever was drawn between its passes
