"""vLLM in a process of its own: the event loop tells it what to sample, and gets what was sampled.

Sampling has Python's lock for itself, and HTTP takes another core. vLLM has such a process too, which costs half a
minute of start on CPU, and a core that spins.
"""

import asyncio
import itertools
import os
import pickle
import socket
import subprocess
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from functools import partial
from signal import Signals
from time import monotonic
from typing import Any

from rollout_server.engines import Adapter, Facts, Piece, Status, TextRequest
from rollout_server.engines.line import EARLY, FIRST_REQUEST, LIFE, SIZE_BYTES, Reply, be_a_child, packed
from rollout_server.engines.vllm_load import Options
from rollout_server.errors import EngineError, KilledError
from rollout_server.schema import Completion, FinishReason, GenerateRequest

_METRICS_S = 5.0
"""For the engine to say what it has measured."""


class VllmEngine:
    name = "vllm"

    def __init__(self, options: Options) -> None:
        self.model = options.model
        self.status: Status = "loading"
        self.detail = ""
        self.on_early: Callable[[int], None] = lambda early: None
        self._failure: EngineError | None = None
        """What it ended by."""
        self._options = options
        self._facts: Facts | None = None
        self._writer: StreamWriter | None = None
        self._numbers = itertools.count(FIRST_REQUEST)
        self._asked: dict[int, asyncio.Queue[tuple[bool, Any]]] = {}
        """What came, by the number of the request, and whether it is the last."""
        self._heard = monotonic()
        """When the process said something, or got something to do."""

    @property
    def facts(self) -> Facts:
        if self.status != "ready" or self._facts is None:
            raise EngineError(self.detail or "the engine is not ready")
        return self._facts

    @property
    def silent_s(self) -> float:
        """It speaks each second while it steps."""
        return monotonic() - self._heard if self._asked else 0.0

    async def start(self) -> None:
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loaded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # the event loop's own way would undo what the child does before its exec
                (sys.executable, "-m", "rollout_server.engines.vllm_process", str(theirs.fileno())),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                preexec_fn=partial(be_a_child, os.getpid()),
            )
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self._send(self._options)
        self._living = asyncio.create_task(self._live(process, reader, self._writer))
        await self._loaded

    async def join(self) -> None:
        await self._ended
        if self._failure:
            raise self._failure

    def close(self) -> None:
        self._send(("stop", LIFE))

    async def generate(self, request: GenerateRequest, adapter: Adapter | None) -> list[list[Completion]]:
        version = adapter.version if adapter else None
        completions: list[list[Completion]] = [[]] * len(request.prompts)
        async with aclosing(self._replies("generate", request, adapter)) as replies:
            async for prompt, sampled in replies:
                completions[prompt] = [_completion(*completion, version=version) for completion in sampled]
        return completions

    async def stream(self, request: TextRequest, adapter: Adapter | None) -> AsyncGenerator[Piece, None]:
        async with aclosing(self._replies("stream", request, adapter)) as replies:
            async for pieces in replies:
                for piece in pieces:
                    yield piece

    async def load_adapter(self, adapter: Adapter) -> None:
        await self._call("load_adapter", adapter)

    async def remove_adapter(self, adapter: Adapter) -> None:
        await self._call("remove_adapter", adapter)

    async def metrics(self) -> bytes:
        with suppress(TimeoutError, EngineError):
            async with asyncio.timeout(_METRICS_S):
                measured: bytes = await self._call("metrics")
                return measured
        return b""

    async def _call(self, method: str, *args: Any) -> Any:
        async with aclosing(self._replies(method, *args)) as replies:
            return await anext(replies)

    async def _replies(self, method: str, *args: Any) -> AsyncGenerator[Any, None]:
        """All that the process gives to a request, which is aborted if this is closed before the last.

        Raises what the process says that went wrong, EngineError when it ends meanwhile."""
        if self.status != "ready":
            raise EngineError(self.detail or "the engine is not ready")
        if not self._asked:
            self._heard = monotonic()
        number = next(self._numbers)
        self._send((method, number, *args))
        replies = self._asked[number] = asyncio.Queue()
        last = False
        try:
            while not last:
                last, value = await replies.get()
                if isinstance(value, Exception):
                    raise value
                yield value
        finally:
            if not last:
                self._send(("abort", number))

    def _send(self, message: Any) -> None:
        if self._writer and not self._writer.is_closing():
            self._writer.write(packed(message))

    async def _live(self, process: subprocess.Popen[bytes], reader: StreamReader, writer: StreamWriter) -> None:
        """Until the process has ended, and everybody who waits for it knows why."""
        failure: EngineError | None
        try:
            failure = await self._listen(reader)
        except (EOFError, ConnectionError):
            self.status = "failed"
            code = await asyncio.to_thread(process.wait)
            ending = f"was killed by {Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            kind = KilledError if code < 0 else EngineError
            failure = kind(f"the engine died: its process {ending} (model {self.model})")
        except Exception as error:  # nobody would notice
            failure = EngineError(f"the engine's words cannot be read: {error!r} (model {self.model})")
            process.kill()
        self._end(failure)
        writer.close()
        await asyncio.to_thread(process.wait)
        self._ended.set_result(None)

    async def _listen(self, reader: StreamReader) -> EngineError | None:
        """What the process says that it ends by, which is nothing where it was told to.

        Raises EOFError or ConnectionError when it goes without a word."""
        while True:
            size = int.from_bytes(await reader.readexactly(SIZE_BYTES))
            replies: list[Reply] = pickle.loads(await reader.readexactly(size))
            self._heard = monotonic()
            for number, last, value in replies:
                if number == EARLY:
                    self.on_early(value)
                elif number != LIFE:
                    self._take(number, last, value)
                elif last:
                    failure: EngineError | None = value
                    return failure
                else:
                    self._on_loaded(value)

    def _take(self, number: int, last: bool, value: Any) -> None:
        asked = self._asked.pop(number, None) if last else self._asked.get(number)
        if asked:  # an aborted one may have two last ones
            asked.put_nowait((last, value))

    def _on_loaded(self, facts: Facts) -> None:
        self._facts, self.status = facts, "ready"
        if not self._loaded.done():  # it may have been cancelled
            self._loaded.set_result(None)

    def _end(self, failure: EngineError | None) -> None:
        self._failure = failure
        error = failure or EngineError("the engine was closed")
        self.status, self.detail = "failed", str(error)
        if not self._loaded.done():
            self._loaded.set_exception(error)
        for asked in self._asked.values():
            asked.put_nowait((True, error))
        self._asked.clear()


def _completion(
    token_ids: list[int], logprobs: list[float], finish_reason: FinishReason, *, version: int | None
) -> Completion:
    """vLLM's completion as the wire's; not validated again, since vLLM made it."""
    return Completion.model_construct(
        token_ids=token_ids, logprobs=logprobs, finish_reason=finish_reason, policy_version=version
    )
