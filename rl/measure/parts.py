"""Buffer and verifier, each alone."""

import asyncio
import time
from pathlib import Path

from rewards import VerifierPool
from rl.buffer.bench import made_group, taken_through
from rl.core.rundir import RunDir
from rl.measure.learning import read_batch
from rl.measure.work import Figures, Work

BUFFER_SAMPLES = 4096


def measure_buffer(work: Work, folder: Path) -> Figures:
    """Samples of a run's length taken through a ledger by one process: issued, put, leased and trained."""
    group = made_group(work.config.group_size, work.config.max_tokens)
    url = f"sqlite:///{folder}/buffer.db"
    taken_through(url, group, work.config.batch)  # builds the statements
    clock = taken_through(f"{url}2", group, BUFFER_SAMPLES)
    puts = len(clock.seconds["put"])
    calls = sum(map(len, clock.seconds.values()))
    return {
        "samples_per_s": puts * work.config.group_size / clock.total(),
        "operations_per_s": calls / clock.total(),
        "put_ms": clock.ms("put"),
        "lease_ms": clock.ms("lease"),
    }


def measure_verifier(work: Work, run: RunDir, step: int) -> Figures:
    """Checks of a run's own completions by the pool that a run has, a group at a time.

    Args:
        step: those before it warm the pool up, and it and all that follow are checked, once.
    """
    return asyncio.run(_verified(work, run, step))


async def _verified(work: Work, run: RunDir, step: int) -> Figures:
    checks, seconds = 0, 0.0
    async with VerifierPool(check=work.config.check) as pool:
        for number in range(1, work.config.steps + 1):
            groups = read_batch(run, number)
            texts = [[sample.rollout.text for sample in group.samples] for group in groups]
            begin = time.perf_counter()
            await asyncio.gather(*map(pool.verify, texts, [group.problem.gold for group in groups]))
            if number >= step:
                seconds += time.perf_counter() - begin
                checks += sum(map(len, texts))
    return {"checks": checks, "checks_per_s": checks / seconds}
