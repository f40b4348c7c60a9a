"""The replay buffer: a ledger of groups in a database.

A group's life, each transition one transaction:

    issued ──→ ready ──→ leased ──→ trained
       │         └─────────┴──────→ expired      too stale when its turn came
       ├──→ no_signal                            all rewards equal: counted, not trained on
       └──→ unverified                           the verifier could not say of enough samples

**Capacity is the staleness dial.** A slot is taken when a group is issued (before it is sampled) and freed when the
update it was trained in has been published, so capacity counts samples in flight, stored and in training. Groups are
leased in the order of issue. When a group is issued at version v, at most `capacity − G` samples stand before it, and
each step takes `batch` of them: its turn comes at version v + ⌊(capacity − G) / batch⌋ = v + ⌈capacity / batch⌉ − 1 at
the latest, and it was sampled by version v or a newer one. `max_staleness` is checked again at the lease.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy import event

from rl.buffer import codec
from rl.core.types import Group


class State(StrEnum):
    ISSUED = "issued"
    READY = "ready"
    LEASED = "leased"
    TRAINED = "trained"
    EXPIRED = "expired"
    NO_SIGNAL = "no_signal"
    UNVERIFIED = "unverified"


OCCUPYING = (State.ISSUED, State.READY, State.LEASED)

metadata = sa.MetaData()
groups = sa.Table(
    "groups",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("state", sa.String(10), nullable=False, index=True),
    sa.Column("oldest_version", sa.Integer),
    sa.Column("mean_reward", sa.Float),
    sa.Column("step", sa.Integer, index=True),  # the step it is leased for, then was trained in
    sa.Column("payload", sa.LargeBinary),
)
commits = sa.Table(
    "commits",
    metadata,
    sa.Column("step", sa.Integer, primary_key=True),  # "trained through this step", with this checkpoint
    sa.Column("checkpoint", sa.String, nullable=False),
)
evaluations = sa.Table(
    "evaluations",
    metadata,
    sa.Column("step", sa.Integer, primary_key=True),
    sa.Column("set", sa.String, primary_key=True),  # of problems
    sa.Column("place", sa.Integer, nullable=False),  # of the set in the run's order: 0 is made first
    sa.Column("done", sa.Boolean, nullable=False, default=False),
)
requests = sa.Table("requests", metadata, sa.Column("what", sa.String(10), primary_key=True))


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What became of the groups whose turn came in one step, those without signal included."""

    reward: float
    """mean reward of all of them: what the policy is worth now, not only where it learns"""
    states: dict[State, int]


class Buffer:
    """The ledger at a database URL; any number of processes may open it.

    Args:
        url: `sqlite:///PATH`, or another database that SQLAlchemy knows.
        capacity: samples that may be in flight, stored and in training.
        group_size: samples in a group.
    """

    def __init__(self, url: str, *, capacity: int, group_size: int) -> None:
        self.capacity_groups = capacity // group_size
        self._engine = sa.create_engine(url)
        self._reads = self._engine.execution_options(reads=True)
        if self._engine.dialect.name == "sqlite":
            _configure_sqlite(self._engine)
        metadata.create_all(self._engine)

    def close(self) -> None:
        self._engine.dispose()

    # ---- the collector's side

    def issue(self) -> list[int]:
        """Takes every free slot; returns the ids of the new groups, which are now to be sampled."""
        with self._engine.begin() as db:
            occupied = db.scalar(sa.select(sa.func.count()).where(groups.c.state.in_(OCCUPYING))) or 0
            free = self.capacity_groups - occupied
            if free <= 0:
                return []
            first = (db.scalar(sa.select(sa.func.max(groups.c.id))) or 0) + 1
            ids = list(range(first, first + free))
            db.execute(groups.insert(), [{"id": i, "state": State.ISSUED} for i in ids])
            return ids

    def unfinished(self) -> list[int]:
        """Groups that were issued and not put: after a restart of the collector they are sampled anew."""
        with self._reads.connect() as db:
            return list(db.scalars(sa.select(groups.c.id).where(groups.c.state == State.ISSUED).order_by(groups.c.id)))

    def put(self, group: Group) -> State:
        """Stores a sampled and verified group; only a group that is `issued` can be put, and once.

        Raises:
            LookupError: it was not issued, or was put before.
        """
        rewards = [s.verdict.reward for s in group.verified if s.verdict.reward is not None]
        state = State.UNVERIFIED if len(rewards) < 2 else State.READY if group.has_signal else State.NO_SIGNAL
        values = {
            "state": state,
            "oldest_version": group.oldest_version,
            "mean_reward": sum(rewards) / len(rewards) if rewards else None,
            "payload": codec.encode(group),
        }
        with self._engine.begin() as db:
            self._move(db, [group.id], State.ISSUED, values)
        return state

    # ---- the learner's side

    def lease(self, batch_groups: int, *, policy_version: int, max_staleness: int) -> list[Group]:
        """The next batch in the order of issue, leased for step `policy_version + 1`; empty while it is not complete.

        Groups that are more than `max_staleness` steps behind are expired on the way, and free their slots.
        """
        oldest = policy_version - max_staleness
        with self._engine.begin() as db:
            db.execute(
                groups.update()
                .where(groups.c.state == State.READY, groups.c.oldest_version < oldest)
                .values(state=State.EXPIRED)
            )
            turn = db.execute(
                sa.select(groups.c.id, groups.c.state)
                .where(groups.c.state.in_((State.ISSUED, State.READY)))
                .order_by(groups.c.id)
                .limit(batch_groups)
            ).all()
            if len(turn) < batch_groups or any(row.state != State.READY for row in turn):
                return []
            ids = [row.id for row in turn]
            self._move(db, ids, State.READY, {"state": State.LEASED, "step": policy_version + 1})
        return self.load(ids)

    def load(self, ids: Sequence[int]) -> list[Group]:
        """The groups with these ids, in this order."""
        with self._reads.connect() as db:
            rows = db.execute(sa.select(groups.c.id, groups.c.payload).where(groups.c.id.in_(ids))).all()
        payloads = {row.id: row.payload for row in rows}
        return [codec.decode(payloads[i]) for i in ids]

    def trained(self, ids: Sequence[int]) -> Turn:
        """The update made from these groups is published: they are done, and their slots are free.

        Returns:
            What became of all groups since the last trained ones.
        """
        with self._engine.begin() as db:
            before = db.scalar(sa.select(sa.func.max(groups.c.id)).where(groups.c.state == State.TRAINED)) or 0
            self._move(db, ids, State.LEASED, {"state": State.TRAINED})
            query = sa.select(groups.c.state, sa.func.count(), sa.func.sum(groups.c.mean_reward))
            rows = db.execute(query.where(groups.c.id.between(before + 1, max(ids))).group_by(groups.c.state)).all()
        marked = [row for row in rows if row.state != State.UNVERIFIED]
        reward = sum(total or 0.0 for _, _, total in marked) / sum(n for _, n, _ in marked)
        return Turn(reward=reward, states={State(state): n for state, n, _ in rows})

    def commit(self, step: int, checkpoint: str, *, evaluate: Sequence[str] = ()) -> None:
        """Records that `checkpoint` holds everything trained through `step`.

        Args:
            evaluate: the problem sets it is to be evaluated on, in this order.
        """
        with self._engine.begin() as db:
            if db.scalar(sa.select(commits.c.step).where(commits.c.step == step)) is None:
                db.execute(commits.insert().values(step=step, checkpoint=checkpoint))
            known = set(db.scalars(sa.select(evaluations.c.set).where(evaluations.c.step == step)))
            for place, name in enumerate(evaluate):
                if name not in known:
                    db.execute(evaluations.insert().values(step=step, set=name, place=place, done=False))

    def commits(self) -> list[int]:
        """The committed steps, oldest first."""
        with self._reads.connect() as db:
            return list(db.scalars(sa.select(commits.c.step).order_by(commits.c.step)))

    def forget_commit(self, step: int) -> None:
        """Takes a commit back, before its checkpoint is removed: no commit may name what is not there."""
        with self._engine.begin() as db:
            db.execute(commits.delete().where(commits.c.step == step))

    def newest_commit(self) -> tuple[int, str] | None:
        """(step, checkpoint) of the newest commit, if there is one."""
        with self._reads.connect() as db:
            newest = db.execute(sa.select(commits).order_by(commits.c.step.desc()).limit(1)).first()
        return (newest.step, newest.checkpoint) if newest else None

    def rewind(self) -> int:
        """Goes back to the newest commit: what was leased or trained after it is ready to be trained again, in the
        recorded order. Returns the commit's step, 0 where there is none."""
        newest = self.newest_commit()
        step = newest[0] if newest else 0
        with self._engine.begin() as db:
            db.execute(
                groups.update()
                .where(groups.c.state.in_((State.LEASED, State.TRAINED)), groups.c.step > step)
                .values(state=State.READY, step=None)
            )
        return step

    # ---- evaluations asked for with a commit, made by the evaluator

    def awaited(self) -> list[tuple[int, str]]:
        """(step, set) of the evaluations that are still to be made: by the place of the set, then by step, so that
        what checkpoints are chosen on never waits for a larger set."""
        todo = sa.select(evaluations.c.step, evaluations.c.set).where(~evaluations.c.done)
        with self._reads.connect() as db:
            rows = db.execute(todo.order_by(evaluations.c.place, evaluations.c.step)).all()
        return [(row.step, row.set) for row in rows]

    def evaluated(self, step: int, name: str) -> None:
        """The evaluation of a step on the set of this name is made and logged."""
        made = (evaluations.c.step == step) & (evaluations.c.set == name)
        with self._engine.begin() as db:
            db.execute(evaluations.update().where(made).values(done=True))

    # ---- what the supervisor asks of the learner

    def ask_stop(self, stop: bool = True) -> None:
        """Asks the learner to finish its step, save and end; or takes that back."""
        with self._engine.begin() as db:
            db.execute(requests.delete())
            if stop:
                db.execute(requests.insert().values(what="stop"))

    def stop_asked(self) -> bool:
        with self._reads.connect() as db:
            return db.scalar(sa.select(requests.c.what)) is not None

    # ---- the books

    def books(self) -> str:
        """`counts` in words: ``173 no_signal, 32 issued``."""
        return ", ".join(f"{n} {state}" for state, n in self.counts().items() if n) or "none"

    def counts(self) -> dict[State, int]:
        """Groups in each state."""
        with self._reads.connect() as db:
            rows = db.execute(sa.select(groups.c.state, sa.func.count()).group_by(groups.c.state)).all()
        return dict.fromkeys(State, 0) | {State(state): n for state, n in rows}

    @staticmethod
    def _move(db: sa.Connection, ids: Sequence[int], source: State, values: dict[str, object]) -> None:
        moved = db.execute(groups.update().where(groups.c.id.in_(ids), groups.c.state == source).values(**values))
        if moved.rowcount != len(ids):
            raise LookupError(f"{len(ids) - moved.rowcount} of the groups {list(ids)} are not {source}")


def _configure_sqlite(engine: sa.Engine) -> None:
    """WAL, so that readers and the writer do not block each other. A transaction that will write takes the lock at
    once, so that what it reads first is still so when it writes."""

    @event.listens_for(engine, "connect")
    def _connect(connection, _record) -> None:  # type: ignore[no-untyped-def]
        connection.isolation_level = None  # SQLAlchemy's `begin` below, not sqlite3's
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        reads = connection.get_execution_options().get("reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
