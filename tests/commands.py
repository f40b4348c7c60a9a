"""Commands of ours in processes of their own, with all that they start on record."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
LIMIT_S = 240


def words_of(process: psutil.Process) -> list[str]:
    """Of its command line; one that has set its title anew has that as a single word, and one that has ended none."""
    try:
        return " ".join(process.cmdline()).split()
    except psutil.NoSuchProcess:
        return []


class Command:
    """`python -m MODULE` in a session of its own, as a user starts it."""

    def __init__(self, module: str, *argv: str, cwd: Path = ROOT) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *argv],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"},  # with a key it would upload
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._seen: set[psutil.Process] = set()

    def descendants(self) -> set[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            self._seen |= set(psutil.Process(self.process.pid).children(recursive=True))
        return self._seen

    def child(self, module: str) -> psutil.Process:
        """The process that runs `python -m MODULE`."""
        for process in self.descendants():
            if module in words_of(process):
                return process
        raise LookupError(module)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + LIMIT_S
        while not condition():
            assert self.process.poll() is None, f"it ended before {what}: {self.process.communicate()}"
            assert time.monotonic() < end, f"waited {LIMIT_S} s for {what}"
            self.descendants()
            time.sleep(0.05)

    def finish(self) -> tuple[int, str, str]:
        """(exit code, stdout, stderr), once it has ended and nothing of it is left."""
        out, err = self.process.communicate(timeout=LIMIT_S)
        self.assert_nothing_left()
        return self.process.returncode, out, err

    def assert_nothing_left(self) -> None:
        _, alive = psutil.wait_procs(self.descendants(), timeout=20)
        assert not alive, f"left behind: {[process.cmdline() for process in alive]}"

    def kill(self) -> None:
        self.process.kill()
        for process in self.descendants():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.communicate()
