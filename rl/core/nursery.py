"""The nursery: a process that has imported the large libraries once, and forks the Python processes of a run.

Each process of a run would import torch and transformers for itself, which costs more than all else at its start. A
fork has them at once, and shares their memory. Nurseries nest: a command that was forked by one has its own at once.
"""

import gc
import importlib
import importlib.util
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from setproctitle import setproctitle

from rl.core import cli
from rl.core.parent import die_with_parent

START_LIMIT_S = 120.0
"""What the nursery gets to import the libraries and to fork: longer, and processes start without it."""
GONE = (EOFError, OSError)
"""What talking to a nursery raises that somebody has killed."""
LIBRARY_ENV = {
    "OMP_NUM_THREADS": "1",  # more threads spin against other processes
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
"""What libraries read of the environment when they are imported; what is set already stays."""
NO_CUDA = {"CUDA_VISIBLE_DEVICES": "", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


@contextmanager
def cuda_left_alone() -> Iterator[None]:
    """Who asks torch for GPUs meanwhile hears of none: to look for them could start CUDA, which no fork survives."""
    own = {name: os.environ.get(name) for name in NO_CUDA}
    os.environ.update(NO_CUDA)
    try:
        yield
    finally:
        for name, value in own.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Nursery:
    """Forks processes that run modules. To be entered before this process opens a database or starts a thread of its
    own: a fork would inherit the one's locks, and miss the other.

    Neither the nursery nor what it has forked outlives the process that entered it.

    Args:
        preload: names of the modules to import.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        self._preload = preload
        self._exit_codes: dict[int, int] = {}

    def __enter__(self) -> Self:
        parent = os.getpid()
        self._connection, theirs = multiprocessing.Pipe()
        self._pid = os.fork()
        if self._pid == 0:
            self._connection.close()
            _serve(theirs, self._preload, parent)
        theirs.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        os.kill(self._pid, signal.SIGKILL)  # it may still import
        os.waitpid(self._pid, 0)

    def fork(self, words: Sequence[str], log: Path, env: Mapping[str, str]) -> "Forked | None":
        """Runs a module in a process and a session of its own.

        Args:
            words: what would follow `python -m`; the module's `main(arguments)` is called.
            log: where its output is appended.
            env: what is added to the environment.

        Returns:
            None where the nursery has gone, or cannot fork now.
        """
        end = time.monotonic() + START_LIMIT_S
        try:
            self._connection.send((list(words), str(log), dict(env)))
            while self._connection.poll(max(0.0, end - time.monotonic())):
                pid, exit_code = self._connection.recv()
                if pid is None:
                    return None
                if exit_code is None:
                    self._exit_codes.pop(pid, None)  # of an earlier process with that id
                    return Forked(pid, self)
                self._exit_codes[pid] = exit_code
            os.kill(self._pid, signal.SIGKILL)  # what it forked later would belong to nobody
        except GONE:
            pass
        return None

    def exit_code(self, pid: int, timeout_s: float) -> int | None:
        """Of one of its processes, once that has ended; None where it runs on."""
        end = time.monotonic() + timeout_s
        try:
            while pid not in self._exit_codes and self._connection.poll(max(0.0, end - time.monotonic())):
                ended, exit_code = self._connection.recv()
                self._exit_codes[ended] = exit_code
        except GONE:  # and the kernel kills what it has forked
            return self._exit_codes.setdefault(pid, -signal.SIGKILL)
        return self._exit_codes.get(pid)


class Forked:
    """A process of a nursery, with the methods of `subprocess.Popen` that its user needs."""

    def __init__(self, pid: int, nursery: Nursery) -> None:
        self.pid, self._nursery = pid, nursery

    def poll(self) -> int | None:
        return self._nursery.exit_code(self.pid, 0.0)

    def wait(self, timeout: float) -> int:
        """Raises:
        TimeoutExpired: it runs on.
        """
        if (exit_code := self._nursery.exit_code(self.pid, timeout)) is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return exit_code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _serve(connection: Connection, preload: Sequence[str], parent: int) -> NoReturn:
    """The nursery's own process: forks what it is asked for and says how that ended, until nobody asks any more."""
    try:
        os.setsid()  # Ctrl-C is for the command
        die_with_parent(parent)
        setproctitle(f"tally: nursery of {parent}")
        terminal = os.dup(2)
        with open(os.devnull, "r+b") as nothing:
            for stream in range(3):
                os.dup2(nothing.fileno(), stream)
        os.environ.update({name: os.environ.get(name, value) for name, value in LIBRARY_ENV.items()})
        with cuda_left_alone():
            for module in preload:
                importlib.import_module(module)
        gc.freeze()  # else collecting would copy what forks share
        with suppress(EOFError):
            _fork_on_request(connection)
    except Exception as error:
        words = f"the nursery ended ({type(error).__name__}: {error}); processes start without it\n"
        os.write(terminal, words.encode())
    finally:
        os._exit(0)


def _fork_on_request(connection: Connection) -> NoReturn:
    context = multiprocessing.get_context("fork")
    nursery = os.getpid()
    processes: list[ForkProcess] = []
    while True:
        ready = wait([connection, *(process.sentinel for process in processes)])
        for process in [process for process in processes if process.sentinel in ready]:
            process.join()
            processes.remove(process)
            connection.send((process.pid, process.exitcode))
        if connection in ready:
            process = context.Process(target=_run, args=(connection, nursery, *connection.recv()))
            try:
                process.start()
            except OSError:  # of memory or processes there are too many now
                connection.send((None, None))
            else:
                processes.append(process)
                connection.send((process.pid, None))


def _run(connection: Connection, nursery: int, words: list[str], log: str, env: dict[str, str]) -> NoReturn:
    """What a fork does: as `python -m` would, in a session of its own."""
    connection.close()
    os.setsid()
    die_with_parent(nursery)
    with open(log, "ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.environ.update(env)
    tempfile.tempdir = None  # it may have been read
    run_module(words)


def run_module(words: Sequence[str], *, note: str = "") -> NoReturn:
    """Does in this process what `python -m` would, and ends it; a fork has no exit handlers.

    Args:
        words: the module's name and its arguments.
        note: what tells it from others that do the same, for lists of processes.
    """
    setproctitle(" ".join(["python -m", *words, note]).rstrip())
    sys.argv = list(words)
    cli.run(lambda arguments: _main(words[0])(arguments))


def _main(module: str) -> Callable[[list[str]], int | None]:
    """Of a module, or of a package's `__main__`."""
    found = importlib.util.find_spec(module)
    is_package = found is not None and found.submodule_search_locations is not None
    main: Callable[[list[str]], int | None] = importlib.import_module(
        f"{module}.__main__" if is_package else module
    ).main
    return main
