"""Verification in killable processes, for an asyncio program: no completion can hang, crash or starve the caller.

Example::

    async with VerifierPool(workers=2) as pool:
        verdicts = await pool.verify([rollout.text for rollout in rollouts], problem.gold)
"""

import asyncio
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Self

from rewards.processes import zygote
from rewards.verdict import Verdict

_BATCH = 16
_BATCH_CHARACTERS = 1 << 14
_CHECK_NAME = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")


class VerifierPool:
    """A fixed number of worker processes that check one completion at a time, each within limits.

    Args:
        workers: processes.
        timeout: wall-clock seconds for one check. It is there for what sleeps; what computes is stopped by its CPU
            time, which does not depend on how busy the machine is.
        cpu_seconds: CPU time for one check; None for 1 s in our own checks, and ``timeout`` in a user's.
        memory_bytes: what a worker may take beyond what importing the check took; None for 320 MiB in our own checks
            (the worker then stays under 512 MiB), and 1 GiB in a user's.
        check: ``module:function`` of ``(completion, gold) -> float | bool | Verdict`` (see `rewards.own`). The module
            is imported once, in a process of its own.

    Raises:
        ValueError: ``check`` is no such name, or a number is not positive.
        RuntimeError: on entering: the processes cannot start, e.g. importing ``check`` failed.
    """

    def __init__(
        self,
        *,
        workers: int = 2,
        timeout: float = 5.0,
        cpu_seconds: float | None = None,
        memory_bytes: int | None = None,
        check: str = "rewards:verify",
    ) -> None:
        limits = zygote.Limits.of(check, timeout)
        limits = replace(
            limits,
            cpu_seconds=limits.cpu_seconds if cpu_seconds is None else cpu_seconds,
            memory_bytes=limits.memory_bytes if memory_bytes is None else memory_bytes,
        )
        if workers < 1 or min(limits.seconds, limits.cpu_seconds, limits.memory_bytes) <= 0:
            raise ValueError(f"VerifierPool needs workers >= 1 and limits > 0; got {workers=}, {limits}")
        if not _CHECK_NAME.fullmatch(check):
            raise ValueError(f"a check is named by module:function, and {check!r} is no such name")
        self._workers = workers
        self._limits = limits
        self._zygote = _Zygote(check, limits)
        self._starting = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._idle: asyncio.Queue[_Worker | None] = asyncio.Queue()
        for _ in range(workers):
            self._idle.put_nowait(None)

    async def __aenter__(self) -> Self:
        await self._zygote.start()
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Kill all processes and wait until they are gone; checks that are still running raise RuntimeError."""
        self._closed = True
        async with self._starting:
            await self._zygote.stop()
        for _ in range(self._idle.qsize()):
            if (worker := self._idle.get_nowait()) is not None:
                worker.kill()
            self._idle.put_nowait(worker)  # a check that waits for it must learn that the pool is closed

    async def verify(self, completion_texts: Sequence[str], gold: str) -> list[Verdict]:
        """Mark the completions of one problem, in their order; not more of them at a time than there are workers.

        A check beyond a limit gives an error "timed out" or "out of memory"; one whose process dies of anything else,
        twice, "verifier died". The other completions are not affected.

        Raises:
            RuntimeError: the pool is closed, or was entered in another event loop; or its processes died and cannot
                be started again.
        """
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError("this VerifierPool is not of this event loop: verify inside its `async with` block")
        batches = list(_batches(completion_texts, self._workers))
        verdicts: list[list[Verdict]] = [[] for _ in batches]
        waiting = iter(enumerate(batches))

        async def check() -> None:
            for place, texts in waiting:
                verdicts[place] = await self._check(texts, gold)

        await asyncio.gather(*(check() for _ in range(min(self._workers, len(batches)))))
        return [verdict for batch in verdicts for verdict in batch]

    async def _check(self, texts: Sequence[str], gold: str) -> list[Verdict]:
        requests = [zygote.encode_request(text, gold) for text in texts]
        verdicts: list[Verdict] = []
        deaths = 0
        worker = await self._idle.get()
        try:
            while len(verdicts) < len(texts):
                if worker is None or not worker.waits():
                    worker = await self._fork()
                *answered, last = await worker.ask(requests[len(verdicts) :], gold, self._limits.seconds)
                verdicts += answered
                deaths = 0 if answered else deaths
                if last.reason == zygote.DIED and (deaths := deaths + 1) < zygote.ATTEMPTS:
                    continue
                verdicts.append(last)
                deaths = 0
            return verdicts
        finally:
            self._idle.put_nowait(worker)

    async def _fork(self) -> "_Worker":
        async with self._starting:
            for _ in range(zygote.ATTEMPTS):
                if self._closed:
                    raise RuntimeError("this VerifierPool is closed: verify inside its `async with` block")
                try:
                    return await self._zygote.fork()
                except OSError:  # somebody killed the zygote, and its workers with it
                    await self._zygote.stop()
                    await self._zygote.start()
            raise RuntimeError("the verifier's processes die as soon as they start: is the machine out of memory?")


def _batches(texts: Sequence[str], workers: int) -> Iterator[Sequence[str]]:
    """What is sent to a worker at once: a fair share, and so little that neither side can fill the socket's buffer."""
    most = min(_BATCH, -(-len(texts) // workers))
    start = size = 0
    for end, text in enumerate(texts):
        size += len(text)
        if end > start and (end - start == most or size > _BATCH_CHARACTERS):
            yield texts[start:end]
            start, size = end, len(text)
    if texts:
        yield texts[start:]


class _Zygote:
    """The pool's end of the process that forks and kills the workers."""

    def __init__(self, check: str, limits: zygote.Limits) -> None:
        self._check = check
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        try:
            news = await self._spawn()
            if news != zygote.READY:
                reason = news.decode(errors="replace") or "its process died"
                raise RuntimeError(f"the verifier cannot start with check {self._check}: {reason}")
        except BaseException:
            await self.stop()
            raise

    async def _spawn(self) -> bytes:
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        with theirs:
            self._process = zygote.spawn(theirs, self._check, self._limits, dies_with_thread=True)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(zygote.START_SECONDS):
                return await loop.sock_recv(self._control, 4096)
        except TimeoutError:
            return f"its import takes longer than {zygote.START_SECONDS:g} s".encode()

    async def fork(self) -> "_Worker":
        """Start a worker. Raises OSError when the zygote is not there any more."""
        connection = zygote.request_worker(self._control)
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(zygote.START_SECONDS):
                if not await loop.sock_recv(connection, 1):
                    raise ConnectionResetError("the zygote died before it forked")
        except BaseException:
            zygote.hang_up(connection)
            raise
        return _Worker(connection)

    async def stop(self) -> None:
        """Close the control socket: the zygote kills and reaps its workers and exits."""
        loop = asyncio.get_running_loop()
        try:
            with suppress(OSError):
                self._control.shutdown(socket.SHUT_WR)
                async with asyncio.timeout(zygote.STOP_SECONDS):
                    await loop.sock_recv(self._control, 1)
        finally:
            self._control.close()
            if self._process is not None:
                self._process.kill()
                self._process.wait()


class _Worker:
    """The pool's end of one worker process."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def waits(self) -> bool:
        return zygote.waits(self._connection)

    def kill(self) -> None:
        zygote.hang_up(self._connection)

    async def ask(self, requests: Sequence[bytes], gold: str, timeout: float) -> list[Verdict]:
        """The verdicts on requests, in order: on all, or up to the one after which the worker is no more.

        A worker that did not answer within ``timeout`` seconds of its last answer is killed, also on cancellation.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        # The deadline kills; the read then ends with the connection. So a reply that came in time is used even if the
        # caller's event loop was busy for longer than the timeout.
        deadline = loop.call_later(timeout, self._shut_down)
        goes_on, said = False, b""
        verdicts: list[Verdict] = []
        try:
            with suppress(OSError):  # it died, or was killed; what was said before is still to be read
                await loop.sock_sendall(self._connection, b"".join(requests))
            while len(verdicts) < len(requests):
                goes_on = False
                with suppress(OSError):
                    while b"\n" not in said and len(said) < zygote.MAX_REPLY_BYTES:
                        if not (chunk := await loop.sock_recv(self._connection, zygote.CHUNK_BYTES)):
                            break
                        said += chunk
                reply, newline, said = said.partition(b"\n")
                verdict, goes_on = zygote.decode_reply(
                    reply + newline, gold, seconds=loop.time() - start, timeout=timeout
                )
                verdicts.append(verdict)
                if not goes_on:
                    break
                deadline.cancel()
                start, deadline = loop.time(), loop.call_later(timeout, self._shut_down)
        finally:
            deadline.cancel()
            if not goes_on:
                self.kill()
        return verdicts

    def _shut_down(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
