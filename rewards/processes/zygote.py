"""The processes behind `VerifierPool` and `rewards.processes.sandbox`: a zygote that imports once, and what it forks.

    caller ──control──▶ zygote ──fork──▶ worker ◀──one socket each──▶ caller

The zygote is a fresh interpreter, so no worker inherits the caller's event loop, sockets, threads or main module. It
never runs a check, so it is always there to fork, to kill and to reap.

* For each worker the caller sends one byte over the control socket, with the worker's end of a new socket. When the
  control socket is closed, the zygote kills its workers and exits.
* On a worker's socket the zygote says `FORKED`. Then requests and replies take turns, one line each. The caller kills
  the worker by shutting the socket down.
* The zygote keeps the worker's end too. When the worker dies it says of what: NUL, the cause, newline. JSON has no NUL,
  so a reply that was cut short cannot hide it.
"""

import ctypes
import errno
import gc
import json
import math
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NoReturn

from rewards import own
from rewards.verdict import Mark, Verdict

READY = b"ready"
FORKED = b"\n"
CHUNK_BYTES = 1 << 16
MAX_REPLY_BYTES = 1 << 24

TIMED_OUT = "timed out"
OUT_OF_MEMORY = "out of memory"
DIED = "verifier died"
"""Nobody knows of what: it may have been killed from outside, so its sample gets a second worker."""
ATTEMPTS = 2
_CAUSES = {errno.ENOMEM: OUT_OF_MEMORY, -signal.SIGPROF: TIMED_OUT, -signal.SIGXCPU: TIMED_OUT}

START_SECONDS = 60.0
STOP_SECONDS = 5.0

_MESSAGE_CHARS = 80
"""Of an exception, in a verdict's reason."""
_REPLY_FIELDS = ("mark", "reason", "answer", "paid", "rule", "compared", "seconds")

_inside = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What one check may take. Beyond it the process is killed from outside, and the verdict is an error."""

    seconds: float = 5.0
    """Wall-clock time, for what sleeps. A busy machine uses it up too, so it is far beyond the CPU time."""
    cpu_seconds: float = 1.0
    memory_bytes: int = 320 << 20
    """Address space beyond what importing the check took. A worker that has had half of it in use retires after its
    answer: memory lost to caches must not make the checks of innocent samples fail."""

    @classmethod
    def of(cls, check: str, seconds: float) -> "Limits":
        """Those of our own checks, or of a user's: that may wait on a network, and load a model."""
        if _is_ours(check):
            return cls(seconds=seconds)
        return cls(seconds=seconds, cpu_seconds=seconds, memory_bytes=1 << 30)


def inside() -> bool:
    """Whether this process is a zygote or a worker: killable, so that a check may run anything in it."""
    return _inside


def spawn(theirs: socket.socket, check: str, limits: Limits, *, dies_with_thread: bool) -> subprocess.Popen[bytes]:
    """Start a zygote. On the other end of ``theirs`` it says `READY`, or why not.

    Args:
        dies_with_thread: have Linux kill it when the calling thread ends, however it ends.
    """
    arguments = [str(theirs.fileno()), check, json.dumps(asdict(limits)), json.dumps(dies_with_thread)]
    return subprocess.Popen(
        [sys.executable, "-P", "-c", "from rewards.processes.zygote import main; main()", *arguments],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # The same order of sets and dictionaries in every run: sympy's way through an expression depends on it.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "0"},
    )


def request_worker(control: socket.socket) -> socket.socket:
    """The caller's end of a new worker's socket. Raises OSError when the zygote is not there any more."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            socket.send_fds(control, [b"+"], [theirs.fileno()])
    except BaseException:
        ours.close()
        raise
    return ours


def waits(connection: socket.socket) -> bool:
    """Whether a worker that owes no reply is alive; if not, its socket is closed. Makes the socket non-blocking."""
    try:
        connection.setblocking(False)
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        pass  # like news from it, that is what a death looks like
    hang_up(connection)
    return False


def hang_up(connection: socket.socket) -> None:
    """Have the zygote kill a worker. Closing is not enough where a child of the caller has inherited the socket."""
    with connection, suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def encode_request(first: str, second: str) -> bytes:
    return json.dumps([first, second]).encode() + b"\n"


def encode_reply(verdict: Verdict, *, retires: bool) -> bytes:
    """Raises TypeError or ValueError for a user's own verdict that is none."""
    fields = {name: getattr(verdict, name) for name in _REPLY_FIELDS}
    return json.dumps([{**fields, "mark": Mark(verdict.mark)}, retires]).encode() + b"\n"


def decode_reply(said: bytes | bytearray, gold: str, *, seconds: float, timeout: float) -> tuple[Verdict, bool]:
    """The verdict in what a worker said up to a newline or its end, and whether the worker takes another request.

    Args:
        seconds: since the request; if there is no reply and this is not within ``timeout``, then it was killed for it.
    """
    line, newline, _ = bytes(said).partition(b"\n")
    if not newline:
        return failure(DIED if seconds < timeout else TIMED_OUT, gold, seconds), False
    _, nul, cause = line.rpartition(b"\0")
    if nul:
        return failure(cause.decode(), gold, seconds), False
    fields, retires = json.loads(line)
    return Verdict(**{**fields, "mark": Mark(fields["mark"]), "gold": gold}), not retires


def failure(reason: str, gold: str, seconds: float = 0.0) -> Verdict:
    return Verdict(mark=Mark.ERROR, reason=reason, answer=None, gold=gold, seconds=seconds)


def main() -> None:
    """Run the zygote: arguments ``CONTROL_FD MODULE:FUNCTION LIMITS DIES_WITH_THREAD``, the last two in JSON."""
    global _inside
    _inside = True
    descriptor, name, limits, dies_with_thread = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run's supervisor, which ends us
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # whatever the caller had blocked
    if json.loads(dies_with_thread):
        _die_with_parent()
    control = _inherited(int(descriptor))
    try:
        check = own.load(name)
        if _is_ours(name):
            for answer in (r"(x+1)^2", r"\boxed{(x+1)^2}"):  # needs sympy: it is loaded once, for all workers
                check(answer, "x^2+2x+1")
    except Exception as error:
        control.sendall(f"{type(error).__name__}: {error}".encode())
        return
    gc.collect()
    gc.freeze()
    control.sendall(READY)
    _serve(control, check, Limits(**json.loads(limits)))


def _is_ours(check: str) -> bool:
    return check.partition(":")[0].partition(".")[0] == "rewards"


def _serve(control: socket.socket, check: own.Reward, limits: Limits) -> None:
    """Fork, kill and reap until the caller closes the control socket or dies; no worker survives this."""
    zygote, workers = os.getpid(), dict[int, socket.socket]()
    bell, ringer = socket.socketpair()
    ringer.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler no signal would ring
    signal.set_wakeup_fd(ringer.fileno(), warn_on_full_buffer=False)
    while True:
        ready = _ready([control, bell], hung_up=workers.values())
        if bell.fileno() in ready:
            bell.recv(4096)
        for pid, connection in list(workers.items()):
            code = _reap(pid, kill=connection.fileno() in ready)
            if code is not None:
                with suppress(OSError):  # the caller is gone, or does not read: it will learn that the socket ended
                    connection.send(b"\0%s\n" % _CAUSES.get(code, DIED).encode(), socket.MSG_DONTWAIT)
                workers.pop(pid).close()
        if control.fileno() in ready:
            message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
            if not message:
                break
            connection = _inherited(descriptors[0])
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for other in (control, bell, ringer, *workers.values()):
                    other.close()
                _work(connection, check, limits, zygote)
            os.setpgid(pid, pid)  # before its first request, so that what its check starts is in the group
            workers[pid] = connection
            with suppress(OSError):
                connection.send(FORKED)
    for pid in workers:
        _reap(pid, kill=True)


def _inherited(descriptor: int) -> socket.socket:
    inherited = socket.socket(fileno=descriptor)
    inherited.set_inheritable(False)
    inherited.setblocking(True)  # whatever `socket.setdefaulttimeout` says in the caller, or in the check's module
    return inherited


def _ready(readable: Iterable[socket.socket], *, hung_up: Iterable[socket.socket]) -> set[int]:
    """Wait until one of the sockets can be read, or the other end of another is shut; the descriptors of those."""
    poll = select.poll()
    for one in readable:
        poll.register(one, select.POLLIN)
    for one in hung_up:
        poll.register(one, 0)
    return {descriptor for descriptor, _ in poll.poll()}


def _reap(pid: int, *, kill: bool) -> int | None:
    """The exit code of a worker, or minus the signal, when it is dead; what its check started is then dead too."""
    if kill:
        os.kill(pid, signal.SIGKILL)
    dead, status = os.waitpid(pid, 0 if kill else os.WNOHANG)
    if not dead:
        return None
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status)


def _work(connection: socket.socket, check: own.Reward, limits: Limits, zygote: int) -> NoReturn:
    """Check one request after the other until the caller closes the connection."""
    try:
        _die_with_parent(zygote)
        for number in (signal.SIGCHLD, signal.SIGPROF, signal.SIGXCPU):
            signal.signal(number, signal.SIG_DFL)
        _limit(resource.RLIMIT_AS, _address_space() + limits.memory_bytes)
        _limit(resource.RLIMIT_CORE, 0)
        most = _peak_bytes() + limits.memory_bytes // 2
        with connection, connection.makefile("rwb") as stream:
            for line in stream:
                # The timer's signal kills, precisely. The limit, in whole seconds, is for a check that disarms it.
                _limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + limits.cpu_seconds) + 1)
                signal.setitimer(signal.ITIMER_PROF, limits.cpu_seconds)
                verdict = _verdict(check, *json.loads(line))
                signal.setitimer(signal.ITIMER_PROF, 0)  # what is left of it is not for the next check
                retires = _peak_bytes() > most
                stream.write(encode_reply(verdict, retires=retires))
                stream.flush()
                if retires:
                    break
    except MemoryError:
        os._exit(errno.ENOMEM)  # nothing that this process says is to be trusted any more
    finally:
        os._exit(0)


def _verdict(check: own.Reward, first: str, second: str) -> Verdict:
    start = time.perf_counter()
    try:
        verdict = own.verdict_of(check(first, second), first, second)
    except MemoryError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:_MESSAGE_CHARS]
        verdict = failure(f"verifier raised {type(error).__name__}{': ' if said else ''}{said}", second)
    return replace(verdict, seconds=time.perf_counter() - start)


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
