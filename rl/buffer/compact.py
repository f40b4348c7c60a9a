"""Compaction: the samples that no resume can need leave the ledger, what it states of them stays."""

from contextlib import closing
from dataclasses import dataclass

import sqlalchemy as sa

from rl.buffer.database import open_ledger
from rl.buffer.tables import State, commits, groups, payloads

DONE = (State.EXPIRED, State.NO_SIGNAL, State.UNVERIFIED)


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """What it came to."""

    ledger: str
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
        url: of the ledger, as `open_ledger` takes it.

    Raises:
        LedgerError: the disk has not the room for a second copy of what stays, or another process has it open.
    """
    with closing(open_ledger(url)) as ledger:
        before = ledger.bytes()
        newest = sa.select(sa.func.max(commits.c.step)).scalar_subquery()
        done = groups.c.state.in_(DONE) | ((groups.c.state == State.TRAINED) & (groups.c.step <= newest))
        gone = payloads.c.id.in_(sa.select(groups.c.id).where(done))
        with ledger.writes(durable=True) as db:
            dropped = db.execute(payloads.delete().where(gone)).rowcount
        ledger.shrink()
        return Compaction(ledger=str(ledger), groups=dropped, bytes_before=before, bytes_after=ledger.bytes())
