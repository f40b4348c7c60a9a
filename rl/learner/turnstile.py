"""One policy for two: a thread trains it, and the event loop computes with it between two passes of that thread."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


class Turnstile:
    """Both methods are for the event loop's thread."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._training = False

    async def train(self, function: Callable[[Callable[[], None]], Result]) -> Result:
        """Runs the function in a thread. It is to call what it is given whenever somebody else may use the policy."""
        self._training = True
        try:
            return await asyncio.to_thread(function, self._let_through)
        finally:
            self._training = False
            self._let_through()  # who has come since it looked last

    async def use(self, function: Callable[[], Result]) -> Result:
        """What the function returns, which nothing else computes with the policy beside."""
        if not self._training:
            return function()
        future: Future[Result] = Future()
        self._waiting.put((future, function))
        return await asyncio.wrap_future(future)

    def _let_through(self) -> None:
        while not self._waiting.empty():
            future, function = self._waiting.get()
            try:
                with torch.random.fork_rng():  # when it comes must not decide what dropout draws
                    future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
