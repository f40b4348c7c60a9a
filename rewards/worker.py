"""The processes behind `rewards.pool`: a zygote that imports once, and the workers it forks in milliseconds.

    pool ──control──▶ zygote ──fork──▶ worker ◀──one socket each──▶ pool

The zygote is a fresh interpreter, so no worker inherits the caller's event loop, sockets, threads or main module. It
never runs a check, so it is always there to fork and to kill. On the control socket the pool sends 4-byte integers:
`FORK`, with the worker's end of a socket, or the process id of a worker to kill. A worker is reaped only after such a
message: until then its id cannot come to mean another process.
"""

import ctypes
import gc
import json
import math
import os
import resource
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from rewards import own
from rewards.verify import verify

FORK = 0
READY = b"ready"

MESSAGE_CHARS = 80
"""Of an exception, in a verdict's reason."""
MEMORY_BYTES = 1 << 30
"""Address space that a worker may take beyond what importing the check took. One that has had half of it in use retires
after its answer: memory lost to caches must not make the checks of innocent samples fail."""


def main() -> None:
    """Run the zygote: arguments ``CONTROL_FD MODULE:FUNCTION TIMEOUT``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run's supervisor, which ends us
    _die_with_parent()
    control = socket.socket(fileno=int(sys.argv[1]))
    try:
        check = _load(sys.argv[2])
    except Exception as error:
        control.sendall(f"{type(error).__name__}: {error}".encode())
        return
    control.sendall(READY)
    _fork_and_kill(control, check, timeout=float(sys.argv[3]))


def _load(name: str) -> own.Reward:
    """Import a check, and warm up what the default one uses: what is loaded here is shared by all workers."""
    check = own.load(name)
    if check is verify:
        check(r"\boxed{x+1}", "1+x")
    gc.collect()
    gc.freeze()
    return check


def _fork_and_kill(control: socket.socket, check: own.Reward, timeout: float) -> None:
    """Serve the pool until it closes the control socket or dies; no worker survives this."""
    zygote, workers = os.getpid(), set[int]()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 4, 1)
        if not message:
            break
        pid = int.from_bytes(message, "big")
        if pid == FORK:
            pid = os.fork()
            if pid == 0:
                control.close()
                _work(socket.socket(fileno=descriptors[0]), check, timeout, zygote)
            os.close(descriptors[0])
            workers.add(pid)
        elif pid in workers:
            workers.remove(pid)
            _kill(pid)
    for pid in workers:
        _kill(pid)


def _kill(pid: int) -> None:
    """End a worker and whatever its check started."""
    with suppress(ProcessLookupError):  # it has not made its group yet
        os.killpg(pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _work(connection: socket.socket, check: own.Reward, timeout: float, zygote: int) -> NoReturn:
    """Check one request after the other until the pool closes the connection."""
    try:
        os.setpgid(0, 0)
        _die_with_parent(zygote)
        _limit(resource.RLIMIT_AS, _address_space() + MEMORY_BYTES)
        most = _peak_bytes() + MEMORY_BYTES // 2
        _limit(resource.RLIMIT_CORE, 0)
        with connection, connection.makefile("rwb") as stream:
            stream.write(b"%d\n" % os.getpid())
            stream.flush()
            for line in stream:
                # The pool's clock ends a check; this one ends it when the pool has stopped or its loop is blocked.
                _limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + timeout) + 1)
                stream.write(json.dumps(_reply(check, *json.loads(line))).encode() + b"\n")
                stream.flush()
                if _peak_bytes() > most:
                    break
    finally:
        os._exit(0)


def _reply(check: own.Reward, completion_text: str, gold: str) -> tuple[str, str, str | None, float | None]:
    try:
        verdict = own.verdict_of(check(completion_text, gold), completion_text, gold)
        return verdict.mark, verdict.reason, verdict.answer, verdict.paid
    except MemoryError:
        os._exit(1)  # nothing that this process says is to be trusted any more
    except Exception as error:
        said = " ".join(str(error).split())[:MESSAGE_CHARS]
        return "error", f"verifier raised {type(error).__name__}{': ' if said else ''}{said}", None, None


def _limit(kind: int, amount: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (amount if hard == resource.RLIM_INFINITY else min(amount, hard), hard))


def _peak_bytes() -> int:
    """The most memory that this process ever had in use."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _address_space() -> int:
    """Bytes that this process has mapped, where Linux says so."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _die_with_parent(parent: int | None = None) -> None:
    """Ask Linux for SIGKILL when the parent dies, even by SIGKILL; elsewhere the closed socket must do."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)  # it died before we asked
