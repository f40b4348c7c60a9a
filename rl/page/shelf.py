"""The ledger as the page reads it: a few groups at a time, found by keys and never by reading all that is stored."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from rl.buffer import codec
from rl.buffer.history import AT_ONCE, Entry, History, Order
from rl.buffer.tables import PROBLEMS, State, commits, facts, groups, groups_in_states, payloads, proofs
from rl.core.errors import LedgerError

LOOKED_AT = 256
"""Groups that are read for one page, at the most: a verdict or a text is known of a group once it is read."""
_STORED = sa.select(groups, payloads.c.payload).join_from(groups, payloads, groups.c.id == payloads.c.id)


@dataclass(frozen=True, kw_only=True, slots=True)
class Now:
    """What the ledger states of the run as a whole, at one moment."""

    counts: dict[State, int]
    """Groups in each state."""
    leased_for: int | None
    """The step that is trained now."""
    next_batch: list[State]
    """Of the next groups in the order of issue, as many as a batch has; `issued` ones are still sampled or verified."""
    committed: int | None
    """The newest step with a checkpoint."""
    proved: int
    """Versions that servers have proved to serve."""
    problems: int | None
    """Those the run draws from, where that is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Which groups are wanted."""

    step: int | None = None
    """Trained in this step, or leased for it."""
    state: State | None = None
    problem: str = ""
    """The beginning of its id, or a part of its text."""
    reward: tuple[float, float] | None = None
    """Only those whose mean reward is in between, ends included."""
    order: Order = "newest"
    after: int | None = None
    """The group that the last page ended with."""
    wanted: Callable[[Entry], Entry | None] = field(default=lambda entry: entry)
    """What to show of a group that was read; None for nothing."""


@dataclass(kw_only=True, slots=True)
class Leaf:
    """A page of groups."""

    entries: list[Entry] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    """Groups that cannot be read, and why."""
    gone: int = 0
    """Groups whose samples were dropped (`rl.audit --compact`)."""
    looked_at: int = 0
    after: int | None = None
    """Where the next page begins; None where there is none."""


class Shelf(History):
    """A ledger that is looked into. See `History` for what it takes and raises."""

    def now(self, batch_groups: int) -> Now:
        """Args:
        batch_groups: in a batch.
        """
        waiting = groups.c.state.in_((State.ISSUED, State.READY))
        turn = sa.select(groups.c.state).where(waiting).order_by(groups.c.id).limit(batch_groups)
        leased = sa.select(sa.func.max(groups.c.step)).where(groups.c.state == State.LEASED)
        with self._engine.connect() as db:
            return Now(
                counts=groups_in_states(db),
                leased_for=db.scalar(leased),
                next_batch=[State(state) for state in db.scalars(turn)],
                committed=db.scalar(sa.select(sa.func.max(commits.c.step))),
                proved=db.scalar(sa.select(sa.func.count()).select_from(proofs)) or 0,
                problems=db.scalar(sa.select(facts.c.value).where(facts.c.name == PROBLEMS)),
            )

    def group(self, id: int) -> Entry | None:
        """One group; None where it is not stored.

        Raises:
            LedgerError: what is stored is damaged.
        """
        with self._engine.connect() as db:
            row = db.execute(_STORED.where(groups.c.id == id)).first()
        return None if row is None else _entry(row)

    def leaf(self, asked: Asked, size: int) -> Leaf:
        """The next groups that are as asked. It may be fewer than `size`, and there may be more behind them: no more
        than `LOOKED_AT` are read."""
        leaf = Leaf(after=asked.after)
        by_id = bool(asked.problem) and self._is_id(asked.problem)
        for id, row in self._rows(asked, by_id):
            if len(leaf.entries) == size or leaf.looked_at == LOOKED_AT:
                return leaf
            leaf.looked_at, leaf.after = leaf.looked_at + 1, id
            if row is None:
                leaf.gone += 1
                continue
            try:
                entry = _entry(row)
            except LedgerError as error:
                leaf.damaged.append(f"group {id}: {error}")
                continue
            if asked.problem and not by_id and asked.problem.casefold() not in entry.group.problem.text.casefold():
                continue
            if (shown := asked.wanted(entry)) is not None:
                leaf.entries.append(shown)
        leaf.after = None
        return leaf

    def _rows(self, asked: Asked, by_id: bool) -> Iterator[tuple[int, sa.Row[Any] | None]]:
        """(id, what is stored) of those that the database can choose, a few at a time."""
        after, full = asked.after, True
        while full:
            with self._engine.connect() as db:
                ids = db.scalars(_chosen(asked, by_id, after).limit(AT_ONCE)).all()
                rows = {row.id: row for row in db.execute(_STORED.where(groups.c.id.in_(ids)))}
            yield from ((id, rows.get(id)) for id in ids)
            full = len(ids) == AT_ONCE
            after = ids[-1] if ids else after

    def _is_id(self, problem: str) -> bool:
        """Whether a problem's id begins so."""
        known = sa.select(groups.c.id).where(groups.c.problem.startswith(problem, autoescape=True)).limit(1)
        with self._engine.connect() as db:
            return db.scalar(known) is not None


_ORDERS = {
    "oldest": (groups.c.id,),
    "newest": (groups.c.id.desc(),),
    "best": (groups.c.mean_reward.desc(), groups.c.id.desc()),
    "worst": (groups.c.mean_reward, groups.c.id.desc()),
}


def _chosen(asked: Asked, by_id: bool, after: int | None) -> sa.Select[Any]:
    """Ids of groups that were sampled, in the order that is asked for."""
    query: sa.Select[Any] = sa.select(groups.c.id).where(groups.c.samples.is_not(None)).order_by(*_ORDERS[asked.order])
    if asked.step is not None:
        query = query.where(groups.c.step == asked.step)
    if asked.state is not None:
        query = query.where(groups.c.state == asked.state)
    if asked.reward is not None:
        query = query.where(groups.c.mean_reward.between(*asked.reward))
    if asked.order in ("best", "worst"):
        query = query.where(groups.c.mean_reward.is_not(None))
    if by_id:
        query = query.where(groups.c.problem.startswith(asked.problem, autoescape=True))
    return query if after is None else query.where(_behind(asked.order, after))


def _behind(order: Order, id: int) -> sa.ColumnElement[bool]:
    """What comes after a group in an order."""
    if order == "oldest":
        return groups.c.id > id
    if order == "newest":
        return groups.c.id < id
    own = sa.select(groups.c.mean_reward).where(groups.c.id == id).scalar_subquery()
    farther = groups.c.mean_reward < own if order == "best" else groups.c.mean_reward > own
    return farther | ((groups.c.mean_reward == own) & (groups.c.id < id))


def _entry(row: sa.Row[Any]) -> Entry:
    """Raises:
    LedgerError: what is stored of the group is damaged.
    """
    try:
        state = State(row.state)
    except ValueError:
        raise LedgerError(f"{row.state!r} is no state") from None
    return Entry(group=codec.decode(row.payload), state=state, step=row.step, mean_reward=row.mean_reward)
