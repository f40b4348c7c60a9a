"""The learner's ranks are started by torchrun's agent, end with it, and say what they ended for."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from rl.core.processes import Child, Children
from rl.core.pulse import Listener, pulse_file
from rl.core.rundir import RunDir
from tests.commands import words_of
from tests.observe.recorded import new_run

NOBODY = "--server-url=http://127.0.0.1:1"
"""Ranks wait for a server that may come."""
LIMIT_S = 120.0


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Starts two ranks with further arguments."""
    with Children() as children:

        def start(run: RunDir, *argv: str) -> Child:
            command = [sys.executable, "-m", "rl.launch.ranks", "2", str(run.root), "--policy", "p", *argv]
            return children.add(Child("learner", command, tmp_path / "learner.log", {"OMP_NUM_THREADS": "1"}))

        yield start


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, f"waited {LIMIT_S} s for {what}"
        time.sleep(0.05)


def living_ranks(agent: Child, run: RunDir) -> list[psutil.Process]:
    """Both, by their number, once each beats."""
    listeners = [Listener(pulse_file(run, f"learner-{rank}")) for rank in range(2)]

    def both_beat() -> bool:
        assert agent.exit_code is None, agent.said()
        for listener in listeners:
            listener.look()
        return all(listener.heard for listener in listeners)

    wait_until(both_beat, "two ranks")
    processes = [p for p in psutil.Process(agent.pid).children() if "rl.learner" in words_of(p)]
    return sorted(processes, key=words_of)


def has_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_reason_is_handed_on(tmp_path: Path, ranks: Callable[..., Child]) -> None:
    """That of both ranks: this is no run."""
    run = new_run(tmp_path / "run")
    run.config_file.unlink()
    agent = ranks(run)
    wait_until(lambda: agent.exit_code is not None, "its end")
    assert agent.ending == f"ended with exit code 2: {run.root} is not a run: it has no config.json"


def test_a_rank_that_is_killed_is_an_accident_and_the_other_says_nothing(
    tmp_path: Path, ranks: Callable[..., Child]
) -> None:
    run = new_run(tmp_path / "run")
    agent = ranks(run, NOBODY)
    both = living_ranks(agent, run)
    both[1].kill()
    wait_until(lambda: agent.exit_code is not None, "its end")
    assert agent.ending == "ended with exit code 1: rank 1 was killed by SIGKILL"
    assert agent.said().count('"critical"') == 1
    wait_until(lambda: all(map(has_gone, both)), "the end of both")


def test_ranks_end_with_their_agent_also_when_one_is_stopped(tmp_path: Path, ranks: Callable[..., Child]) -> None:
    run = new_run(tmp_path / "run")
    agent = ranks(run, NOBODY)
    both = living_ranks(agent, run)
    both[1].send_signal(signal.SIGSTOP)
    agent.kill()
    wait_until(lambda: all(map(has_gone, both)), "the end of both")
