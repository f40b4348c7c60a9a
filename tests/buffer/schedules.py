"""Random schedules of all that happens to a ledger, against a model of it in a few lines.

``python -m tests.buffer.schedules --schedules 10000`` plays that many and prints what they came to; with ``--postgres``
on a database server, over a link that loses COMMITs and their answers. The real `Buffer` is played. A schedule mixes,
in any order: slots that are taken, completions sampled by the newest version or an older one, groups stored, with and
without signal, groups refused, batches leased, published and trained, commits, deaths of the collector, and deaths of
the learner at any point, after which the run goes back to its newest commit, or to an older one where that is damaged.

After every action each group is in the state that the model expects. At every lease no token is staler than the bound,
and what is trained again is trained in its recorded batch. At the end the audit finds nothing, and nothing was trained
twice in the surviving weights. Where all sample by the newest version and nobody dies, nothing ever expires: capacity
alone is the bound.
"""

import argparse
import hashlib
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from rewards.verdict import Mark, Verdict
from rl.buffer.audit import violations
from rl.buffer.database import open_ledger
from rl.buffer.history import History
from rl.buffer.ledger import Buffer
from rl.buffer.schema import new_schema
from rl.buffer.tables import State, groups_in_states, metadata
from rl.core.config import TrainConfig
from rl.core.errors import PublishError
from rl.core.rundir import RunDir
from rl.core.types import Group, Problem, Rollout, Sample
from tests.link import Link
from tests.postgres import server

MEMORY = Path("/dev/shm")
VERDICTS = {
    letter: Verdict(mark=mark, reason="", answer=None, gold="1")
    for letter, mark in {"r": Mark.RIGHT, "w": Mark.WRONG, "e": Mark.ERROR}.items()
}
STATES = {"rw": State.READY, "wr": State.READY, "rr": State.NO_SIGNAL, "re": State.UNVERIFIED}
MARKS = ("rw", "wr", "rw", "rr", "rw", "wr", "re")
COUNTED = ("schedules", "actions", "groups", "steps", "steps trained again", "expired", "deaths", "refused")
LOST = ("questions lost", "answers lost")
"""COMMITs that did not arrive, and those that did."""

Action = tuple[str, int]
"""A method of `Run`, and a number that decides whatever it has to choose."""


class Ledger:
    """One for all schedules: to make a database for each would take longer than to play it.

    Args:
        url: as its processes reach it.
        direct: as it is looked at, where that is another URL.
        lost: counts what the link between them loses.
    """

    def __init__(self, url: str, direct: str | None = None, lost: Counter[str] | None = None) -> None:
        self._url, self._looks, self.lost = url, open_ledger(direct or url), lost or Counter()
        self._buffers: dict[int, Buffer] = {}
        self.history = History(direct or url)

    def buffer(self, capacity: int) -> Buffer:
        if capacity not in self._buffers:
            self._buffers[capacity] = Buffer(self._url, capacity=capacity, group_size=2)
        return self._buffers[capacity]

    def clear(self) -> None:
        with self._looks.writes() as db:
            for table in metadata.tables.values():
                db.execute(table.delete())

    def counts(self) -> dict[str, int]:
        """Groups in each state that has some, as another process sees them."""
        with self._looks.reads() as db:
            return {state: n for state, n in groups_in_states(db).items() if n}

    def close(self) -> None:
        for each in (*self._buffers.values(), self.history, self._looks):
            each.close()


class Run:
    """A run as a ledger sees it, and what its ledger should hold.

    Args:
        batch: groups of a step; the buffer holds `further` more.
        lagging: some servers serve older versions.
        mortal: the learner dies now and then.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        batch: int,
        further: int,
        max_staleness: int | None,
        lagging: bool,
        mortal: bool,
    ) -> None:
        self.config = TrainConfig(
            group_size=2,
            batch=2 * batch,
            buffer=2 * (batch + further),
            max_staleness=max_staleness,
            steps=10**6,
        )
        ledger.clear()
        self.ledger, self.buffer = ledger, ledger.buffer(self.config.buffer)
        self.batch, self.lagging, self.mortal = batch, lagging, mortal
        self.in_flight: dict[int, int | None] = {}  # id → the version that samples it, once a server has it
        self.ready: dict[int, int] = {}  # id → version
        self.done: dict[int, State] = {}  # what is not trained
        self.recorded: dict[int, list[int]] = {}  # step → its batch, from its first lease on
        self.commits = [0]
        self.step = 0
        self.leased: list[int] = []
        self.happened = Counter(schedules=1)
        self.launches = 0
        self.buffer.commit(0, "step-0")
        self._launch()

    # ---- the collector

    def collect(self, choice: int) -> None:
        """What it does most of the time."""
        self.issue(choice)
        self.sample(choice)
        self.put(choice)

    def issue(self, _: int) -> None:
        known = len(self._all())
        issued = self.buffer.issue()
        assert issued == list(range(known + 1, known + 1 + len(issued)))
        self.in_flight |= dict.fromkeys(issued)

    def sample(self, choice: int) -> None:
        """Some of the requests reach a server."""
        for id in [id for id, version in self.in_flight.items() if version is None and (choice + id) % 4]:
            behind = (choice + id) % 4 if self.lagging else 0
            self.in_flight[id] = self.served[max(0, len(self.served) - 1 - behind)]

    def put(self, choice: int) -> None:
        """Some of the completions are verified and stored."""
        for id, version in list(self.in_flight.items()):
            if version is None or (choice + id) % 4 == 0:
                continue
            marks = MARKS[(choice + id) % len(MARKS)]
            del self.in_flight[id]
            assert self.buffer.put(self._group(id, marks, version)) == STATES[marks]
            if STATES[marks] == State.READY:
                self.ready[id] = version
            else:
                self.done[id] = STATES[marks]

    def put_what_was_not_proved(self, choice: int) -> None:
        for id in list(self.in_flight)[:1]:
            group = self._group(id, "rw", self.served[-1] + 1 + choice % 3)
            with pytest.raises(PublishError):
                self.buffer.put(group)
            self.happened["refused"] += 1

    def collector_dies(self, _: int) -> None:
        assert self.buffer.unfinished() == sorted(self.in_flight)
        self.in_flight = dict.fromkeys(self.buffer.unfinished())

    # ---- the learner

    def step_on(self, choice: int) -> None:
        """Up to a whole step, from wherever the last one stopped: it may die between any two."""
        for part in (self.lease, self.publish, self.train)[: 1 + choice % 8]:
            part()

    def lease(self) -> None:
        if self.leased:
            return
        bound, step = self.config.staleness_bound, self.step + 1
        leased = self.buffer.lease(self.batch, policy_version=self.step, max_staleness=bound)
        self.happened["steps trained again"] += step in self.recorded
        expected = self.recorded.get(step) or self._next_turn()
        assert [group.id for group in leased] == expected, "the batch"
        assert all(0 <= self.step - group.oldest_version <= bound for group in leased), "staleness"
        if leased:
            self.leased = self.recorded[step] = expected
            for id in expected:
                self.ready.pop(id, None)

    def _next_turn(self) -> list[int]:
        stale = [id for id, version in self.ready.items() if self.step - version > self.config.staleness_bound]
        assert not stale or self.config.max_staleness is not None or self.lagging or self.mortal, (
            "capacity is the bound"
        )
        self.happened["expired"] += len(stale)
        for id in stale:
            del self.ready[id]
            self.done[id] = State.EXPIRED
        turn = sorted([*self.in_flight, *self.ready])[: self.batch]
        return turn if len(turn) == self.batch and all(id in self.ready for id in turn) else []

    def publish(self) -> None:
        if self.leased and self.served[-1] == self.step:
            self.buffer.proved(self.policy, self.step + 1, self._sha256(self.step + 1))
            self.served.append(self.step + 1)

    def train(self) -> None:
        if self.leased and self.served[-1] > self.step:
            self.buffer.trained(self.leased)
            self.step, self.leased = self.step + 1, []
            self.happened["steps"] += 1

    def commit(self, _: int) -> None:
        if not self.leased and self.step > self.commits[-1]:
            self.buffer.commit(self.step, f"step-{self.step}")
            self.commits.append(self.step)

    def learner_dies(self, choice: int) -> None:
        """The run goes on from its newest commit; of three times, once the newest one is damaged."""
        if not self.mortal:
            return
        del self.commits[max(1, len(self.commits) - (choice % 3 == 0)) :]
        self.buffer.rewind(self.commits[-1])
        assert self.buffer.commits() == self.commits
        last = max(self.recorded, default=0)
        assert max(self.buffer.recorded_steps(), default=0) == (last if last > self.commits[-1] else 0)
        self.collector_dies(choice)
        self._launch()
        self.happened["deaths"] += 1

    # ---- what holds

    def check(self) -> None:
        """After every action: each group is in one state, and in the right one."""
        again = sum(len(ids) for step, ids in self.recorded.items() if step > self.step) - len(self.leased)
        expected = Counter[str](self.done.values())
        expected[State.ISSUED] = len(self.in_flight)
        expected[State.READY] = len(self.ready) + again
        expected[State.LEASED] = len(self.leased)
        expected[State.TRAINED] = sum(len(ids) for step, ids in self.recorded.items() if step <= self.step)
        assert self.ledger.counts() == +expected
        self.happened["actions"] += 1

    def check_books(self) -> None:
        """At the end: the audit finds nothing, and the surviving weights have seen each group once, as recorded."""
        books = self.ledger.history.books()
        broken = violations(self.ledger.history, books, self.config)
        assert not any(broken.values()), broken
        survived = sorted((row.step or 0, row.id) for row in books.rows if row.state == State.TRAINED)
        assert survived == [(step, id) for step in range(1, self.step + 1) for id in self.recorded[step]]
        assert sorted(self._all()) == [row.id for row in books.rows]
        self.happened["groups"] += len(books.rows)

    def _all(self) -> list[int]:
        """Every group there is, once in the model: a list, as a set would hide what is there twice."""
        return [*self.in_flight, *self.ready, *self.done, *chain.from_iterable(self.recorded.values())]

    def _launch(self) -> None:
        self.policy = f"run-ab-{self.launches}"
        self.step, self.leased = self.commits[-1], []
        self.served = [self.step]
        self.launches += 1
        self.buffer.proved(self.policy, self.step, self._sha256(self.step))

    def _sha256(self, version: int) -> str:
        return hashlib.sha256(f"{self.policy}/{version}".encode()).hexdigest()

    def _group(self, id: int, marks: str, version: int) -> Group:
        rollout = Rollout(
            token_ids=[id], sampler_logprobs=[-0.5], policy_version=version, finish_reason="stop", text=""
        )
        return Group(
            id=id,
            problem=Problem(id=f"problem-{id}", text="1", gold="1"),
            prompt_ids=[1],
            policy=self.policy,
            adapter_sha256=self._sha256(version),
            samples=[Sample(rollout=rollout, verdict=VERDICTS[mark]) for mark in marks],
        )


WEIGHTS: dict[Callable[[Run, int], None], int] = {
    **{Run.collect: 7, Run.issue: 1, Run.sample: 2, Run.put: 3, Run.put_what_was_not_proved: 1, Run.collector_dies: 1},
    **{Run.step_on: 8, Run.commit: 2, Run.learner_dies: 2},
}
ACTIONS = st.tuples(
    st.sampled_from([method.__name__ for method, weight in WEIGHTS.items() for _ in range(weight)]),
    st.integers(0, 167),
)


def play(schedules: int, first_seed: int = 0, database_url: str | None = None) -> Counter[str]:
    """Plays so many schedules, and counts what happened in them.

    Args:
        database_url: of PostgreSQL, where the ledger is to be there: on the other end of a link that loses COMMITs.

    Raises:
        AssertionError: a violation; its schedule is made as short as can be, and printed.
    """
    happened: Counter[str] = Counter()
    with _ledger(first_seed, database_url) as ledger:

        @seed(first_seed)
        @settings(
            max_examples=schedules,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(
            batch=st.integers(1, 3),
            further=st.integers(0, 6),
            max_staleness=st.none() | st.integers(0, 2),
            lagging=st.booleans(),
            mortal=st.booleans(),
            actions=st.lists(ACTIONS, min_size=40, max_size=80),
        )
        def schedule(actions: Sequence[Action], **settings: Any) -> None:
            run = Run(ledger, **settings)
            for name, choice in actions:
                getattr(run, name)(choice)
                run.check()
            run.check_books()
            happened.update(run.happened)

        schedule()
        happened.update(ledger.lost)
    return happened


@contextmanager
def _ledger(first_seed: int, database_url: str | None) -> Iterator[Ledger]:
    if database_url is None:
        place = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        with place as folder, closing(Ledger(f"sqlite:///{folder}/buffer.db")) as ledger:
            yield ledger
        return
    with new_schema(database_url, RunDir(Path(f"schedules-{first_seed}")), overwrite=False) as url:
        pass
    with Link(url, random.Random(first_seed)) as link, closing(Ledger(link.url, url, link.lost)) as ledger:
        yield ledger


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.buffer.schedules", description="Plays random schedules.")
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL server of its own")
    asked = parser.parse_args()
    begin, cores = time.perf_counter(), os.cpu_count() or 1
    shares = [-(-asked.schedules // cores)] * cores
    with ExitStack() as stack:
        url = stack.enter_context(server()).url("postgres") if asked.postgres else None
        pool = stack.enter_context(ProcessPoolExecutor(cores))
        seeds = range(asked.seed, asked.seed + cores)
        happened = sum(pool.map(play, shares, seeds, repeat(url)), Counter())
    what = ", ".join(f"{happened[name]:,} {name}" for name in (*COUNTED, *(LOST if asked.postgres else ())))
    print(f"0 violations in {what}; {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
