"""Sweeps in processes of their own, and what they leave behind: none."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from rl.core.rundir import RunDir

ROOT = Path(__file__).parents[2]
LIMIT_S = 240


class Sweep:
    """A sweep in a process of its own, with its descendants on record.

    Args:
        module: `tests.sweep.fake_sweep`, or `rl.sweep` for real runs.
    """

    def __init__(self, module: str, *argv: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *argv],
            cwd=ROOT,
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

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        while not condition():
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)
                pytest.fail(f"it ended before {what}: {self.process.communicate()}")
            self.descendants()

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


@pytest.fixture
def sweep() -> Iterator[Callable[..., Sweep]]:
    """`sweep(module, *argv)` starts one."""
    started: list[Sweep] = []

    def start(module: str, *argv: str) -> Sweep:
        started.append(Sweep(module, *argv))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def steps_of(path: Path) -> int:
    return sum(record["kind"] == "step" for record in RunDir(path).records())
