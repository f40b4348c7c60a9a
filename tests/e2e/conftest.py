"""The whole service as a user starts it, and the processes that it leaves behind: none."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from rl.core.rundir import RunDir

SMALL = ["--eval-problems", "8", "--eval-samples", "2"]
LIMIT_S = 240


class Train:
    """`python -m rl.train` in a session of its own, with its descendants on record."""

    def __init__(self, *argv: str, cwd: Path) -> None:
        repository = Path(__file__).parents[2]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rl.train", *argv],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(repository), "WANDB_MODE": "offline"},  # with a key it would upload
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
            with suppress(psutil.NoSuchProcess):
                if module in process.cmdline():
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
        _, alive = psutil.wait_procs(self.descendants(), timeout=20)
        assert not alive, f"left behind: {[p.cmdline() for p in alive]}"
        return self.process.returncode, out, err

    def kill(self) -> None:
        self.process.kill()
        for process in self.descendants():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def train(tmp_path: Path) -> Iterator[Callable[..., Train]]:
    started: list[Train] = []

    def start(*argv: str) -> Train:
        started.append(Train(*argv, cwd=tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def steps_of(run: RunDir) -> list[int]:
    return [record["step"] for record in run.records() if record["kind"] == "step"]
