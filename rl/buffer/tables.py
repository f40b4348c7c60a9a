"""The tables of the ledger, how SQLite is told to keep them, and what its errors mean."""

import sqlite3
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy import event

from rl.core.errors import LedgerError


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
    sa.Column("problem", sa.String),  # its id
    sa.Column("policy", sa.String),
    sa.Column("adapter_sha256", sa.String(64)),  # that sampled it
    sa.Column("oldest_version", sa.Integer),
    sa.Column("samples", sa.Integer),
    sa.Column("tokens", sa.Integer),  # of all completions together
    sa.Column("mean_reward", sa.Float),
    sa.Column("step", sa.Integer, index=True),  # leased for, trained in, or to be trained in again
)
payloads = sa.Table(  # beside their groups: SQLite writes a whole row again when its state changes
    "payloads",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("payload", sa.LargeBinary, nullable=False),  # the group itself; gone after `compact`
)
proofs = sa.Table(
    "proofs",
    metadata,
    sa.Column("policy", sa.String, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False),  # of the adapter's bytes
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
facts = sa.Table(  # about the run, for its audit
    "facts",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.Integer, nullable=False),
)
PROBLEMS = "problems"
"""The fact: how many problems the run draws from."""
requests = sa.Table("requests", metadata, sa.Column("what", sa.String(10), primary_key=True))

LOCKED_S = 45
"""How long a transaction waits for another process's: one that was stopped in it is noticed by its silence first."""
_MEANINGS = {
    sqlite3.SQLITE_FULL: ("the disk is full", "free some space, then go on with --resume"),
    sqlite3.SQLITE_BUSY: ("another process keeps it locked", "end what else has it open, then go on with --resume"),
    sqlite3.SQLITE_CORRUPT: ("it is damaged", "put back a copy of the run; `sqlite3 FILE .recover` saves what it can"),
    sqlite3.SQLITE_NOTADB: ("it is no database of SQLite's", "put back a copy of the run, or start a new one"),
    sqlite3.SQLITE_CANTOPEN: ("it cannot be opened", "is its folder there, and may you write to it?"),
    sqlite3.SQLITE_READONLY: ("it may not be written", "make it and its folder writable for you"),
    sqlite3.SQLITE_PERM: ("it may not be opened", "make it and its folder writable for you"),
    sqlite3.SQLITE_IOERR: ("the disk fails to read or write it", "see the system's log (dmesg)"),
}
_OTHER_VERSION = (
    "it was made by another version of Tally",
    "the run's provenance.json names the commit to read it with",
)


def groups_in_states(db: sa.Connection) -> dict[State, int]:
    """How many groups are in each state."""
    rows = db.execute(sa.select(groups.c.state, sa.func.count()).group_by(groups.c.state)).all()
    return dict.fromkeys(State, 0) | {State(state): n for state, n in rows}


def meaning(error: BaseException | None) -> tuple[str, str] | None:
    """What an error of SQLite's says about the ledger, and the fix; None where it says nothing about its file."""
    if not isinstance(error, sqlite3.Error) or not hasattr(error, "sqlite_errorcode"):
        return None
    if "no such table" in str(error) or "no such column" in str(error) or "has no column" in str(error):
        return _OTHER_VERSION
    return _MEANINGS.get(error.sqlite_errorcode & 0xFF)  # the rest of the code says where in SQLite


def configure_sqlite(engine: sa.Engine) -> None:
    """WAL, so that readers and the writer do not block each other. A transaction that will write takes the lock at
    once, so that what it reads first is still so when it writes. Whatever is killed, what was committed is there; with
    the option `durable` also after a power cut. With the option `alone` there is no transaction.

    What befalls the file is a `LedgerError`; the transaction that it befell is rolled back.
    """

    @event.listens_for(engine, "connect")
    def _connect(connection, _record) -> None:  # type: ignore[no-untyped-def]
        connection.isolation_level = None  # SQLAlchemy's `begin` below, not sqlite3's
        for pragma in (f"busy_timeout={LOCKED_S * 1000:.0f}", "journal_mode=WAL"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        options = connection.get_execution_options()
        if options.get("alone"):
            return
        connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if options.get('durable') else 'NORMAL'}")
        connection.exec_driver_sql("BEGIN" if options.get("reads") else "BEGIN IMMEDIATE")

    @event.listens_for(engine, "handle_error", retval=True)
    def _explain(context: sa.ExceptionContext) -> LedgerError | None:
        explained = meaning(context.original_exception)
        if explained is None:
            return None
        what, fix = explained
        return LedgerError(f"the ledger {engine.url.database}: {what} ({context.original_exception})", fix=fix)
