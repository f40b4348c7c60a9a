"""The sandbox from threads, loops and forks, and against what it is there for. All processes are real."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from rewards import Mark, Verdict
from rewards.processes import sandbox
from rewards.processes.zygote import Limits
from tests.rewards.test_pool import OBEY, appears, descendants, disappears, worker

WHERE = "tests.rewards.checks:where"
PROGRAM = f"""
import os, sys, time
from rewards.processes import sandbox
print(sandbox.call("{OBEY}", "1", "1").reason, flush=True)
"""
"""The start of a program that has a sandbox, and says who its worker is."""


@pytest.fixture(autouse=True, scope="module")
def closed() -> Iterator[None]:
    """Leaves other tests no processes."""
    before = descendants()
    yield
    sandbox.close()
    assert descendants() <= before


def call(text: str) -> Verdict:
    return sandbox.call(OBEY, text, "1")


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=30)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


def family(verdict: Verdict) -> list[psutil.Process]:
    """The worker that gave a verdict, and its zygote."""
    process = psutil.Process(worker(verdict))
    return [process, process.parent()]


def test_one_process_gives_the_verdicts() -> None:
    right, wrong = call("1"), call("2")
    assert (right.mark, wrong.mark) == (Mark.RIGHT, Mark.WRONG)
    assert worker(right) == worker(wrong) != os.getpid()
    assert call("raise").reason == "verifier raised LookupError: no such thing"


def test_the_process_knows_that_it_may_run_anything() -> None:
    assert not sandbox.inside()
    assert sandbox.call(WHERE, "", "").reason == "True True"


def test_a_check_that_cannot_be_imported_says_why() -> None:
    with pytest.raises(RuntimeError, match="no_such_module:check cannot be imported: ModuleNotFoundError"):
        sandbox.call("no_such_module:check", "", "")


def test_any_text_travels() -> None:
    text = "\ud800\x00\n\r é 🙂 " + "x" * 3_000_000
    assert sandbox.call(OBEY, text, text).mark is Mark.RIGHT


def test_many_threads_and_event_loops_have_one_sandbox() -> None:
    async def in_a_loop() -> Verdict:
        return call("1")

    before = descendants()
    with ThreadPoolExecutor(8) as threads:
        verdicts = list(threads.map(call, ["1", "2"] * 100))
        verdicts += threads.map(lambda _: asyncio.run(in_a_loop()), range(8))
    assert [verdict.mark for verdict in verdicts] == [Mark.RIGHT, Mark.WRONG] * 100 + [Mark.RIGHT] * 8
    assert len({worker(verdict) for verdict in verdicts}) == 1
    assert len(descendants() - before) <= 2


def test_a_sandbox_outlives_the_thread_that_started_it() -> None:
    sandbox.close()
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(call, "1").result()
    assert worker(first) == worker(call("1"))


def test_what_computes_sleeps_or_grows_for_too_long_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    spun = call("spin")
    assert (spun.mark, spun.reason) == (Mark.ERROR, "timed out")
    assert call(f"grow {1 << 30}").reason == "out of memory"
    assert call("die").reason == "verifier died"
    monkeypatch.setattr(sandbox, "_LIMITS", Limits(seconds=1.0))
    assert call("sleep").reason == "timed out"
    assert call("1").mark is Mark.RIGHT


def test_a_worker_that_grew_retires() -> None:
    first, second = call(f"grow {200 << 20}"), call("1")
    assert worker(first) != worker(second)


@pytest.mark.parametrize("member", [0, 1], ids=["worker", "zygote"])
def test_processes_killed_from_outside_are_replaced(member: int, tmp_path: Path) -> None:
    processes = family(call("1"))
    processes[member].kill()
    assert gone(processes[: member + 1])  # a worker dies with its zygote, and two deaths are one too many for a check
    assert call("1").mark is Mark.RIGHT
    with ThreadPoolExecutor(1) as thread:
        check = thread.submit(call, f"once {tmp_path / 'pid'}")
        running = psutil.Process(asyncio.run(appears(tmp_path / "pid")))
        (running, running.parent())[member].kill()
        assert check.result().mark is Mark.WRONG


def test_ctrl_c_does_not_reach_the_processes() -> None:
    first = call("1")
    for process in family(first):
        process.send_signal(signal.SIGINT)
    assert worker(call("1")) == worker(first)


def test_a_forked_child_has_a_sandbox_of_its_own_and_leaves_the_parents_alone() -> None:
    first = call("1")
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, call("1").reason.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        others = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    assert others.isdigit()
    assert int(others) != worker(first) == worker(call("1"))
    asyncio.run(disappears(int(others)))


def test_a_child_forked_during_a_check_can_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_LIMITS", Limits(seconds=2.0))
    with ThreadPoolExecutor(1) as thread:
        check = thread.submit(call, f"announce {tmp_path / 'pid'}; sleep")
        asyncio.run(appears(tmp_path / "pid"))
        if (child := os.fork()) == 0:
            os._exit(0 if call("1").mark is Mark.RIGHT else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert check.result().reason == "timed out"


def start(program: str) -> tuple["subprocess.Popen[str]", list[psutil.Process]]:
    """A program that goes on after `PROGRAM`; its worker and its zygote."""
    arguments = [sys.executable, "-c", PROGRAM + program]
    parent = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    process = psutil.Process(int(parent.stdout.readline()))
    return parent, [process, process.parent()]


def test_nothing_is_left_when_the_interpreter_has_ended() -> None:
    parent, processes = start("sys.stdin.read()")
    parent.communicate()
    assert parent.returncode == 0
    assert not [process for process in processes if process.is_running()]


def test_nothing_is_left_after_a_process_that_is_killed() -> None:
    parent, processes = start("sys.stdin.read()")
    parent.kill()
    parent.communicate()
    assert gone(processes)


def test_a_forked_child_does_not_keep_a_killed_parents_processes() -> None:
    parent, processes = start("print(os.fork(), flush=True); time.sleep(3600)")
    assert parent.stdin is not None
    assert parent.stdout is not None
    with parent.stdin, parent.stdout:
        child = psutil.Process(max(int(parent.stdout.readline()), int(parent.stdout.readline())))  # the child prints 0
    try:
        parent.kill()
        parent.wait()
        assert gone(processes)
        assert child.is_running()
    finally:
        child.kill()
