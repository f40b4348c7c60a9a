"""One side of a measurement: a process of its own, with its own threads, memory and libraries."""

import faulthandler
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from rl.core.errors import TallyError

Result = TypeVar("Result")
END_LIMIT_S = 10.0
"""For an interpreter to end."""


class Side:
    """A process that calls functions, and keeps what they leave in their modules. Use it as a context manager.

    Args:
        log: what its libraries print goes there.
        env: of its own, set before any of them is imported.
    """

    def __init__(self, name: str, log: Path, env: Mapping[str, str]) -> None:
        self._name, self._log = name, log
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin, initargs=(log, dict(env)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.submit(faulthandler.dump_traceback_later, END_LIMIT_S, exit=True)  # vLLM's engine can hang then
        self._pool.shutdown()

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """What the function returns there.

        Raises:
            TallyError: it failed, or the process was killed.
        """
        try:
            return self._pool.submit(function, *args).result()
        except TallyError:
            raise
        except BrokenProcessPool:
            fix = f"see {self._log}; take a smaller --batch or --model where memory was short"
            raise TallyError(f"the process of {self._name} was killed", fix=fix) from None
        except Exception as error:
            raise TallyError(f"{self._name} failed: {type(error).__name__}: {error}", fix=f"see {self._log}") from error


def _begin(log: Path, env: Mapping[str, str]) -> None:
    os.environ.update(env)
    with log.open("ab") as output:
        for own in (1, 2):
            os.dup2(output.fileno(), own)
