"""Verification in killable processes, for an asyncio program: no completion can hang, crash or starve the caller.

Example::

    async with VerifierPool(workers=2, timeout=5.0) as pool:
        verdicts = await pool.verify([rollout.text for rollout in rollouts], problem.gold)
"""

import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from rewards.verdict import Mark, Verdict
from rewards.worker import FORK, READY

_START_SECONDS = 60.0
_STOP_SECONDS = 5.0
_ATTEMPTS = 2
"""A worker that dies may have been killed from outside: its sample gets a second one."""

_MAX_REPLY_BYTES = 1 << 24

_CHECK_NAME = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")


class VerifierPool:
    """A fixed number of worker processes that check one completion at a time, each under a deadline.

    Args:
        workers: processes, each at most 1 GiB.
        timeout: wall-clock seconds for one check; then its process is killed (SIGKILL) and replaced.
        check: ``module:function`` of ``(completion, gold) -> float | bool | Verdict`` (see `rewards.own`). The module
            is imported once, in a process of its own: one whose check calls `rewards.verify` should import
            `rewards.symbolic`, so that not every worker has to.

    Raises:
        ValueError: ``check`` is no such name, or a number is not positive.
        RuntimeError: on entering: the processes cannot start, e.g. importing ``check`` failed.
    """

    def __init__(self, *, workers: int = 2, timeout: float = 5.0, check: str = "rewards:verify") -> None:
        if workers < 1 or timeout <= 0:
            raise ValueError(f"VerifierPool needs workers >= 1 and timeout > 0; got {workers=}, {timeout=}")
        if not _CHECK_NAME.fullmatch(check):
            raise ValueError(f"a check is named by module:function, and {check!r} is no such name")
        self._timeout = timeout
        self._zygote = _Zygote(check, timeout)
        self._starting = asyncio.Lock()
        self._closed = False
        self._idle: asyncio.Queue[_Worker | None] = asyncio.Queue()
        for _ in range(workers):
            self._idle.put_nowait(None)

    async def __aenter__(self) -> Self:
        await self._zygote.start()
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
        """Mark the completions of one problem, in their order.

        A check that outlives the timeout gives an error "timed out"; one whose process dies twice "verifier died".
        The other completions are not affected.

        Raises:
            RuntimeError: the pool is closed, or its processes died and cannot be started again.
        """
        return await asyncio.gather(*(self._check(text, gold) for text in completion_texts))

    async def _check(self, text: str, gold: str) -> Verdict:
        request = json.dumps([text, gold]).encode() + b"\n"
        worker = await self._idle.get()
        try:
            for _ in range(_ATTEMPTS):
                if worker is None or not worker.alive:
                    worker = await self._fork()
                try:
                    mark, reason, answer, paid = json.loads(await worker.ask(request, self._timeout))
                except TimeoutError:
                    return Verdict(mark=Mark.ERROR, reason="timed out", answer=None, gold=gold)
                except ConnectionError:
                    continue
                return Verdict(mark=Mark(mark), reason=reason, answer=answer, gold=gold, paid=paid)
            return Verdict(mark=Mark.ERROR, reason="verifier died", answer=None, gold=gold)
        finally:
            self._idle.put_nowait(worker)

    async def _fork(self) -> "_Worker":
        async with self._starting:
            for _ in range(_ATTEMPTS):
                if self._closed:
                    raise RuntimeError("this VerifierPool is closed: verify inside its `async with` block")
                try:
                    return await self._zygote.fork()
                except (OSError, TimeoutError):  # somebody killed the zygote, and its workers with it
                    await self._zygote.stop()
                    await self._zygote.start()
            raise RuntimeError("the verifier's processes die as soon as they start: is the machine out of memory?")


class _Zygote:
    """The pool's end of the process that forks and kills the workers (see `rewards.worker`)."""

    def __init__(self, target: str, timeout: float) -> None:
        self._target = target
        self._check_timeout = timeout

    async def start(self) -> None:
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-c", "from rewards.worker import main; main()"),
                *(str(theirs.fileno()), self._target, str(self._check_timeout)),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        try:
            loop = asyncio.get_running_loop()
            try:
                news = await asyncio.wait_for(loop.sock_recv(self._control, 4096), _START_SECONDS)
            except TimeoutError:
                news = f"its import takes longer than {_START_SECONDS:g} s".encode()
            if news != READY:
                reason = news.decode(errors="replace") or "its process died"
                raise RuntimeError(f"the verifier cannot start with check {self._target}: {reason}")
        except BaseException:
            await self.stop()
            raise

    async def fork(self) -> "_Worker":
        """Start a worker. Raises ConnectionError or TimeoutError when the zygote is not there any more."""
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_MAX_REPLY_BYTES)
        try:
            with theirs:
                socket.send_fds(self._control, [FORK.to_bytes(4, "big")], [theirs.fileno()])
            hello = await asyncio.wait_for(reader.readline(), _START_SECONDS)
            if not hello:
                raise ConnectionResetError("the worker died before it was ready")
        except BaseException:
            writer.transport.abort()
            raise
        return _Worker(self, int(hello), reader, writer)

    def kill(self, pid: int) -> None:
        with suppress(OSError):  # the zygote is gone, and its workers with it
            self._control.send(pid.to_bytes(4, "big"))

    async def stop(self) -> None:
        """Close the control socket: the zygote kills and reaps its workers and exits."""
        self._control.close()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


class _Worker:
    """The pool's end of one worker process."""

    def __init__(self, zygote: _Zygote, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._zygote = zygote
        self._pid = pid
        self._reader = reader
        self._writer = writer
        self.alive = True

    async def ask(self, request: bytes, timeout: float) -> bytes:
        """The reply to a request, both one line. A worker that did not answer is killed, also on cancellation.

        Raises:
            TimeoutError: no answer within ``timeout`` seconds.
            ConnectionError: the process died.
        """
        loop = asyncio.get_running_loop()
        # The deadline kills; the read then ends with the connection. So a reply that came in time is used even if the
        # caller's event loop was busy for longer than the timeout.
        deadline = loop.call_later(timeout, self.kill)
        reply = b""
        try:
            self._writer.write(request)
            await self._writer.drain()
            reply = await self._reader.readline()
        except (ConnectionError, ValueError):  # ValueError: a reply beyond all bounds
            pass
        finally:
            deadline.cancel()
            if not reply.endswith(b"\n"):
                self.kill()
        if reply.endswith(b"\n"):
            return reply
        raise TimeoutError if loop.time() >= deadline.when() else ConnectionResetError

    def kill(self) -> None:
        if self.alive:
            self.alive = False
            self._zygote.kill(self._pid)
            self._writer.transport.abort()
