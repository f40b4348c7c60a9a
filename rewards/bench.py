"""How fast the verifier is beside math-verify called directly, and whether hostile answers harm the others.

``python -m rewards.bench --data-dir DIR`` prints verdicts per second of one core and latencies: on right answers of
GSM8K, on MATH's solutions against their own and other problems' golds, and on whole outputs of models. With
``--adversarial FILE`` it also runs 10,000 ordinary jobs with hostile ones among them.

Exit code: 0; 1 when a hostile answer was paid, changed another's verdict or left a process, never for time; 2 usage.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from rewards.extract import extract
from rewards.own import load
from rewards.processes.pool import VerifierPool
from rewards.verdict import Mark, Verdict

ORDINARY_PER_HOSTILE = 20
MEMORY_AT = (0.1, 0.5, 1.0)
"""Shares of the jobs after which the pool's memory is read."""
WARM_UP = [(r"\boxed{(x+1)^2}", "x^2+2x+1"), (r"It is \boxed{(1, \frac{\pi}{2}]}.", r"(1, 3\sqrt{2})"), ("So 7.", "42")]
OUT = Console(highlight=False, markup=False, soft_wrap=True)

Row = tuple[str, str]
"""A completion's text and a gold."""
Paid = Callable[[str, str], Awaitable[bool]]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Rows:
    """Completions of one kind, and by which of our checks they are marked."""

    name: str
    check: str
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Timing:
    """One pass over the rows of a set: CPU time of all processes that took part, wall-clock time of each verdict."""

    cpu_seconds: float
    latencies: list[float]
    paid: list[bool]


def read_sets(data_dir: Path, generations: Path | None, rows: int) -> list[Rows]:
    """The sets of the benchmark, of each the first rows that have a gold.

    Raises:
        OSError, KeyError, ValueError: a file cannot be read, or is not as its authors have published it.
    """
    gsm8k = [row["answer"].rpartition("####")[2].strip() for row in _read(data_dir / "gsm8k/test.jsonl")]
    solutions = [row["solution"] for row in _read(data_dir / "math/test.jsonl")]
    solved = [(text, gold) for text in solutions if (gold := extract(text).answer)][:rows]
    others = [(text, gold) for (text, _), (_, gold) in zip(solved, solved[1:] + solved[:1], strict=True)]
    sets = [
        Rows("GSM8K", "rewards:verify", [(rf"The answer is \boxed{{{gold}}}.", gold) for gold in gsm8k[:rows]]),
        Rows("MATH", "rewards:verify", solved),
        Rows("MATH, mixed up", "rewards:verify", others),
    ]
    if generations is not None:
        outputs = [(row["output"], row["gold"]) for row in _read(generations)][:rows]
        sets.append(Rows("generations", "rewards:verify_leniently", outputs))
    return sets


def _read(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@asynccontextmanager
async def math_verify_directly(_: str) -> AsyncIterator[Paid]:
    """Math-verify at its best: the gold in a box, and a box before all else."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    config = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]

    async def paid(text: str, gold: str) -> bool:
        return bool(verify(parse(rf"\boxed{{{gold}}}", config), parse(text, config)))

    yield paid


@asynccontextmanager
async def ours_called(check: str) -> AsyncIterator[Paid]:
    """Our function; what needs algebra goes to the process that it starts."""
    verify = load(check)

    async def paid(text: str, gold: str) -> bool:
        return bool(verify(text, gold).mark is Mark.RIGHT)

    yield paid


@asynccontextmanager
async def ours_pooled(check: str) -> AsyncIterator[Paid]:
    """Our pool with one worker, one verdict at a time."""
    async with VerifierPool(workers=1, check=check) as pool:

        async def paid(text: str, gold: str) -> bool:
            return (await pool.verify([text], gold))[0].mark is Mark.RIGHT

        yield paid


SIDES = {"math-verify": math_verify_directly, "verify": ours_called, "VerifierPool": ours_pooled}


async def measure(side: str, rows: Rows) -> Timing:
    """One pass over the rows, each once."""
    latencies, paid = [], []
    async with SIDES[side](rows.check) as pays:
        for text, gold in WARM_UP:
            await pays(text, gold)
        cpu_start = _cpu_seconds()
        for text, gold in rows.rows:
            start = time.perf_counter()
            paid.append(await pays(text, gold))
            latencies.append(time.perf_counter() - start)
        return Timing(_cpu_seconds() - cpu_start, latencies, paid)


def _cpu_seconds() -> float:
    """Of this process and of those under it, with the dead ones that they have reaped."""
    return time.process_time() + _total(lambda process: sum(process.cpu_times()[:4]))


def print_table(timings: dict[tuple[str, str], list[Timing]]) -> None:
    """The passes over each (set, side) in one line of a table, and what its columns are."""
    heads = (Column(head, justify="right") for head in ("per s", "×", "p50 ms", "p99 ms", "max ms", "right", "same"))
    table = Table("answers", "marked by", *heads, box=None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    rates = {key: len(passes[0].paid) / median(one.cpu_seconds for one in passes) for key, passes in timings.items()}
    for (name, side), passes in timings.items():
        paid, theirs = passes[0].paid, timings[name, "math-verify"][0].paid
        latencies = sorted(1000 * seconds for one in passes for seconds in one.latencies)
        table.add_row(
            f"{name} ({len(paid):,})" if paid is theirs else "",
            side,
            f"{rates[name, side]:,.0f}",
            f"{rates[name, side] / rates[name, 'math-verify']:.1f}",
            *(f"{latencies[int(share * (len(latencies) - 1))]:.2f}" for share in (0.5, 0.99, 1)),
            f"{sum(paid):,}",
            f"{sum(a == b for a, b in zip(paid, theirs, strict=True)):,}",
        )
    OUT.print(table)
    OUT.print(
        "per s: verdicts per second of CPU time, all processes of a side together, their start left out; ×: beside\n"
        "math-verify. Each row is verified once, cold: every pass has fresh processes. What several rows share, ours\n"
        "caches: a gold is parsed once. ms: wall-clock time of a verdict. same: right, or not, as by math-verify."
    )


async def start_and_kill() -> tuple[float, float]:
    """Seconds until a pool has started, and from the death of its worker to the next verdict."""
    start = time.perf_counter()
    async with VerifierPool(workers=1) as pool:
        started = time.perf_counter() - start
        await pool.verify([r"\boxed{33}"], "33")
        (worker,) = (process for process in _descendants() if process.ppid() != os.getpid())
        start = time.perf_counter()
        worker.kill()
        await pool.verify([r"\boxed{33}"], "33")
        return started, time.perf_counter() - start


# ---- hostile answers


@dataclass(frozen=True, slots=True)
class Marked:
    """What became of jobs that went through one pool."""

    verdicts: list[Verdict]
    """With the seconds that the caller waited, a new worker's start included."""
    memory: list[int]
    """Resident bytes of the pool's processes together, at each of `MEMORY_AT`."""
    left: int
    """Processes that outlived the pool."""


async def mark(jobs: Sequence[Row]) -> Marked:
    """All jobs through a pool of two workers, each of which always has one."""
    verdicts: dict[int, Verdict] = {}
    looks = [round(share * len(jobs)) for share in MEMORY_AT]
    memory: list[int] = []
    waiting = iter(enumerate(jobs))

    async def feed(pool: VerifierPool) -> None:
        for place, (text, gold) in waiting:
            start = time.perf_counter()
            (verdict,) = await pool.verify([text], gold)
            verdicts[place] = replace(verdict, seconds=time.perf_counter() - start)
            if len(verdicts) in looks:
                memory.append(int(_total(lambda process: process.memory_info().rss)))

    async with VerifierPool(workers=2) as pool:
        await asyncio.gather(feed(pool), feed(pool))
    return Marked([verdicts[place] for place in range(len(jobs))], memory, left=len(_descendants()))


def attack(ordinary: Sequence[Row], hostile: Sequence[dict[str, Any]]) -> bool:
    """Mark ordinary jobs with and without hostile ones among them, and print what came of it.

    Returns whether none was paid that is not expected to be, changed another's verdict or left a process.
    """
    among = slice(ORDINARY_PER_HOSTILE, None, ORDINARY_PER_HOSTILE + 1)
    enemies = list(islice(cycle(hostile), len(ordinary) // ORDINARY_PER_HOSTILE))
    mixed = list(ordinary)
    for count, enemy in enumerate(enemies):
        mixed.insert(among.start + count * among.step, (enemy["pred"], enemy["gold"]))
    alone, attacked = (_in_fresh_process(mark, jobs) for jobs in _progress([ordinary, mixed]))
    verdicts = list(attacked.verdicts)
    del verdicts[among]
    changed = sum(a != b for a, b in zip(alone.verdicts, verdicts, strict=True))
    marked = list(zip(enemies, attacked.verdicts[among], strict=True))
    paid = {enemy["name"] for enemy, verdict in marked if enemy["expected"] is False and verdict.mark is Mark.RIGHT}
    slowest, name = max(((verdict.seconds, enemy["name"]) for enemy, verdict in marked), default=(0.0, "none"))
    left = alone.left + attacked.left
    OUT.print(
        f"{len(enemies):,} hostile answers among {len(ordinary):,} others, through a pool of 2 workers:\n"
        f"  falsely paid             {', '.join(sorted(paid)) or 'none'}\n"
        f"  changed verdicts         {changed:,} of the others\n"
        f"  processes left           {left:,}\n"
        f"  slowest hostile verdict  {slowest:.2f} s: {name}\n"
        f"  memory of the pool       {', '.join(f'{resident >> 20:,}' for resident in attacked.memory)} MiB "
        f"at {', '.join(f'{share:.0%}' for share in MEMORY_AT)} of the jobs"
    )
    return not (paid or changed or left)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rewards.bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, metavar="DIR", required=True, help="with gsm8k/ and math/test.jsonl")
    parser.add_argument("--generations", type=Path, metavar="FILE", help="JSON lines with output and gold")
    parser.add_argument("--adversarial", type=Path, metavar="FILE", help="JSON lines with name, pred, gold, expected")
    parser.add_argument("--rows", type=int, default=2_000, help="of each set, at most (default 2,000)")
    parser.add_argument("--repeats", type=int, default=3, help="passes over each set (default 3)")
    parser.add_argument("--jobs", type=int, default=10_000, help="ordinary ones of --adversarial (default 10,000)")
    asked = parser.parse_args()
    if min(asked.rows, asked.repeats, asked.jobs) < 1:
        parser.error("--rows, --repeats and --jobs are 1 or more")
    try:
        sets = read_sets(asked.data_dir, asked.generations, asked.rows)
        hostile = _read(asked.adversarial) if asked.adversarial else []
    except (OSError, KeyError, ValueError) as error:
        parser.error(f"the sets cannot be read: {type(error).__name__}: {error}")
    timings: dict[tuple[str, str], list[Timing]] = defaultdict(list)
    # In turn, so that a busy minute of the machine falls on all sides.
    for rows, side in _progress([(rows, side) for _ in range(asked.repeats) for rows in sets for side in SIDES]):
        timings[rows.name, side].append(_in_fresh_process(measure, side, rows))
    print_table(timings)
    if asked.generations is None:
        OUT.print("generations: left out, as no --generations FILE was given")
    starts, kills = zip(*(_in_fresh_process(start_and_kill) for _ in range(asked.repeats)), strict=True)
    OUT.print(f"a pool starts in {median(starts):.2f} s; its next verdict after a kill: {1000 * median(kills):.0f} ms")
    ordinary = islice(cycle(row for rows in sets for row in rows.rows), asked.jobs)
    harmless = not hostile or attack(list(ordinary), hostile)
    OUT.print(
        f"measured on {os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python "
        f"{platform.python_version()}, math-verify {version('math-verify')}: medians of {asked.repeats} passes"
    )
    return 0 if harmless else 1


def _in_fresh_process(function: Callable[..., Coroutine[Any, Any, Result]], *arguments: Any) -> Result:
    """What it returns in a process that knows no gold, has no caches and no other processes under it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        return fresh.submit(_run, function, *arguments).result()


def _run(function: Callable[..., Coroutine[Any, Any, Result]], *arguments: Any) -> Result:
    return asyncio.run(function(*arguments))


def _descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _total(amount: Callable[[psutil.Process], float]) -> float:
    """The sum over the processes under this one; those that end meanwhile are left out."""
    total = 0.0
    for process in _descendants():
        with suppress(psutil.NoSuchProcess):
            total += amount(process)
    return total


def _progress(items: Sequence[Item]) -> Iterable[Item]:
    """A bar on stderr; nothing without a terminal."""
    console = Console(stderr=True)
    return track(items, "measuring", console=console, transient=True, disable=not console.is_interactive)


if __name__ == "__main__":
    sys.exit(main())
