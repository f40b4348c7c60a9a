"""The database of a ledger in the run directory: how SQLite is told to keep it, and what its errors mean."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import event

from rl.core.errors import LedgerError

LOCKED_S = 45
"""How long a transaction waits for another process's: one that was stopped in it is noticed by its silence first."""
_AGAIN_S = 0.01
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


class SQLite:
    """A file in WAL mode, so that readers and the writer do not block each other. Whatever is killed, what was
    committed is there; what is `durable` also after a power cut.

    A transaction that will write takes the lock at once, so that what it reads first is still so when it writes.
    """

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        self._reads = self._engine.execution_options(begin="BEGIN")
        self._durable = self._engine.execution_options(durable=True)
        self._path = Path(self._engine.url.database or "")
        _configure(self._engine)

    def make(self, metadata: sa.MetaData) -> None:
        """Makes the tables that are not there yet."""
        metadata.create_all(self._engine)

    @contextmanager
    def reads(self) -> Iterator[sa.Connection]:
        with self._reads.connect() as db:
            yield db

    @contextmanager
    def writes(self, *, durable: bool = False, alone: bool = True) -> Iterator[sa.Connection]:
        """Every transaction that writes is alone here."""
        with (self._durable if durable else self._engine).begin() as db:
            yield db

    def shrink(self) -> None:
        """Gives back the room of what was deleted."""
        with self._engine.execution_options(begin="").connect() as db:
            db.exec_driver_sql("VACUUM")
            db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def bytes(self) -> int:
        """On the disk."""
        log = self._path.with_name(f"{self._path.name}-wal")
        return sum(file.stat().st_size for file in (self._path, log) if file.exists())

    def close(self) -> None:
        self._engine.dispose()

    def __str__(self) -> str:
        return shown(self._engine.url)


def shown(url: sa.URL) -> str:
    """For messages: the file."""
    return url.database or ""


def read_only(url: str) -> sa.Engine:
    """Each of its transactions sees one moment."""
    path = Path(sa.make_url(url).database or "")
    engine = sa.create_engine("sqlite://", creator=lambda: _open(path), poolclass=sa.NullPool)
    event.listen(engine, "begin", lambda db: db.exec_driver_sql("BEGIN"))
    return engine


def meaning(error: BaseException | None) -> tuple[str, str] | None:
    """What an error says about the ledger, and the fix; None where it says nothing about its file."""
    if not isinstance(error, sqlite3.Error) or not hasattr(error, "sqlite_errorcode"):
        return None
    if "no such table" in str(error) or "no such column" in str(error) or "has no column" in str(error):
        return _OTHER_VERSION
    return _MEANINGS.get(error.sqlite_errorcode & 0xFF)  # the rest of the code says where in SQLite


def _configure(engine: sa.Engine) -> None:
    """What befalls the file is a `LedgerError`; the transaction that it befell is rolled back."""

    @event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # SQLAlchemy's `begin` below, not sqlite3's
        connection.execute(f"PRAGMA busy_timeout={LOCKED_S * 1000:.0f}")
        _keep_log(connection)

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        options = connection.get_execution_options()
        if begin := options.get("begin", "BEGIN IMMEDIATE"):
            connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if options.get('durable') else 'NORMAL'}")
            connection.exec_driver_sql(begin)

    @event.listens_for(engine, "handle_error", retval=True)
    def _explain(context: sa.ExceptionContext) -> LedgerError | None:
        explained = meaning(context.original_exception)
        if explained is None:
            return None
        what, fix = explained
        return LedgerError(f"the ledger {engine.url.database}: {what} ({context.original_exception})", fix=fix)


def _keep_log(connection: sqlite3.Connection) -> None:
    """Write-ahead. Where two make the file at a time, SQLite refuses one of them whatever its `busy_timeout`."""
    end = time.monotonic() + LOCKED_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
        time.sleep(_AGAIN_S)


def _open(path: Path) -> sqlite3.Connection:
    """Read-only. Without a write-ahead log there is no writer: it is read as it lies, and no file is made beside it."""
    options = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
    uri = f"{path.absolute().as_uri()}?{options}"
    return sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)  # SQLAlchemy begins
