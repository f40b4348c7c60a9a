"""vLLM in a process of its own: the event loop tells it what to sample, and gets what was sampled.

Sampling has Python's lock for itself, and HTTP takes another core. vLLM has such a process too, which costs half a
minute of start on CPU, and a core that spins.
"""

import asyncio
import itertools
import pickle
import socket
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from signal import Signals
from time import monotonic
from typing import Any

from rollout_server.engines import Adapter, Facts, Piece, Status, TextRequest
from rollout_server.engines.vllm_load import Options
from rollout_server.engines.vllm_process import LIFE, SIZE_BYTES, Reply, packed
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
        self._failure: EngineError | None = None
        """What it ended by."""
        self._options = options
        self._facts: Facts | None = None
        self._writer: StreamWriter | None = None
        self._numbers = itertools.count(LIFE + 1)
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
        loop = asyncio.get_running_loop()
        self._loaded: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()
        ours, theirs = socket.socketpair()
        with theirs:
            command = (sys.executable, "-m", "rollout_server.engines.vllm_process", str(theirs.fileno()))
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self._send(self._options)
        self._reading = asyncio.create_task(self._read(reader, self._writer))
        await self._loaded

    async def join(self) -> None:
        await self._ended
        if self._failure:
            raise self._failure

    def close(self) -> None:
        if self._writer and not self._failure:
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
        replies = self._asked[number] = asyncio.Queue()
        last = False
        try:
            self._send((method, number, *args))
            while not last:
                last, value = await replies.get()
                if isinstance(value, Exception):
                    raise value
                yield value
        finally:
            del self._asked[number]
            if not last:
                self._send(("abort", number))

    def _send(self, message: Any) -> None:
        assert self._writer, "the process was started"
        self._writer.write(packed(message))

    async def _read(self, reader: StreamReader, writer: StreamWriter) -> None:
        """What the process says, until it has ended."""
        said_why, failure = False, None
        with suppress(EOFError, ConnectionError):
            while True:
                size = int.from_bytes(await reader.readexactly(SIZE_BYTES))
                replies: list[Reply] = pickle.loads(await reader.readexactly(size))
                self._heard = monotonic()
                for number, last, value in replies:
                    if number == LIFE and last:
                        said_why, failure = True, value
                    elif number == LIFE:
                        self._on_loaded(value)
                    elif asked := self._asked.get(number):  # else it was aborted meanwhile
                        asked.put_nowait((last, value))
        writer.close()
        code = await self._process.wait()
        if not said_why:
            ending = f"was killed by {Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            failure = KilledError(f"the engine died: its process {ending} (model {self.model})")
        self._end(failure)

    def _on_loaded(self, facts: Facts) -> None:
        self._facts = facts
        self.status = "ready"
        self._loaded.set_result(None)

    def _end(self, failure: EngineError | None) -> None:
        if failure:
            self.status, self.detail = "failed", str(failure)
            self._failure = failure
        error = failure or EngineError("the engine was closed")
        if not self._loaded.done():
            self._loaded.set_exception(error)
        for replies in self._asked.values():
            replies.put_nowait((True, error))
        self._ended.set_result(None)


def _completion(
    token_ids: list[int], logprobs: list[float], finish_reason: FinishReason, *, version: int | None
) -> Completion:
    """vLLM's completion as the wire's; not validated again, since vLLM made it."""
    return Completion.model_construct(
        token_ids=token_ids, logprobs=logprobs, finish_reason=finish_reason, policy_version=version
    )
