"""The pool as its callers see it. The checks are in `tests.rewards.checks`; all processes are real."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from rewards import Mark, Verdict, VerifierPool

OBEY = "tests.rewards.checks:obey"


def run(use: Callable[[VerifierPool], Awaitable[Any]], **options: Any) -> Any:
    """Use a pool of `obey`, and see that no process outlives it."""

    async def main() -> Any:
        async with VerifierPool(**{"check": OBEY, "workers": 1, "timeout": 60.0, **options}) as pool:
            return await use(pool)

    before = descendants()
    result = asyncio.run(main())
    assert descendants() <= before
    return result


def descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


async def appears(path: Path) -> int:
    """The process id that a check writes to a file."""
    while not (path.exists() and path.read_text().endswith("\n")):
        await asyncio.sleep(0.01)
    return int(path.read_text())


async def disappears(pid: int) -> None:
    """Returns when a process has died; a zombie has."""
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)


def worker(verdict: Verdict) -> int:
    return int(verdict.reason)


def test_verdicts_come_in_the_order_of_the_completions() -> None:
    verdicts = run(lambda pool: pool.verify(["1", "2", "1", "3"] * 25, "1"), workers=3)
    assert [verdict.mark for verdict in verdicts] == [Mark.RIGHT, Mark.WRONG, Mark.RIGHT, Mark.WRONG] * 25
    assert 1 <= len({worker(verdict) for verdict in verdicts}) <= 3
    assert os.getpid() not in {worker(verdict) for verdict in verdicts}


def test_the_default_check_is_verify() -> None:
    texts = [r"\boxed{33.0}", r"\boxed{34}", "33", r"\boxed{(x+1)^2}"]
    numbers, formulas = run(
        lambda pool: asyncio.gather(pool.verify(texts, "33"), pool.verify(texts, "x^2+2x+1")), check="rewards:verify"
    )
    assert [verdict.mark for verdict in numbers] == [Mark.RIGHT, Mark.WRONG, Mark.WRONG, Mark.WRONG]
    assert [verdict.answer for verdict in numbers] == ["33.0", "34", None, "(x+1)^2"]
    assert [verdict.mark for verdict in formulas] == [Mark.WRONG, Mark.WRONG, Mark.WRONG, Mark.RIGHT]


def test_a_verdict_travels_whole() -> None:
    (verdict,) = run(lambda pool: pool.verify([r"\frac12"], "½"), check="tests.rewards.checks:full")
    assert verdict == Verdict(
        mark=Mark.RIGHT, reason="because", answer=r"\frac12", gold="½", paid=0.5, rule="found", compared="text"
    )
    assert isinstance(verdict.mark, Mark)
    assert 0 < verdict.seconds < 60


def test_any_text_travels() -> None:
    text = "\ud800\x00\n\r é 🙂 " + "x" * 3_000_000
    assert run(lambda pool: pool.verify([text, ""], text))[0].mark is Mark.RIGHT
    (verdict,) = run(lambda pool: pool.verify([text], "1"), check="tests.rewards.checks:full")
    assert verdict.answer == text


def test_an_exception_is_an_error_and_noise_is_no_reply() -> None:
    verdicts = run(lambda pool: pool.verify(["raise", "print", "1"], "1"))
    assert [verdict.mark for verdict in verdicts] == [Mark.ERROR, Mark.WRONG, Mark.RIGHT]
    assert verdicts[0].reason == "verifier raised LookupError: no such thing"


def test_a_call_has_no_more_tasks_than_there_are_workers() -> None:
    async def use(pool: VerifierPool) -> int:
        call = asyncio.create_task(pool.verify(["1"] * 1000, "1"))
        before, most = len(asyncio.all_tasks()), 0
        while not call.done():
            most = max(most, len(asyncio.all_tasks()) - before)
            await asyncio.sleep(0)
        return most

    assert run(use, workers=2) == 2


def test_the_event_loop_runs_on_during_a_check() -> None:
    async def use(pool: VerifierPool) -> int:
        ticks = 0
        spin = asyncio.create_task(pool.verify(["spin"], "1"))
        while not spin.done():
            ticks += 1
            await asyncio.sleep(0.01)
        return ticks

    assert run(use, cpu_seconds=1.0) > 10


def test_two_event_loops_have_a_pool_each_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=60)

    async def use(pool: VerifierPool) -> list[Verdict]:
        both.wait()
        verdicts = await pool.verify(["1", "2"] * 100, "1")
        both.wait()
        return verdicts

    async def main() -> list[Verdict]:
        async with VerifierPool(check=OBEY) as pool:
            return await use(pool)

    before = descendants()
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: asyncio.run(main()), range(2))
    assert [verdict.mark for verdict in first + second] == [Mark.RIGHT, Mark.WRONG] * 200
    assert not {worker(verdict) for verdict in first} & {worker(verdict) for verdict in second}
    assert descendants() <= before


def test_a_pool_of_another_event_loop_is_refused() -> None:
    async def use(pool: VerifierPool) -> None:
        with pytest.raises(RuntimeError, match="not of this event loop"):
            await asyncio.to_thread(asyncio.run, pool.verify(["1"], "1"))

    run(use)
    with pytest.raises(RuntimeError, match="inside its `async with` block"):
        asyncio.run(VerifierPool().verify(["1"], "1"))


def test_a_cancelled_check_is_killed(tmp_path: Path) -> None:
    async def use(pool: VerifierPool) -> Verdict:
        check = asyncio.create_task(pool.verify([f"announce {tmp_path / 'pid'}; sleep"], "1"))
        pid = await appears(tmp_path / "pid")
        check.cancel()
        with pytest.raises(asyncio.CancelledError):
            await check
        await disappears(pid)
        return (await pool.verify(["1"], "1"))[0]

    assert run(use).mark is Mark.RIGHT


def test_leaving_the_pool_kills_running_checks_and_tells_those_who_wait(tmp_path: Path) -> None:
    async def use(pool: VerifierPool) -> asyncio.Task[list[Verdict]]:
        check = asyncio.create_task(pool.verify([f"announce {tmp_path / 'pid'}; sleep", "1"], "1"))
        await appears(tmp_path / "pid")
        return check

    async def main() -> None:
        async with VerifierPool(check=OBEY, workers=1, timeout=60.0) as pool:
            check = await use(pool)
        with pytest.raises(RuntimeError, match="closed"):
            await check

    before = descendants()
    asyncio.run(main())
    assert descendants() <= before


def test_no_worker_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = f"""
import asyncio
from rewards import VerifierPool
async def main():
    async with VerifierPool(check="{OBEY}", workers=2, timeout=60.0) as pool:
        await asyncio.gather(pool.verify(["1"], "1"), pool.verify(["announce {tmp_path / "pid"}; sleep"], "1"))
asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    asyncio.run(asyncio.wait_for(appears(tmp_path / "pid"), 60))
    family = psutil.Process(parent.pid).children(recursive=True)
    assert len(family) == 3  # the zygote and two workers, one of them idle
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_sets_have_the_same_order_in_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hashing_check.py").write_text("def check(completion, gold): return hash(completion)")
    first, second = (run(lambda pool: pool.verify(["x"], "1"), check="hashing_check:check") for _ in range(2))
    assert first == second


def test_a_check_that_is_no_name_and_limits_that_are_none_are_refused() -> None:
    for check in ("rewards", "rewards:", "rewards.verify", "my-module:check", "rewards:Verdict.reward"):
        with pytest.raises(ValueError, match="named by module:function"):
            VerifierPool(check=check)
    for wrong in ({"workers": 0}, {"timeout": 0}, {"cpu_seconds": 0}, {"memory_bytes": 0}):
        with pytest.raises(ValueError, match="workers >= 1 and limits > 0"):
            VerifierPool(**wrong)  # type: ignore[arg-type]


def test_a_check_whose_module_fails_in_the_worker_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_check.py").write_text("raise OSError('no licence file')\n")
    with pytest.raises(RuntimeError, match="broken_check:check: OSError: no licence file"):
        run(lambda pool: pool.verify([], "1"), check="broken_check:check")


def test_a_check_whose_module_takes_for_ever_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("rewards.processes.zygote.START_SECONDS", 0.5)
    monkeypatch.setattr("rewards.processes.zygote.STOP_SECONDS", 0.5)
    (tmp_path / "endless_check.py").write_text("import time\ntime.sleep(3600)\n")
    with pytest.raises(RuntimeError, match="endless_check:check: its import takes longer than"):
        run(lambda pool: pool.verify([], "1"), check="endless_check:check")
