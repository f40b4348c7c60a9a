"""Child processes that never outlive their parent, however it ends."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

from rl.core import log
from rl.core.errors import DivergedError, TallyError, UsageError
from rl.core.nursery import Nursery
from rl.core.parent import die_with_parent

REASONS = (UsageError.exit_code, TallyError.exit_code, DivergedError.exit_code)
"""Exit codes of a process that says why it ended, and would meet that again. Every other end is an accident."""
STOP_S = 10.0
"""What a process gets between SIGTERM and SIGKILL."""
KILLED_S = 30.0
"""What the kernel gets to end a process that was sent SIGKILL, and may be deep in a driver."""


class Process(Protocol):
    """What who watches over a process has to know of it, wherever that runs."""

    name: str
    log: Path

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal."""

    @property
    def ending(self) -> str:
        """How it ended: `was killed by SIGKILL`, or `ended with exit code 1: no such file`."""

    def last_words(self) -> str:
        """Why it ended, and the fix on a line of its own."""

    def terminate(self) -> None:
        """Asks it to end."""

    def kill_session(self) -> None:
        """Has it ended, and whatever it started."""

    def kill(self) -> None:
        """The same, and waits for it.

        Raises:
            TallyError: it is still there.
        """


class Child:
    """A process of the run: in a session of its own (Ctrl-C reaches only the parent), its output in a log file.

    Args:
        command: `python -m …` where there is a nursery.
        nursery: forks the process; where it has gone, that starts as without one.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str],
        pass_fds: Sequence[int] = (),
        nursery: Nursery | None = None,
    ) -> None:
        self.name, self.log = name, log
        with log.open("ab") as output:
            self._log_start = output.tell()
            forked = nursery.fork(command[2:], log, env) if nursery else None
            self._process = forked or subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                pass_fds=pass_fds,
                start_new_session=True,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )

    @property
    def pid(self) -> int:
        """Also the id of its session."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self._process.poll()

    @property
    def ending(self) -> str:
        """How it ended: `was killed by SIGKILL`, or `ended with exit code 1: no such file`."""
        code = self.exit_code
        if code is None:
            return "runs"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}: {self.last_words().partition(chr(10))[0]}"

    def said(self) -> str:
        """What it has written to its log."""
        return self.log.read_bytes()[self._log_start :].decode(errors="replace")

    def last_words(self) -> str:
        """Why it ended: its first `log.last_words`, or `error:` line, with the fix; else the last line of its log that
        has a word."""
        lines = [line for line in self.said().splitlines() if any(map(str.isalnum, line))]
        for line, after in zip_longest(lines, lines[1:], fillvalue=""):
            if line.startswith("error: "):
                fix = after.removeprefix("  fix: ") if after.startswith("  fix: ") else ""
                return log.with_fix(line.removeprefix("error: "), fix)
            if (entry := log.parsed(line)).get("level") == "critical":
                return log.with_fix(entry["message"], entry.get("fix", ""))
        last = lines[-1] if lines else "it said nothing"
        return str(log.parsed(last).get("message", last))

    def terminate(self) -> None:
        if self.exit_code is None:
            self._process.terminate()

    def interrupt(self) -> None:
        """What Ctrl-C does: a run finishes its step, saves and ends."""
        if self.exit_code is None:
            self._process.send_signal(signal.SIGINT)

    def wait(self, timeout_s: float) -> int | None:
        """The exit code, once it has ended; None where it runs on."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self.exit_code

    def kill_session(self) -> None:
        """Has the kernel end the process and whatever it left in its session."""
        with suppress(ProcessLookupError):  # all of them have gone
            os.killpg(self.pid, signal.SIGKILL)

    def kill(self) -> None:
        """Ends the process and whatever it left in its session.

        Raises:
            TallyError: it is still there, since the kernel cannot end it.
        """
        self.kill_session()
        if self.wait(KILLED_S) is None:
            fix = "a driver or a disk that does not answer holds it: see dmesg"
            raise TallyError(f"the {self.name} (process {self.pid}) cannot be killed", fix=fix)


P = TypeVar("P", bound=Process)


class Children:
    """The processes of a run; leaving the context ends them all, gently first."""

    def __init__(self) -> None:
        self._children: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def add(self, child: P) -> P:
        self._children.append(child)
        return child

    def end(self, child: Process) -> None:
        """Kills one of them: its process id may be another's from now on."""
        child.kill()
        self._children.remove(child)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children:
            child.terminate()
        end = time.monotonic() + STOP_S
        while any(c.exit_code is None for c in self._children) and time.monotonic() < end:
            time.sleep(0.02)
        for child in self._children:
            child.kill_session()
        for child in self._children:
            child.kill()
