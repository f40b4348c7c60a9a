"""Many processes at one ledger, as on many machines: collectors that fill it and a learner that empties it.

``python -m tests.buffer.crowd URL STEPS`` is such a crowd; it prints what each returned.
"""

import multiprocessing
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing, contextmanager

import sqlalchemy as sa

from rewards.verdict import Mark, Verdict
from rl.buffer.database import Database, open_ledger
from rl.buffer.ledger import Buffer
from rl.buffer.patience import patient
from rl.buffer.tables import proofs
from rl.core.config import TrainConfig
from rl.core.types import Group, Problem, Rollout, Sample
from tests.conftest import SHA256

COLLECTORS = 3
CONFIG = TrainConfig(group_size=2, batch=6, buffer=16, steps=10**6)
LOOK_S = 0.002
MARKS = {"r": Mark.RIGHT, "w": Mark.WRONG, "e": Mark.ERROR}


@contextmanager
def crowd(url: str, steps: int) -> Iterator[list[Future[int]]]:
    """Has the processes make so many steps, or fewer if a stop is asked for. Yields what each will return, the
    learner first."""
    with closing(open_buffer(url)) as buffer:
        buffer.proved("p", 0, SHA256)
    with ProcessPoolExecutor(1 + COLLECTORS, mp_context=multiprocessing.get_context("spawn")) as pool:
        learner = pool.submit(learn, url, steps)
        yield [learner, *(pool.submit(collect, url, seed) for seed in range(COLLECTORS))]


def learn(url: str, steps: int) -> int:
    """Returns how many groups it has trained."""
    trained = 0
    with closing(open_buffer(url)) as buffer:
        for step in range(1, 1 + steps):
            while not (batch := buffer.lease(3, policy_version=step - 1, max_staleness=CONFIG.staleness_bound)):
                if buffer.stop_asked():
                    return trained
                time.sleep(LOOK_S)
            buffer.proved("p", step, SHA256)
            buffer.trained([group.id for group in batch])
            buffer.commit(step, f"step-{step}")
            trained += len(batch)
        buffer.ask_stop()
    return trained


def collect(url: str, seed: int) -> int:
    """Returns how many groups it has put."""
    random_, put = random.Random(seed), 0
    with closing(open_buffer(url)) as buffer, closing(open_ledger(url)) as database:
        while not buffer.stop_asked():
            issued = buffer.issue()
            random_.shuffle(issued)
            for id in issued:
                buffer.put(_group(id, random_.choice(["rw", "wr", "rw", "rr", "re"]), _newest_version(database)))
            put += len(issued)
            time.sleep(LOOK_S)
    return put


@patient
def _newest_version(database: Database) -> int:
    with database.reads() as db:
        return db.scalar(sa.select(sa.func.max(proofs.c.version))) or 0


def open_buffer(url: str) -> Buffer:
    return Buffer(url, capacity=CONFIG.buffer, group_size=CONFIG.group_size)


def _group(id: int, marks: str, version: int) -> Group:
    rollout = Rollout(token_ids=[id], sampler_logprobs=[-0.5], policy_version=version, finish_reason="stop", text="")
    verdicts = [Verdict(mark=MARKS[letter], reason="", answer=None, gold="1") for letter in marks]
    return Group(
        id=id,
        problem=Problem(id=f"problem-{id}", text="1", gold="1"),
        prompt_ids=[1],
        policy="p",
        adapter_sha256=SHA256,
        samples=[Sample(rollout=rollout, verdict=verdict) for verdict in verdicts],
    )


def main() -> None:
    url, steps = sys.argv[1:]
    with crowd(url, int(steps)) as processes:
        print(*(process.result() for process in processes))


if __name__ == "__main__":
    main()
