"""What became of a run's groups: its ledger, read while the run goes on or long after, and never written."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy import event

from rl.buffer import codec
from rl.buffer.database import meaning, read_only, shown
from rl.buffer.tables import PROBLEMS, State, commits, facts, groups, groups_in_states, payloads, proofs
from rl.core.errors import LedgerError, UsageError
from rl.core.types import Group, Problem

Order = Literal["oldest", "newest", "best", "worst"]
AT_ONCE = 16
"""Groups read at a time: a group of long completions is some hundred kilobytes."""
_SAME = groups.c.id == payloads.c.id
_BY = {
    "oldest": (groups.c.id,),
    "newest": (groups.c.id.desc(),),
    "best": (groups.c.mean_reward.desc(), groups.c.id.desc()),
    "worst": (groups.c.mean_reward, groups.c.id.desc()),
}


@dataclass(frozen=True, slots=True)
class _About:
    """The part of a group that is quickly read: its thousands of numbers are skipped."""

    problem: Problem


_about = msgspec.msgpack.Decoder(_About).decode


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A group that was sampled, and what became of it."""

    group: Group
    state: State
    step: int | None
    """The step it was trained in, or is leased for; None where it was not."""
    mean_reward: float | None
    """None where the verifier could not say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What the ledger states of a group; all but id, state and step is None until it is sampled."""

    id: int
    state: str
    """A `State`, unless somebody else wrote it."""
    step: int | None
    problem: str | None
    policy: str | None
    adapter_sha256: str | None
    oldest_version: int | None
    samples: int | None
    tokens: int | None
    mean_reward: float | None
    stored: bool
    """Whether the group itself is there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Books:
    """All that a ledger states at one moment, but for the groups themselves."""

    rows: list[Row]
    """By id."""
    proofs: dict[tuple[str, int], str]
    """(policy, version) → the hash of the adapter that servers proved to serve."""
    commits: list[int]
    """Steps, oldest first."""
    problems: int | None
    """Those the run draws from; None where no one has entered it."""


class History:
    """A ledger that is only looked at. No look holds up the run: each is a short read.

    Args:
        url: of the ledger, as `open_ledger` takes it.

    Raises (here and in every method):
        UsageError: there is no ledger, or it cannot be read.
    """

    def __init__(self, url: str) -> None:
        self._engine, name = read_only(url), shown(url)

        @event.listens_for(self._engine, "handle_error", retval=True)
        def _explain(context: sa.ExceptionContext) -> UsageError:
            error = context.original_exception
            what, fix = meaning(error) or (error, "wait until the run has started, or copy the whole run directory")
            return UsageError(f"cannot read the ledger {name}: {what}", fix=fix)

        try:
            with self._engine.connect() as db:
                db.execute(sa.select(groups).limit(1))  # whether it is a ledger, and of this version
        except UsageError:
            self.close()
            raise

    def close(self) -> None:
        self._engine.dispose()

    def counts(self) -> dict[State, int]:
        """Groups in each state."""
        with self._engine.connect() as db:
            return groups_in_states(db)

    def books(self) -> Books:
        """The whole ledger at this moment: one read transaction."""
        stated = [groups.c[name] for name in Row.__dataclass_fields__ if name != "stored"]
        rows = sa.select(*stated, payloads.c.id.is_not(None).label("stored")).outerjoin_from(groups, payloads, _SAME)
        with self._engine.connect() as db:
            return Books(
                rows=[Row(**row) for row in db.execute(rows.order_by(groups.c.id)).mappings()],
                proofs={(policy, version): sha256 for policy, version, sha256 in db.execute(sa.select(proofs))},
                commits=list(db.scalars(sa.select(commits.c.step).order_by(commits.c.step))),
                problems=db.scalar(sa.select(facts.c.value).where(facts.c.name == PROBLEMS)),
            )

    def groups(self, ids: Collection[int]) -> Iterator[tuple[int, Group | LedgerError]]:
        """(id, the group as it is stored, or why it cannot be read) of those that are stored, by id."""
        for chunk in _chunks(sorted(ids)):
            stored = sa.select(payloads).where(payloads.c.id.in_(chunk)).order_by(payloads.c.id)
            with self._engine.connect() as db:
                rows = db.execute(stored).all()
            for id, payload in rows:
                try:
                    yield id, codec.decode(payload)
                except LedgerError as error:
                    yield id, error

    def trained_in(self, step: int) -> list[Entry]:
        """The groups that a step was computed from, in the order of issue."""
        return list(self.entries(step=step, states=(State.TRAINED,)))

    def entries(
        self,
        *,
        step: int | None = None,
        states: Collection[State] = (),
        problem: Callable[[Problem], bool] | None = None,
        order: Order = "oldest",
    ) -> Iterator[Entry]:
        """Groups that were sampled and are still stored, read as they are asked for.

        Args:
            step: only those trained in this step, or leased for it.
            states: only those in one of these.
            problem: says of a problem whether its groups are wanted; None takes all.
            order: of issue, or by mean reward; best and worst leave out what the verifier could not mark.
        """
        wanted = sa.select(groups.c.id).join_from(groups, payloads, _SAME).order_by(*_BY[order])
        if step is not None:
            wanted = wanted.where(groups.c.step == step)
        if states:
            wanted = wanted.where(groups.c.state.in_(states))
        if order in ("best", "worst"):
            wanted = wanted.where(groups.c.mean_reward.is_not(None))
        with self._engine.connect() as db:
            ids = list(db.scalars(wanted))
        for chunk in _chunks(ids):
            yield from self._load(chunk, problem)

    def _load(self, ids: list[int], wanted: Callable[[Problem], bool] | None) -> Iterator[Entry]:
        with self._engine.connect() as db:
            stored = sa.select(groups, payloads.c.payload).join_from(groups, payloads, _SAME)
            rows = {row.id: row for row in db.execute(stored.where(groups.c.id.in_(ids)))}
        for row in (rows[i] for i in ids):
            if wanted is not None and not wanted(_about(codec.checked(row.payload)).problem):
                continue
            group = codec.decode(row.payload)
            yield Entry(group=group, state=State(row.state), step=row.step, mean_reward=row.mean_reward)


def _chunks(ids: list[int]) -> Iterator[list[int]]:
    return (ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE))
