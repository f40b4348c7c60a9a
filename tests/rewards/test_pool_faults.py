"""The pool against hangs, hunger, crashes and murders. The checks are in `tests.rewards.checks`; all is real."""

import asyncio
import os
import signal
import socket
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from rewards import Mark, Verdict, VerifierPool
from tests.rewards.test_pool import appears, descendants, disappears, run, worker

HOSTILE = [
    r"\boxed{x^{17}+\sin(x)e^{x}+\ln(x^{3}+7)=y^{9}+\cos(xy)}",
    r"\boxed{9^{9^{9^{9}}}}",
    r"\boxed{(a+b+c+d+e)^{999}(x+y)^{999}}",
]
MIB = 1 << 20


def reasons(verdicts: list[Verdict]) -> list[str]:
    assert all(verdict.mark is Mark.ERROR and verdict.answer is None for verdict in verdicts)
    return [verdict.reason for verdict in verdicts]


def test_cpu_time_ends_a_check_that_computes_long_before_the_wall_clock_would() -> None:
    spun, other = run(lambda pool: pool.verify(["spin", "1"], "1"), cpu_seconds=1.0, timeout=200.0)
    assert reasons([spun]) == ["timed out"]
    assert spun.seconds < 100
    assert other.mark is Mark.RIGHT


def test_a_check_that_disarms_its_timer_is_killed_all_the_same() -> None:
    assert reasons(run(lambda pool: pool.verify(["disarm; spin"], "1"), cpu_seconds=0.5)) == ["timed out"]


def test_wall_clock_time_ends_a_check_that_sleeps_and_the_rest_of_the_list_goes_on() -> None:
    first, slept, second = run(lambda pool: pool.verify(["1", "sleep", "1"], "1"), timeout=2.0)
    assert reasons([slept]) == ["timed out"]
    assert first.mark is second.mark is Mark.RIGHT
    assert worker(first) != worker(second)


def test_each_check_has_the_cpu_time_for_itself() -> None:
    verdicts = run(lambda pool: pool.verify(["burn 0.3"] * 5, "1"), cpu_seconds=1.0)
    assert len({worker(verdict) for verdict in verdicts}) == 1


def test_a_reply_that_came_in_time_counts_though_the_event_loop_was_blocked() -> None:
    async def use(pool: VerifierPool) -> list[Verdict]:
        await pool.verify(["1"], "1")
        check = asyncio.create_task(pool.verify(["1"], "1"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the request is written
        subprocess.run(["sleep", "1.5"], check=True)
        return await check

    assert run(use, timeout=1.0)[0].mark is Mark.RIGHT


def test_hostile_answers_are_paid_nothing_and_harm_no_other() -> None:
    texts = [*HOSTILE, r"\boxed{1+x}"]
    *hostile, other = run(lambda pool: pool.verify(texts, "x+1"), check="rewards:verify")
    assert all(verdict.mark is not Mark.RIGHT for verdict in hostile)
    assert other.mark is Mark.RIGHT


def test_memory_is_limited_and_a_worker_that_grew_retires() -> None:
    texts = [f"grow {2048 * MIB}", "1", "1", f"grow {600 * MIB}", "1"]
    hungry, *others = run(lambda pool: pool.verify(texts, "1"))
    assert reasons([hungry]) == ["out of memory"]
    assert [verdict.mark for verdict in others] == [Mark.RIGHT, Mark.RIGHT, Mark.WRONG, Mark.RIGHT]
    first, second, grown, fresh = map(worker, others)
    assert first == second == grown != fresh


def test_a_worker_of_our_own_check_stays_below_half_a_gibibyte() -> None:
    async def use(pool: VerifierPool) -> int:
        await pool.verify([r"\boxed{(x+1)^2}"], "x^2+2x+1")
        family = descendants() - before
        (process,) = [process for process in family if process.parent() in family]
        return process.rlimit(psutil.RLIMIT_AS)[0]

    before = descendants()
    assert run(use, check="rewards:verify") < 512 * MIB


def test_a_retirement_costs_the_next_check_no_attempt(tmp_path: Path) -> None:
    log = tmp_path / "log"
    texts = [f"note {log} {number}; grow {40 * MIB}" for number in range(100)]
    verdicts = run(lambda pool: pool.verify(texts, "1"), workers=2, memory_bytes=64 * MIB)
    assert len({worker(verdict) for verdict in verdicts}) == 100
    assert Counter(log.read_text().split()) == dict.fromkeys(map(str, range(100)), 1)


def test_a_check_that_needs_much_memory_keeps_its_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    lines = ["import os", "model = b'x' * (600 << 20)", "def check(completion, gold): return os.getpid()"]
    (tmp_path / "large_check.py").write_text("\n".join(lines))
    first, second = run(lambda pool: pool.verify(["1", "2"], "1"), check="large_check:check")
    assert first.paid == second.paid


def test_a_check_that_kills_its_worker_is_an_error() -> None:
    for order in ("die", "crash"):
        verdict, other = run(lambda pool, order=order: pool.verify([order, "1"], "1"))
        assert reasons([verdict]) == ["verifier died"]
        assert other.mark is Mark.RIGHT


def test_what_a_check_started_dies_with_its_worker(tmp_path: Path) -> None:
    async def use(pool: VerifierPool) -> None:
        await pool.verify([f"start {tmp_path / 'pids'}; die"], "1")
        first, second = map(int, (tmp_path / "pids").read_text().split())
        await disappears(first)
        await disappears(second)

    run(use)


def test_a_worker_killed_in_the_middle_of_a_thousand_checks_costs_none_of_them(tmp_path: Path) -> None:
    async def use(pool: VerifierPool) -> list[Verdict]:
        checks = asyncio.create_task(pool.verify(texts, "1"))
        os.kill(await appears(tmp_path / "pid"), signal.SIGKILL)
        return await checks

    log = tmp_path / "log"
    texts = [f"note {log} {number}" for number in range(1000)]
    texts[500] += f"; once {tmp_path / 'pid'}"
    assert [verdict.mark for verdict in run(use, workers=2)] == [Mark.WRONG] * 1000
    assert Counter(log.read_text().split()) == {**dict.fromkeys(map(str, range(1000)), 1), "500": 2}


def test_a_zygote_killed_in_the_middle_of_a_thousand_checks_costs_none_of_them(tmp_path: Path) -> None:
    async def use(pool: VerifierPool) -> list[Verdict]:
        checks = asyncio.create_task(pool.verify(texts, "1"))
        running = psutil.Process(await appears(tmp_path / "pid"))
        running.parent().kill()
        return await checks

    texts = ["1"] * 1000
    texts[500] = f"once {tmp_path / 'pid'}"
    verdicts = run(use, workers=2)
    assert [verdict.mark for verdict in verdicts] == [Mark.RIGHT] * 500 + [Mark.WRONG] + [Mark.RIGHT] * 499


def test_an_idle_worker_killed_from_outside_is_replaced() -> None:
    async def use(pool: VerifierPool) -> list[Verdict]:
        first = await pool.verify(["1"], "1")
        os.kill(worker(first[0]), signal.SIGKILL)
        return first + await pool.verify(["1"], "1")

    first, second = run(use)
    assert second.mark is Mark.RIGHT
    assert worker(first) != worker(second)


def test_killing_every_process_of_the_pool_does_not_harm_it() -> None:
    async def use(pool: VerifierPool) -> list[Verdict]:
        await pool.verify(["1", "1"], "1")
        for process in descendants() - before:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return await pool.verify(["1", "2"], "1")

    before = descendants()
    assert [verdict.mark for verdict in run(use, workers=2)] == [Mark.RIGHT, Mark.WRONG]


def test_what_the_caller_does_with_signals_and_sockets_does_not_reach_the_workers() -> None:
    texts = ["1", "spin", "die", "2"]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGPROF, signal.SIGXCPU})
    ignored = signal.signal(signal.SIGPROF, signal.SIG_IGN)
    socket.setdefaulttimeout(0.01)
    try:
        right, spun, died, wrong = run(lambda pool: pool.verify(texts, "1"), cpu_seconds=0.5)
    finally:
        socket.setdefaulttimeout(None)
        signal.signal(signal.SIGPROF, ignored)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert reasons([spun, died]) == ["timed out", "verifier died"]
    assert (right.mark, wrong.mark) == (Mark.RIGHT, Mark.WRONG)


def test_workers_ignore_ctrl_c() -> None:
    async def use(pool: VerifierPool) -> list[Verdict]:
        first = await pool.verify(["1"], "1")
        for process in descendants() - before:
            process.send_signal(signal.SIGINT)
        return first + await pool.verify(["1"], "1")

    before = descendants()
    first, second = run(use)
    assert worker(first) == worker(second)
