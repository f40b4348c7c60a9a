"""Compaction: the samples that no resume can need leave the ledger, what it states of them stays."""

from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from rl.buffer.tables import State, commits, configure_sqlite, groups, payloads

DONE = (State.EXPIRED, State.NO_SIGNAL, State.UNVERIFIED)


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """What it came to."""

    file: Path
    groups: int
    """Whose samples were dropped."""
    bytes_before: int
    """Of the database on the disk."""
    bytes_after: int


def compact(url: str) -> Compaction:
    """Drops the tokens, log-probabilities, texts and verdicts of the groups that are done: what was trained through
    the newest commit, and what never will be trained. They can be neither shown nor replayed any more.

    Nobody else may have the ledger open.

    Args:
        url: `sqlite:///PATH`.

    Raises:
        LedgerError: the disk has not the room for a second copy of what stays, or another process has it open.
    """
    engine = sa.create_engine(url)
    path = Path(engine.url.database or "")
    before = _size(path)
    configure_sqlite(engine)
    try:
        dropped = _drop(engine)
    finally:
        engine.dispose()
    return Compaction(file=path, groups=dropped, bytes_before=before, bytes_after=_size(path))


def _drop(engine: sa.Engine) -> int:
    """Drops the payloads, and gives their room back; returns of how many groups."""
    newest = sa.select(sa.func.max(commits.c.step)).scalar_subquery()
    done = groups.c.state.in_(DONE) | ((groups.c.state == State.TRAINED) & (groups.c.step <= newest))
    with engine.execution_options(durable=True).begin() as db:
        dropped = db.execute(payloads.delete().where(payloads.c.id.in_(sa.select(groups.c.id).where(done)))).rowcount
    with engine.execution_options(alone=True).connect() as db:
        db.exec_driver_sql("VACUUM")
        db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return dropped


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
