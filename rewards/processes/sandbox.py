"""One check at a time in a killable process, for a caller that may be any thread of any program.

It has what `VerifierPool` has, zygote, worker and limits, without an event loop. An asyncio program uses the pool: here
the caller waits.
"""

import atexit
import os
import socket
import subprocess
import threading
import time
from contextlib import suppress

from rewards.processes import zygote
from rewards.processes.zygote import Limits, inside
from rewards.verdict import Verdict

__all__ = ["call", "close", "inside"]

_LIMITS = Limits()


def call(name: str, first: str, second: str) -> Verdict:
    """The verdict of check ``module:function`` on two texts, from a process of this process's own.

    The first call starts it, which takes as long as importing the module. A check beyond a limit gives an error "timed
    out" or "out of memory"; one whose process dies of anything else, twice, "verifier died". Not to be used where
    `inside` is true: call the function itself.

    Raises:
        RuntimeError: the check cannot be imported.
    """
    return _sandboxes.setdefault(name, _Sandbox(name)).call(first, second)


def close() -> None:
    """End the processes, and wait until they are gone. The next call starts new ones."""
    for sandbox in list(_sandboxes.values()):
        sandbox.close()


class _Sandbox:
    """The zygote of one check and one worker, for one thread at a time."""

    def __init__(self, check: str) -> None:
        self._check = check
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._worker: socket.socket | None = None

    def call(self, first: str, second: str) -> Verdict:
        request = zygote.encode_request(first, second)
        with self._turn:
            for _ in range(zygote.ATTEMPTS):
                try:
                    verdict = self._ask(self._waiting_worker(), request, second)
                except OSError:  # no processes are to be had
                    verdict = zygote.failure(zygote.DIED, second)
                if verdict.reason != zygote.DIED:
                    break
        return verdict

    def close(self) -> None:
        with self._turn:
            self._stop()

    def forget(self) -> None:
        """In a forked child: let go of the processes, which are the parent's and must end with it."""
        for connection in (self._control, self._worker):
            if connection is not None:
                connection.close()
        if self._process is not None:
            self._process.returncode = 0  # not the child's to wait for

    def _ask(self, worker: socket.socket, request: bytes, gold: str) -> Verdict:
        start = time.monotonic()
        deadline = start + _LIMITS.seconds
        goes_on = False
        said = bytearray()
        try:
            worker.settimeout(_LIMITS.seconds)
            with suppress(OSError):  # it died, or is stuck; what it said before is still to be read
                worker.sendall(request)
            with suppress(OSError):
                while not said.endswith(b"\n") and len(said) <= zygote.MAX_REPLY_BYTES:
                    worker.settimeout(max(deadline - time.monotonic(), 0.001))
                    if not (chunk := worker.recv(zygote.CHUNK_BYTES)):
                        break
                    said += chunk
            seconds = time.monotonic() - start
            verdict, goes_on = zygote.decode_reply(said, gold, seconds=seconds, timeout=_LIMITS.seconds)
        finally:
            if not goes_on:
                zygote.hang_up(worker)
        return verdict

    def _waiting_worker(self) -> socket.socket:
        if self._worker is not None and zygote.waits(self._worker):
            return self._worker
        try:
            return self._fork()
        except OSError:  # there is no zygote yet, or somebody killed it
            self._stop()
            self._start()
            return self._fork()

    def _start(self) -> None:
        # In its place before there is a process: a child that another thread forks now must find it to close it.
        self._control, theirs = socket.socketpair()
        with theirs:
            # Not with this thread: the process may go on long after it. The closed socket ends the zygote.
            self._process = zygote.spawn(theirs, self._check, _LIMITS, dies_with_thread=False)
        self._control.settimeout(zygote.START_SECONDS)
        news = self._control.recv(4096)
        if not news:
            raise ConnectionResetError("the zygote died while it started")
        if news != zygote.READY:
            self._stop()
            raise RuntimeError(f"check {self._check} cannot be imported: {news.decode(errors='replace')}")

    def _fork(self) -> socket.socket:
        if self._control is None:
            raise ConnectionError("no zygote was started")
        self._worker = zygote.request_worker(self._control)
        self._worker.settimeout(zygote.START_SECONDS)
        if not self._worker.recv(1):
            raise ConnectionResetError("the zygote died before it forked")
        return self._worker

    def _stop(self) -> None:
        if self._worker is not None:
            zygote.hang_up(self._worker)
        if self._control is not None:
            with self._control, suppress(OSError):
                self._control.settimeout(zygote.STOP_SECONDS)
                self._control.shutdown(socket.SHUT_WR)
                self._control.recv(1)  # its end: the zygote has killed and reaped its worker
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._worker = self._control = self._process = None


def _forget() -> None:
    for sandbox in _sandboxes.values():
        sandbox.forget()
    _sandboxes.clear()


_sandboxes: dict[str, _Sandbox] = {}
atexit.register(close)
os.register_at_fork(after_in_child=_forget)
