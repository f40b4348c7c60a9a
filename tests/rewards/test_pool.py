"""The pool against hangs, crashes and murders. The checks are in `tests.rewards.checks`; all processes are real."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from rewards import Mark, Verdict, VerifierPool

OBEY = "tests.rewards.checks:obey"
HOSTILE = r"\boxed{x^{17}+\sin(x)e^{x}+\ln(x^{3}+7)=y^{9}+\cos(xy)}"
"""Within the static limits; solving it against ``x=1`` takes sympy minutes."""


def run(use: Callable[[VerifierPool], Awaitable[Any]], **options: Any) -> Any:
    """Use a pool of `obey`, and see that no process outlives it."""

    async def main() -> Any:
        async with VerifierPool(**{"check": OBEY, "workers": 1, "timeout": 60.0, **options}) as pool:
            return await use(pool)

    before = set(_descendants())
    result = asyncio.run(main())
    assert set(_descendants()) == before
    return result


BEFORE = set[psutil.Process]()
"""What tests of other modules left in this process: zombies that nobody has asked for yet."""


@pytest.fixture(autouse=True, scope="module")
def before() -> None:
    BEFORE.update(psutil.Process().children(recursive=True))


def _descendants() -> list[psutil.Process]:
    return [process for process in psutil.Process().children(recursive=True) if process not in BEFORE]


async def _appears(path: Path) -> int:
    """The process id that a check writes to a file."""
    while not (path.exists() and path.read_text()):
        await asyncio.sleep(0.01)
    return int(path.read_text())


def _worker(verdict: Verdict) -> int:
    return int(verdict.reason)


def test_verdicts_come_in_the_order_of_the_completions() -> None:
    verdicts = run(lambda pool: pool.verify(["1", "2", "1", "3"] * 25, "1"), workers=3)
    assert [verdict.mark for verdict in verdicts] == [Mark.RIGHT, Mark.WRONG, Mark.RIGHT, Mark.WRONG] * 25
    assert 1 <= len({_worker(verdict) for verdict in verdicts}) <= 3
    assert os.getpid() not in {_worker(verdict) for verdict in verdicts}


def test_the_default_check_is_verify_and_outlives_a_hostile_answer() -> None:
    texts = [r"\boxed{33.0}", r"\boxed{x = 33}", "33"]
    verdicts, hostile = run(
        lambda pool: asyncio.gather(pool.verify(texts, "33"), pool.verify([HOSTILE, r"\boxed{x=1}"], "x=1")),
        timeout=3.0,
        check="rewards:verify",
    )
    assert [verdict.reason for verdict in verdicts] == ["equal as numbers", "equal by math-verify", "no boxed answer"]
    assert [verdict.answer for verdict in verdicts] == ["33.0", "x = 33", None]
    assert [(v.mark, v.reason) for v in hostile] == [(Mark.ERROR, "timed out"), (Mark.RIGHT, "same text")]


def test_a_hang_is_killed_and_the_rest_of_the_list_goes_on() -> None:
    verdicts = run(lambda pool: pool.verify(["1", "hang", "1"], "1"), timeout=1.0)
    assert [verdict.mark for verdict in verdicts] == [Mark.RIGHT, Mark.ERROR, Mark.RIGHT]
    assert verdicts[1] == Verdict(mark=Mark.ERROR, reason="timed out", answer=None, gold="1")
    assert _worker(verdicts[0]) != _worker(verdicts[2])


def test_the_event_loop_runs_on_during_a_hang() -> None:
    async def use(pool: VerifierPool) -> int:
        ticks = 0
        hang = asyncio.create_task(pool.verify(["hang"], "1"))
        while not hang.done():
            ticks += 1
            await asyncio.sleep(0.01)
        return ticks

    assert run(use, timeout=1.0) > 10


def test_a_reply_that_came_in_time_counts_though_the_event_loop_was_blocked() -> None:
    async def use(pool: VerifierPool) -> list[Verdict]:
        await pool.verify(["1"], "1")
        check = asyncio.create_task(pool.verify(["1"], "1"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the request is written
        subprocess.run(["sleep", "1.5"], check=True)
        return await check

    assert run(use, timeout=1.0)[0].mark is Mark.RIGHT


def test_a_worker_killed_from_outside_does_not_harm_its_sample(tmp_path: Path) -> None:
    async def use(pool: VerifierPool) -> Verdict:
        check = asyncio.create_task(pool.verify([f"once {tmp_path / 'pid'}"], "1"))
        os.kill(await _appears(tmp_path / "pid"), signal.SIGKILL)
        return (await check)[0]

    assert run(use).mark is Mark.WRONG


def test_an_idle_worker_killed_from_outside_is_replaced() -> None:
    async def use(pool: VerifierPool) -> list[Verdict]:
        first = await pool.verify(["1"], "1")
        os.kill(_worker(first[0]), signal.SIGKILL)
        return first + await pool.verify(["1"], "1")

    first, second = run(use)
    assert second.mark is Mark.RIGHT
    assert _worker(first) != _worker(second)


def test_killing_every_process_of_the_pool_does_not_harm_it() -> None:
    async def use(pool: VerifierPool) -> list[Verdict]:
        await pool.verify(["1", "1"], "1")
        for process in _descendants():
            process.kill()
        return await pool.verify(["1", "2"], "1")

    assert [verdict.mark for verdict in run(use, workers=2)] == [Mark.RIGHT, Mark.WRONG]


def test_a_check_that_kills_its_worker_is_an_error() -> None:
    verdicts = run(lambda pool: pool.verify(["die", "1"], "1"))
    assert [(v.mark, v.reason) for v in verdicts[:1]] == [(Mark.ERROR, "verifier died")]
    assert verdicts[1].mark is Mark.RIGHT


def test_memory_is_limited_and_a_worker_that_grew_retires() -> None:
    verdicts = run(lambda pool: pool.verify([f"grow {2 << 30}", "1", "1", f"grow {600 << 20}", "1"], "1"))
    marks = [verdict.mark for verdict in verdicts]
    assert marks == [Mark.ERROR, Mark.RIGHT, Mark.RIGHT, Mark.WRONG, Mark.RIGHT]
    assert verdicts[0].reason == "verifier died"
    assert _worker(verdicts[1]) == _worker(verdicts[2]) == _worker(verdicts[3]) != _worker(verdicts[4])


def test_an_exception_is_an_error_and_noise_is_no_reply() -> None:
    verdicts = run(lambda pool: pool.verify(["raise", "print", "1"], "1"))
    assert [verdict.mark for verdict in verdicts] == [Mark.ERROR, Mark.WRONG, Mark.RIGHT]
    assert verdicts[0].reason == "verifier raised LookupError: no such thing"


def test_any_text_travels() -> None:
    text = "\ud800\x00\n\r é 🙂 " + "x" * 3_000_000
    assert run(lambda pool: pool.verify([text, ""], text))[0].mark is Mark.RIGHT


def test_workers_ignore_ctrl_c() -> None:
    async def use(pool: VerifierPool) -> list[Verdict]:
        first = await pool.verify(["1"], "1")
        for process in _descendants():
            process.send_signal(signal.SIGINT)
        return first + await pool.verify(["1"], "1")

    first, second = run(use)
    assert _worker(first) == _worker(second)


def test_a_cancelled_check_is_killed(tmp_path: Path) -> None:
    async def use(pool: VerifierPool) -> Verdict:
        check = asyncio.create_task(pool.verify([f"announce {tmp_path / 'pid'}"], "1"))
        pid = await _appears(tmp_path / "pid")
        check.cancel()
        with pytest.raises(asyncio.CancelledError):
            await check
        while psutil.pid_exists(pid):
            await asyncio.sleep(0.01)
        return (await pool.verify(["1"], "1"))[0]

    assert run(use).mark is Mark.RIGHT


def test_leaving_the_pool_kills_running_checks_and_tells_those_who_wait(tmp_path: Path) -> None:
    async def use(pool: VerifierPool) -> asyncio.Task[list[Verdict]]:
        check = asyncio.create_task(pool.verify([f"announce {tmp_path / 'pid'}", "1"], "1"))
        await _appears(tmp_path / "pid")
        return check

    async def main() -> None:
        async with VerifierPool(check=OBEY, workers=1, timeout=60.0) as pool:
            check = await use(pool)
        assert not _descendants()
        with pytest.raises(RuntimeError, match="closed"):
            await check

    asyncio.run(main())


def test_no_worker_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = f"""
import asyncio
from rewards import VerifierPool
async def main():
    async with VerifierPool(check="{OBEY}", workers=2, timeout=60.0) as pool:
        await asyncio.gather(pool.verify(["1"], "1"), pool.verify(["announce {tmp_path / "pid"}"], "1"))
asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    asyncio.run(asyncio.wait_for(_appears(tmp_path / "pid"), 60))
    family = psutil.Process(parent.pid).children(recursive=True)
    assert len(family) == 3  # the zygote and two workers, one of them idle
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_a_check_that_is_no_name_is_refused() -> None:
    for check in ("rewards", "rewards:", "rewards.verify", "my-module:check", "rewards:Verdict.reward"):
        with pytest.raises(ValueError, match="named by module:function"):
            VerifierPool(check=check)
    with pytest.raises(ValueError, match="workers >= 1"):
        VerifierPool(workers=0)


def test_a_check_whose_module_fails_in_the_worker_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_check.py").write_text("raise OSError('no licence file')\n")
    with pytest.raises(RuntimeError, match="broken_check:check: OSError: no licence file"):
        run(lambda pool: pool.verify([], "1"), check="broken_check:check")


def test_a_check_whose_module_takes_for_ever_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("rewards.pool._START_SECONDS", 0.5)
    monkeypatch.setattr("rewards.pool._STOP_SECONDS", 0.5)
    (tmp_path / "endless_check.py").write_text("import time\ntime.sleep(3600)\n")
    with pytest.raises(RuntimeError, match="endless_check:check: its import takes longer than"):
        run(lambda pool: pool.verify([], "1"), check="endless_check:check")


def test_a_check_that_needs_much_memory_keeps_its_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    lines = ["import os", "model = b'x' * (600 << 20)", "def check(completion, gold): return os.getpid()"]
    (tmp_path / "large_check.py").write_text("\n".join(lines))
    first, second = run(lambda pool: pool.verify(["1", "2"], "1"), check="large_check:check")
    assert first.paid == second.paid
