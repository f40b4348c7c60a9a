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

**Every sample is of a proved version.** What a learner publishes is entered with the hash of its bytes once servers
have proved that they serve it. A group states policy, version and hash; where they are not those of an entry, the group
is refused.

**A step's batch is recorded with its lease**, and kept by `rewind`: what was trained after the commit that a run goes
back to is trained again in the same batches.

**Who decides by what others do is alone** in its transaction, so no slot is issued twice, and no group leased twice.
Many may `put` at a time, each its own group. A lease waits for the next group, whoever has it in hand: to pass over it
(as SKIP LOCKED would) would break the order of issue.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from rl.buffer import codec
from rl.buffer.database import open_ledger
from rl.buffer.fence import check_not_given_up
from rl.buffer.patience import patiently
from rl.buffer.proofs import check_proved, enter_proof
from rl.buffer.tables import (
    OCCUPYING,
    PROBLEMS,
    State,
    commits,
    evaluations,
    facts,
    groups,
    groups_in_states,
    payloads,
    requests,
)
from rl.core.types import Group

# Those of every group: to build a statement takes longer than to execute it.
_PUT = groups.update().where(groups.c.id == sa.bindparam("put"), groups.c.state == State.ISSUED)
_STORE = payloads.insert()


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What became of the groups whose turn came in one step, those without signal included."""

    reward: float
    """mean reward of all of them: what the policy is worth now, not only where it learns"""
    states: dict[State, int]


@patiently
class Buffer:
    """The ledger at a database URL; any number of processes may open it.

    Args:
        url: of the ledger, as `open_ledger` takes it.
        capacity: samples that may be in flight, stored and in training.
        group_size: samples in a group.
        learner: the policy of the learner that writes here; one that was given up may write no more.

    Raises (here and in every method):
        LedgerError: the database is full, locked, damaged, not to be opened, or away for too long; nothing was changed.
    """

    def __init__(self, url: str, *, capacity: int, group_size: int, learner: str | None = None) -> None:
        self.capacity_groups, self._learner = capacity // group_size, learner
        self._db = open_ledger(url)

    def close(self) -> None:
        self._db.close()

    # ---- the collector's side

    def issue(self) -> list[int]:
        """Takes every free slot; returns the ids of the new groups, which are now to be sampled."""
        with self._db.reads() as db:  # asked again and again, it must not take the lock each time
            if not self._free(db):
                return []
        with self._db.writes() as db:
            free = self._free(db)
            first = (db.scalar(sa.select(sa.func.max(groups.c.id))) or 0) + 1
            ids = list(range(first, first + free))
            if ids:
                db.execute(groups.insert(), [{"id": i, "state": State.ISSUED} for i in ids])
            return ids

    def unfinished(self) -> list[int]:
        """Groups that were issued and not put: after a restart of the collector they are sampled anew."""
        with self._db.reads() as db:
            return list(db.scalars(sa.select(groups.c.id).where(groups.c.state == State.ISSUED).order_by(groups.c.id)))

    def put(self, group: Group) -> State:
        """Stores a sampled and verified group; only a group that is `issued` can be put, and once.

        Raises:
            LookupError: it was not issued, or was put before.
            PublishError: it was sampled by what no server has proved; it stays issued.
        """
        row, payload = codec.row(group), codec.encode(group)
        with self._db.writes(alone=False) as db:
            check_proved(db, group)
            if db.execute(_PUT, {"put": group.id, **row}).rowcount != 1:
                raise LookupError(f"group {group.id} is not issued")
            db.execute(_STORE, {"id": group.id, "payload": payload})
        return State(row["state"])

    def recorded_steps(self) -> list[int]:
        """The steps whose batch is recorded and is not trained, in order: those that are to be trained again, and the
        one under way. What is sampled before they are trained may be too stale when its turn comes."""
        recorded = groups.c.state.in_((State.READY, State.LEASED)) & groups.c.step.is_not(None)
        with self._db.reads() as db:
            return list(db.scalars(sa.select(groups.c.step).where(recorded).distinct().order_by(groups.c.step)))

    # ---- the learner's side

    def proved(self, policy: str, version: int, sha256: str) -> None:
        """Enters that servers have proved to serve these bytes as this version; to be called before it is accepted.

        Raises:
            PublishError: other bytes were proved under this version.
        """
        with self._as_learner() as db:
            enter_proof(db, policy, version, sha256)

    def lease(self, batch_groups: int, *, policy_version: int, max_staleness: int) -> list[Group]:
        """The batch recorded for step `policy_version + 1`, else the next in the order of issue, leased for that step;
        empty while it is not complete.

        Groups that are more than `max_staleness` steps behind are expired on the way, and free their slots.
        """
        step = policy_version + 1
        with self._as_learner() as db:
            again = (groups.c.state == State.READY) & (groups.c.step == step)
            ids = list(db.scalars(sa.select(groups.c.id).where(again).order_by(groups.c.id)))
            if not ids:
                oldest = policy_version - max_staleness
                self._expire(db, oldest)
                ids = self._next_turn(db, batch_groups, oldest)
            self._move(db, ids, State.READY, {"state": State.LEASED, "step": step})
        return self.load(ids)

    def load(self, ids: Sequence[int]) -> list[Group]:
        """The groups with these ids, in this order."""
        with self._db.reads() as db:
            stored = {row.id: row.payload for row in db.execute(sa.select(payloads).where(payloads.c.id.in_(ids)))}
        return [codec.decode(stored[i]) for i in ids]

    def trained(self, ids: Sequence[int]) -> Turn:
        """The update made from these groups is published: they are done, and their slots are free.

        Returns:
            What became of all groups since the last trained ones.
        """
        with self._as_learner() as db:
            before = db.scalar(sa.select(sa.func.max(groups.c.id)).where(groups.c.state == State.TRAINED)) or 0
            self._move(db, ids, State.LEASED, {"state": State.TRAINED})
            query = sa.select(groups.c.state, sa.func.count(), sa.func.sum(groups.c.mean_reward))
            rows = db.execute(query.where(groups.c.id.between(before + 1, max(ids))).group_by(groups.c.state)).all()
        marked = [row for row in rows if row.state != State.UNVERIFIED]
        reward = sum(total or 0.0 for _, _, total in marked) / sum(n for _, n, _ in marked)
        return Turn(reward=reward, states={State(state): n for state, n, _ in rows})

    def commit(self, step: int, checkpoint: str, *, evaluate: Sequence[str] = ()) -> None:
        """Records that `checkpoint` holds everything trained through `step`, so that it survives a power cut too.

        Args:
            evaluate: the problem sets it is to be evaluated on, in this order.
        """
        with self._as_learner(durable=True) as db:
            if db.scalar(sa.select(commits.c.step).where(commits.c.step == step)) is None:
                db.execute(commits.insert().values(step=step, checkpoint=checkpoint))
            known = set(db.scalars(sa.select(evaluations.c.set).where(evaluations.c.step == step)))
            for place, name in enumerate(evaluate):
                if name not in known:
                    db.execute(evaluations.insert().values(step=step, set=name, place=place, done=False))

    def commits(self) -> list[int]:
        """The committed steps, oldest first."""
        with self._db.reads() as db:
            return list(db.scalars(sa.select(commits.c.step).order_by(commits.c.step)))

    def forget_commit(self, step: int) -> None:
        """Takes a commit back, with the evaluations that still wait for it: no commit may name what is not there."""
        with self._db.writes() as db:
            db.execute(commits.delete().where(commits.c.step == step))
            db.execute(evaluations.delete().where(evaluations.c.step == step, ~evaluations.c.done))

    def compacted(self, after: int) -> int:
        """Groups leased or trained after this step whose payload is gone: they cannot be trained again."""
        gone = groups.c.step > after, groups.c.id.not_in(sa.select(payloads.c.id))
        with self._db.reads() as db:
            return db.scalar(sa.select(sa.func.count()).where(*gone)) or 0

    def newest_commit(self) -> tuple[int, str] | None:
        """(step, checkpoint) of the newest commit, if there is one."""
        with self._db.reads() as db:
            newest = db.execute(sa.select(commits).order_by(commits.c.step.desc()).limit(1)).first()
        return (newest.step, newest.checkpoint) if newest else None

    def rewind(self, step: int) -> int:
        """Goes back to the commit of this step (0: to the beginning). Commits after it and their evaluations are
        forgotten; what was leased or trained after it waits to be trained again, each step with its recorded batch.

        Returns:
            How many steps were trained after it.
        """
        later = groups.c.step > step
        with self._db.writes(durable=True) as db:
            trained = sa.select(sa.func.count(groups.c.step.distinct())).where(later, groups.c.state == State.TRAINED)
            again = db.scalar(trained) or 0
            db.execute(commits.delete().where(commits.c.step > step))
            db.execute(evaluations.delete().where(evaluations.c.step > step))
            leased = groups.c.state.in_((State.LEASED, State.TRAINED))
            db.execute(groups.update().where(later, leased).values(state=State.READY))
        return again

    @contextmanager
    def _as_learner(self, *, durable: bool = False) -> Iterator[sa.Connection]:
        with self._db.writes(durable=durable) as db:
            check_not_given_up(db, self._learner)
            yield db

    # ---- evaluations asked for with a commit, made by the evaluator

    def awaited(self) -> list[tuple[int, str]]:
        """(step, set) of the evaluations that are still to be made: by the place of the set, then by step, so that
        what checkpoints are chosen on never waits for a larger set."""
        todo = sa.select(evaluations.c.step, evaluations.c.set).where(~evaluations.c.done)
        with self._db.reads() as db:
            rows = db.execute(todo.order_by(evaluations.c.place, evaluations.c.step)).all()
        return [(row.step, row.set) for row in rows]

    def evaluated(self, step: int, name: str) -> None:
        """The evaluation of a step on the set of this name is made and logged."""
        made = (evaluations.c.step == step) & (evaluations.c.set == name)
        with self._db.writes() as db:
            db.execute(evaluations.update().where(made).values(done=True))

    # ---- what the supervisor asks of the learner

    def ask_stop(self, stop: bool = True) -> None:
        """Asks the learner to finish its step, save and end; or takes that back."""
        with self._db.writes() as db:
            db.execute(requests.delete())
            if stop:
                db.execute(requests.insert().values(what="stop"))

    def stop_asked(self) -> bool:
        with self._db.reads() as db:
            return db.scalar(sa.select(requests.c.what)) is not None

    # ---- the books

    def books(self) -> str:
        """`counts` in words: ``173 no_signal, 32 issued``."""
        return ", ".join(f"{n} {state}" for state, n in self.counts().items() if n) or "none"

    def counts(self) -> dict[State, int]:
        """Groups in each state."""
        with self._db.reads() as db:
            return groups_in_states(db)

    def enter_problems(self, n: int) -> None:
        """How many problems the run draws from, for the audit's coverage."""
        with self._db.writes() as db:
            db.execute(facts.delete().where(facts.c.name == PROBLEMS))
            db.execute(facts.insert().values(name=PROBLEMS, value=n))

    def _free(self, db: sa.Connection) -> int:
        occupied = db.scalar(sa.select(sa.func.count()).where(groups.c.state.in_(OCCUPYING))) or 0
        return max(0, self.capacity_groups - occupied)

    @staticmethod
    def _expire(db: sa.Connection, oldest: int) -> None:
        stale = (groups.c.state == State.READY) & groups.c.step.is_(None) & (groups.c.oldest_version < oldest)
        db.execute(groups.update().where(stale).values(state=State.EXPIRED))

    @staticmethod
    def _next_turn(db: sa.Connection, batch_groups: int, oldest: int) -> list[int]:
        """The ids of the first groups in the order of issue; none while one of them is not ready, or is to expire: it
        may have been put since the others did."""
        waiting = groups.c.state.in_((State.ISSUED, State.READY))
        first = sa.select(groups).where(waiting).order_by(groups.c.id).limit(batch_groups)
        turn = db.execute(first).all()
        ready = [row.id for row in turn if row.state == State.READY and row.oldest_version >= oldest]
        return ready if len(ready) == batch_groups else []

    @staticmethod
    def _move(db: sa.Connection, ids: Sequence[int], source: State, values: Mapping[str, object]) -> None:
        moved = db.execute(groups.update().where(groups.c.id.in_(ids), groups.c.state == source).values(**values))
        if moved.rowcount != len(ids):
            raise LookupError(f"{len(ids) - moved.rowcount} of the groups {list(ids)} are not {source}")
