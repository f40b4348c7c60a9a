"""A pulse is heard whatever the clocks say, and silence is only what the watcher was awake to hear."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rl.core import pulse
from rl.core.pulse import Listener, beat

HOUR_NS = 3600 * 10**9


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time as the listener sees it: a test sets it."""
    now = [100.0]
    monkeypatch.setattr(pulse.time, "monotonic", lambda: now[0])
    yield now
    monkeypatch.undo()


def look_for(listener: Listener, seconds: list[float], duration: float) -> None:
    """Looks every tenth of a second."""
    for _ in range(round(duration * 10)):
        seconds[0] += 0.1
        listener.look()


def test_silence_adds_up_until_the_next_beat(tmp_path: Path, seconds: list[float]) -> None:
    listener = Listener(tmp_path / "pulse" / "collector")
    look_for(listener, seconds, 7)
    assert not listener.heard
    assert listener.silent_s == pytest.approx(7)
    os.utime(tmp_path / "pulse" / "collector", ns=(0, HOUR_NS))
    listener.look()
    assert listener.heard
    assert listener.silent_s == 0
    look_for(listener, seconds, 3)
    assert listener.silent_s == pytest.approx(3)


@pytest.mark.parametrize("jump", [-HOUR_NS, HOUR_NS])
def test_a_beat_is_heard_when_the_clock_jumps(tmp_path: Path, seconds: list[float], jump: int) -> None:
    file = tmp_path / "pulse"
    listener = Listener(file)
    touched = file.stat().st_mtime_ns + jump
    os.utime(file, ns=(touched, touched))
    look_for(listener, seconds, 0.1)
    assert listener.heard
    look_for(listener, seconds, 2)
    assert listener.silent_s == pytest.approx(2)


def test_what_a_watcher_slept_through_is_no_silence(tmp_path: Path, seconds: list[float]) -> None:
    listener = Listener(tmp_path / "pulse")
    for _ in range(5):
        seconds[0] += 3600
        listener.look()
    assert listener.silent_s == 5 * pulse.LONGEST_LOOK_S


def test_an_event_loop_beats_while_it_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "BEAT_S", 0.01)
    file = tmp_path / "pulse"

    async def run() -> None:
        listener = Listener(file)
        beating = asyncio.create_task(beat(file))
        for _ in range(3):
            listener.heard = False
            async with asyncio.timeout(30):
                while not listener.heard:
                    await asyncio.sleep(0.01)
                    listener.look()
        blocked = time.monotonic() + 0.3
        listener.heard = False
        while time.monotonic() < blocked:  # as a loop that is stuck
            listener.look()
        assert not listener.heard
        beating.cancel()

    asyncio.run(run())


def test_a_thread_beats_while_its_process_is_not_stopped(
    tmp_path: Path, until: Callable[[Callable[[], bool]], None]
) -> None:
    file = tmp_path / "pulse"
    script = f"""
import time
from pathlib import Path
from rl.core import pulse
pulse.BEAT_S = 0.01
pulse.beat_in_thread(Path({str(file)!r}))
while True:
    pass
"""
    listener = Listener(file)

    def heard() -> bool:
        listener.look()
        return listener.heard

    with subprocess.Popen([sys.executable, "-c", script]) as process:
        until(heard)
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        listener.look()
        listener.heard = False
        stopped = time.monotonic() + 0.3
        while time.monotonic() < stopped:
            assert not heard()
        process.send_signal(signal.SIGCONT)
        until(heard)
        process.kill()
