"""What became of a run's groups: its ledger, read while the run goes on or long after, and never written."""

import sqlite3
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import sqlalchemy as sa

from rl.buffer import codec
from rl.buffer.ledger import State, groups
from rl.core.errors import UsageError
from rl.core.types import Group, Problem

Order = Literal["oldest", "newest", "best", "worst"]
AT_ONCE = 16
"""Groups read at a time: a group of long completions is some hundred kilobytes."""
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


class History:
    """A ledger that is only looked at. No look holds up the run: each is a short read.

    Args:
        url: `sqlite:///PATH`, or another database that SQLAlchemy knows.

    Raises:
        UsageError: there is no ledger, or it cannot be read.
    """

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite":
            path = Path(parsed.database or "")
            self._engine = sa.create_engine("sqlite://", creator=lambda: _open(path), poolclass=sa.NullPool)
        else:
            self._engine = sa.create_engine(url)
        try:
            self.counts()
        except sa.exc.DBAPIError as error:
            fix = "wait until the run has started, or copy the whole run directory"
            raise UsageError(f"cannot read the ledger {parsed.database}: {error.orig}", fix=fix) from None

    def close(self) -> None:
        self._engine.dispose()

    def counts(self) -> dict[State, int]:
        """Groups in each state."""
        with self._engine.connect() as db:
            rows = db.execute(sa.select(groups.c.state, sa.func.count()).group_by(groups.c.state)).all()
        return dict.fromkeys(State, 0) | {State(state): n for state, n in rows}

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
        """Sampled groups, read as they are asked for.

        Args:
            step: only those trained in this step, or leased for it.
            states: only those in one of these.
            problem: says of a problem whether its groups are wanted; None takes all.
            order: of issue, or by mean reward; best and worst leave out what the verifier could not mark.
        """
        wanted = sa.select(groups.c.id).where(groups.c.payload.is_not(None)).order_by(*_BY[order])
        if step is not None:
            wanted = wanted.where(groups.c.step == step)
        if states:
            wanted = wanted.where(groups.c.state.in_(states))
        if order in ("best", "worst"):
            wanted = wanted.where(groups.c.mean_reward.is_not(None))
        with self._engine.connect() as db:
            ids = list(db.scalars(wanted))
        for start in range(0, len(ids), AT_ONCE):
            yield from self._load(ids[start : start + AT_ONCE], problem)

    def _load(self, ids: list[int], wanted: Callable[[Problem], bool] | None) -> Iterator[Entry]:
        with self._engine.connect() as db:
            rows = {row.id: row for row in db.execute(sa.select(groups).where(groups.c.id.in_(ids)))}
        for row in (rows[i] for i in ids):
            if wanted is not None and not wanted(_about(row.payload).problem):
                continue
            group = codec.decode(row.payload)
            yield Entry(group=group, state=State(row.state), step=row.step, mean_reward=row.mean_reward)


def _open(path: Path) -> sqlite3.Connection:
    """Read-only. Without a write-ahead log there is no writer: it is read as it lies, and no file is made beside it."""
    options = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True, check_same_thread=False)
