"""Workers are replaced when they die or freeze, within limits; real processes and real signals."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from rl.buffer.sqlite import LOCKED_S
from rl.core.errors import DivergedError, TallyError
from rl.core.processes import Child, Children
from rl.launch import workers
from rl.launch.workers import SILENCE_LIMIT_S, Accident, Worker

RESUME = "python -m rl.train --resume runs/a"
BEATS = """
import pathlib, subprocess, sys, time
subprocess.Popen(["sleep", "600"])
while True:
    pathlib.Path(sys.argv[1]).touch()
    print("beats", flush=True)
    time.sleep(0.01)
"""
SLEEPS = "import time; time.sleep(600)"
LIMIT_S = 30.0


class Started:
    """Starts scripts one after another, the last one again and again; each is a process of the worker."""

    def __init__(self, folder: Path, children: Children, scripts: list[str]) -> None:
        self.pulse, self.log = folder / "pulse", folder / "worker.log"
        self._scripts, self.processes = scripts, list[Child]()
        self.worker = Worker("collector", self._start, [self.pulse], children, resume=RESUME)

    def _start(self) -> Child:
        script = self._scripts[min(len(self.processes), len(self._scripts) - 1)]
        self.processes.append(Child("collector", [sys.executable, "-c", script, str(self.pulse)], self.log, {}))
        return self.processes[-1]

    def look_until(self, condition: Callable[[], bool]) -> list[Accident]:
        """What happened until then."""
        accidents, end = [], time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < end, f"waited {LIMIT_S} s"
            if accident := self.worker.look():
                accidents.append(accident)
            time.sleep(0.01)
        return accidents

    def starts(self, count: int) -> Callable[[], bool]:
        return lambda: len(self.processes) == count

    def beats(self) -> bool:
        """Whether the newest process has touched its pulse."""
        return "beats" in self.processes[-1].said()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    with Children() as children:

        def begin(*scripts: str) -> Started:
            one = Started(tmp_path, children, list(scripts))
            one.worker.begin()
            return one

        yield begin


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(workers, "SILENCE_LIMIT_S", 3.0)


@pytest.fixture
def seconds_on(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How far the time is on, in seconds; a test adds to it."""
    ahead, monotonic = [0.0], time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + ahead[0])
    return ahead


def test_one_that_is_killed_is_replaced(started: Callable[..., Started]) -> None:
    one = started(BEATS)
    one.look_until(one.beats)
    os.kill(one.processes[0].pid, signal.SIGKILL)
    (accident,) = one.look_until(one.starts(2))
    assert accident == Accident(worker="collector", why="was killed by SIGKILL", attempt=1)
    assert str(accident) == "the collector was killed by SIGKILL; it is started again (1 of 8)"
    assert one.look_until(one.beats) == []
    assert one.processes[1].exit_code is None


def test_one_that_fails_is_replaced_and_says_why(started: Callable[..., Started]) -> None:
    one = started("import sys; print('error: RuntimeError: boom'); sys.exit(1)", "", BEATS)
    first, second = one.look_until(one.starts(3))
    assert first.why == "ended with exit code 1: RuntimeError: boom"
    assert second.why == "ended with exit code 0: it said nothing"
    assert (first.attempt, second.attempt) == (1, 2)


def test_one_that_is_frozen_is_killed_with_what_it_started_and_replaced(started: Callable[..., Started]) -> None:
    one = started(BEATS)
    one.look_until(one.beats)
    frozen = one.processes[0].pid
    (grandchild,) = psutil.Process(frozen).children()
    os.killpg(frozen, signal.SIGSTOP)
    (accident,) = one.look_until(one.starts(2))
    assert re.fullmatch(r"gave no sign of life for \d+ s", accident.why)
    assert one.processes[0].exit_code == -signal.SIGKILL
    one.look_until(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE)


def test_nobody_is_killed_for_what_the_supervisor_slept_through(
    started: Callable[..., Started], seconds_on: list[float]
) -> None:
    """All of them stand still, as on a machine that sleeps; the supervisor is the first that looks again."""
    one = started(BEATS)
    one.look_until(one.beats)
    os.kill(one.processes[0].pid, signal.SIGSTOP)
    os.waitid(os.P_PID, one.processes[0].pid, os.WSTOPPED | os.WNOWAIT)
    assert one.worker.look() is None
    seconds_on[0] += 3600
    assert one.worker.look() is None
    os.kill(one.processes[0].pid, signal.SIGCONT)
    end = time.monotonic() + 2.0
    assert one.look_until(lambda: time.monotonic() > end) == []
    assert len(one.processes) == 1


def test_until_its_first_sign_of_life_a_worker_has_longer(
    started: Callable[..., Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = started(SLEEPS)
    end = time.monotonic() + 2.0
    assert one.look_until(lambda: time.monotonic() > end) == []
    monkeypatch.setattr(workers, "START_LIMIT_S", 2.0)
    (accident,) = one.look_until(one.starts(2))
    assert re.fullmatch(r"gave no sign of life for \d+ s", accident.why)


def test_one_that_dies_again_and_again_ends_the_run(
    started: Callable[..., Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "RESTARTS", 2)
    dies = "import sys; sys.exit('no such device')"
    one = started(f"{dies}", "import os; os.kill(os.getpid(), 9)", dies)
    with pytest.raises(TallyError) as ended:
        one.look_until(one.starts(4))
    assert len(one.processes) == 3
    message = r"the collector had to be replaced 3 times in \d+ s: 2 times it ended with exit code 1: no such device; "
    assert re.fullmatch(message + "once it was killed by SIGKILL", str(ended.value))
    assert ended.value.fix == f"see {one.log}; then {RESUME}"


def test_accidents_of_long_ago_do_not_count(started: Callable[..., Started], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "RESTARTS", 1)
    monkeypatch.setattr(workers, "WINDOW_S", 0.0)
    one = started("import sys; sys.exit(1)")
    assert [accident.attempt for accident in one.look_until(one.starts(5))] == [1, 1, 1, 1]


def test_each_accident_doubles_the_wait(
    started: Callable[..., Started], monkeypatch: pytest.MonkeyPatch, seconds_on: list[float]
) -> None:
    monkeypatch.setattr(workers, "FIRST_WAIT_S", 1000.0)
    monkeypatch.setattr(workers, "LONGEST_WAIT_S", 3500.0)
    monkeypatch.setattr(workers, "WINDOW_S", 1e6)
    one = started("import sys; sys.exit(1)")
    for count, wait_s in enumerate((1000, 2000, 3500, 3500), start=1):
        accidents: list[Accident] = []
        one.look_until(lambda seen=accidents: bool(seen.extend(filter(None, [one.worker.look()])) or seen))
        seconds_on[0] += wait_s - 500
        assert one.worker.look() is None
        assert len(one.processes) == count
        seconds_on[0] += 500
        assert one.worker.look() is None
        assert len(one.processes) == count + 1


@pytest.mark.parametrize(("code", "then"), [(2, ""), (3, f"; then {RESUME}"), (4, "")])
def test_a_reason_ends_the_run_at_once(started: Callable[..., Started], code: int, then: str) -> None:
    one = started(f"import sys; print('error: no such model\\n  fix: name another'); sys.exit({code})")
    with pytest.raises(TallyError) as ended:
        one.look_until(one.starts(2))
    assert str(ended.value) == f"the collector ended with exit code {code}: no such model"
    assert ended.value.fix == f"name another; see {one.log}{then}"
    assert (ended.value.exit_code == DivergedError.exit_code) == (code == 4)


def test_work_that_may_be_done_is_no_accident(tmp_path: Path) -> None:
    with Children() as children:
        command = [sys.executable, "-c", ""]
        start = partial(Child, "learner", command, tmp_path / "log", {})
        worker = Worker("learner", start, [], children, resume=RESUME, may_finish=True)
        worker.begin()
        assert not worker.finished
        end = time.monotonic() + LIMIT_S
        while not worker.finished:
            assert worker.look() is None
            assert time.monotonic() < end
        assert worker.look() is None


def test_one_that_was_halted_stays_so_until_it_is_begun(started: Callable[..., Started]) -> None:
    one = started(BEATS)
    one.look_until(one.beats)
    one.worker.halt()
    assert one.processes[0].exit_code == -signal.SIGKILL
    end = time.monotonic() + 0.3
    assert one.look_until(lambda: time.monotonic() > end) == []
    assert len(one.processes) == 1
    one.worker.begin()
    assert one.look_until(one.beats) == []


def test_a_worker_that_was_stopped_in_a_transaction_is_killed_before_the_others_give_up_on_it() -> None:
    assert LOCKED_S > 2 * SILENCE_LIMIT_S
