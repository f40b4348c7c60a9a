"""The database that a ledger is in, whichever it is."""

from contextlib import AbstractContextManager
from typing import Protocol

import sqlalchemy as sa

from rl.buffer import postgres, sqlite
from rl.buffer.patience import patient
from rl.buffer.tables import groups, metadata
from rl.core.errors import LedgerError


class Database(Protocol):
    """What befalls it is a `LedgerError`; nothing is half written then."""

    def reads(self) -> AbstractContextManager[sa.Connection]:
        """For looking at it."""

    def writes(self, *, durable: bool = False, alone: bool = True) -> AbstractContextManager[sa.Connection]:
        """A transaction, committed where its block ends well.

        Args:
            durable: it survives a power cut, too.
            alone: no other one that is alone begins before this one has ended.
        """

    def make(self, metadata: sa.MetaData) -> None:
        """Makes the tables that are not there yet."""

    def shrink(self) -> None:
        """Gives back the room of what was deleted."""

    def bytes(self) -> int:
        """On the disk."""

    def close(self) -> None: ...


@patient
def open_ledger(url: str) -> Database:
    """The database of the ledger at this URL, with all tables that it has not had yet.

    Args:
        url: `sqlite:///PATH`, or `postgresql://…` with a schema (see `rl.buffer.schema`).

    Raises:
        LedgerError: it cannot be used, or is of another version.
    """
    database = sqlite.SQLite(url) if _is_sqlite(url) else postgres.PostgreSQL(url)
    try:
        database.make(metadata)
        with database.reads() as db:
            db.execute(sa.select(groups).limit(0))  # whether its columns are those of this version
    except LedgerError:
        database.close()
        raise
    return database


def read_only(url: str) -> sa.Engine:
    """The ledger at this URL, for looks: each of its transactions sees one moment, and holds up nobody."""
    return sqlite.read_only(url) if _is_sqlite(url) else postgres.read_only(url)


def shown(url: str) -> str:
    """The ledger at this URL, for messages: never with a password."""
    parsed = sa.make_url(url)
    return sqlite.shown(parsed) if _is_sqlite(url) else postgres.shown(parsed)


def meaning(error: BaseException | None) -> tuple[str, str] | None:
    """What an error of a database says about the ledger, and the fix; None where it says nothing about it."""
    return sqlite.meaning(error) or postgres.meaning(error)


def _is_sqlite(url: str) -> bool:
    return sa.make_url(url).get_backend_name() == "sqlite"
