"""The database of a ledger that several machines share: a schema of PostgreSQL's, and what befalls it.

It may restart, crash, or be cut off in the middle of a transaction. Each transaction that writes enters its own name as
it begins. Where the answer to a COMMIT is lost, that name says whether it was done.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects.postgresql import insert

from rl.buffer.patience import AwayError, patient
from rl.core.dburl import URL_VARIABLE, check_database_url
from rl.core.errors import LedgerError, first_line

LOCKED_S = 45
"""How long a transaction waits for another process's."""
CUT_S = 30
"""When a link is cut for longer, both sides give it up, and the server ends the transaction with its locks."""
CLIENT = {
    "connect_timeout": 10,
    "client_encoding": "utf8",
    "tcp_user_timeout": CUT_S * 1000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
}
SERVER = {
    "synchronous_commit": "on",  # else what clients know to be written is lost with the database, which they outlive
    "lock_timeout": f"{LOCKED_S}s",
    "idle_in_transaction_session_timeout": f"{CUT_S}s",
    "tcp_user_timeout": f"{CUT_S}s",
    "tcp_keepalives_idle": 10,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 4,
}

_own = sa.MetaData()
_transactions = sa.Table("transactions", _own, sa.Column("name", sa.Uuid, primary_key=True))
_LAST = "last transaction"
"""Of a connection: its name, which nobody will ask for."""
_LOCK = "pg_advisory_xact_lock(hashtextextended(current_schema(), 0))"
_BEGIN = sa.text(
    "WITH last AS (DELETE FROM transactions WHERE name = CAST(:last AS uuid)), "
    "this AS (INSERT INTO transactions VALUES (CAST(:name AS uuid))) "
    f"SELECT CASE WHEN :alone THEN CAST({_LOCK} AS text) END"
)
_BYTES = sa.text(
    "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relkind = 'r' AND n.nspname = current_schema()"
)

_AGAIN = ("40", "57", "53200", "53300")
"""Codes, or classes of them, of what passes: deadlocks, an operator's intervention, too many clients."""
_OTHER_VERSION = (
    "its tables are not there, or of another version of Tally",
    "the run's provenance.json names the commit to read it with",
)
_MEANINGS = {
    "53100": ("the database's disk is full", "free some space there, then go on with --resume"),
    "55P03": ("another process keeps it locked", "end what else has it open, then go on with --resume"),
    "58030": ("the database's disk fails to read or write it", "see the database's log"),
    "XX001": ("it is damaged", "restore the database from a copy"),
    "XX002": ("it is damaged", "restore the database from a copy"),
    "25006": ("the database may not be written", "is it a standby? Name the primary"),
    "42501": ("this user may not use it", "GRANT the user what is missing"),
    "3F000": ("its schema is not there", "was it renamed or dropped? config.json names it"),
    "42P01": _OTHER_VERSION,
    "42703": _OTHER_VERSION,
}


class PostgreSQL:
    """A schema, which its URL names as the search path. What was committed is there, whatever crashes.

    A transaction that decides by what others do is alone: an advisory lock lets no other such begin before it has
    ended. READ COMMITTED is right then: each statement sees all that was done before the lock was had, and nobody
    changes it. Reads lock nothing.

    Raises (in every method):
        AwayError: the database is away, or has come back meanwhile; nothing was written.
        LedgerError: anything else that befalls it.
    """

    def __init__(self, url: str) -> None:
        connecting = connect_args(url, name=schema_of(url))
        self._engine = sa.create_engine(url, connect_args=connecting, isolation_level="READ COMMITTED")
        self._reads = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        event.listen(self._engine, "handle_error", self._explain, retval=True)

    def make(self, metadata: sa.MetaData) -> None:
        """Makes the tables that are not there yet."""
        with self._engine.begin() as db:
            db.execute(sa.text(f"SELECT {_LOCK}"))  # two processes would make the same one
            _own.create_all(db)
            metadata.create_all(db)

    @contextmanager
    def reads(self) -> Iterator[sa.Connection]:
        """Each statement sees a moment of its own."""
        with self._reads.connect() as db:
            yield db

    @contextmanager
    def writes(self, *, durable: bool = False, alone: bool = True) -> Iterator[sa.Connection]:
        """Args: alone: False for what concerns nothing that others decide by: a machine that is cut off in the middle
        of it holds up nobody. Every transaction is durable here.
        """
        name = uuid.uuid4()
        with self._engine.connect() as db:
            db.execute(_BEGIN, {"name": name, "last": db.info.get(_LAST), "alone": alone})
            yield db
            try:
                db.commit()
                db.info[_LAST] = name
            except AwayError:
                if not self._is_done(name):
                    raise

    @patient
    def _is_done(self, name: uuid.UUID) -> bool:
        """Whether the transaction of this name was committed. Where it is still under way, as only its client was cut
        off, entering the same name waits for its end."""
        with self._engine.connect() as db:  # and rolls back
            enter = insert(_transactions).values(name=name).on_conflict_do_nothing()
            return db.scalar(enter.returning(_transactions.c.name)) is None

    def shrink(self) -> None:
        """Gives back the room of what was deleted."""
        with self._reads.connect() as db:
            db.exec_driver_sql("VACUUM FULL payloads")

    def bytes(self) -> int:
        """On the database's disk."""
        with self._reads.connect() as db:
            return int(db.scalar(_BYTES) or 0)

    def close(self) -> None:
        self._engine.dispose()

    def __str__(self) -> str:
        return shown(self._engine.url)

    def _explain(self, context: sa.ExceptionContext) -> LedgerError | None:
        error = context.original_exception
        if context.is_disconnect or context.connection is None or _code(error).startswith(_AGAIN):
            return AwayError(f"the ledger {self}: the database is away ({first_line(error)})")
        explained = meaning(error)
        if explained is None:
            return None
        what, fix = explained
        return LedgerError(f"the ledger {self}: {what} ({first_line(error)})", fix=fix)


def read_only(url: str) -> sa.Engine:
    """Each of its transactions sees one moment."""
    return sa.create_engine(
        url,
        connect_args=connect_args(url, name="reader"),
        isolation_level="REPEATABLE READ",
        execution_options={"postgresql_readonly": True},
        pool_pre_ping=True,
    )


def connect_args(url: str, *, name: str) -> dict[str, Any]:
    """How the database is connected to, beside its URL; what libpq finds itself (PGPASSWORD, ~/.pgpass) is not here.

    Args:
        name: that the database's administrator sees.
    """
    parsed = sa.make_url(url)
    settings = " ".join(f"-c{name}={value}" for name, value in SERVER.items())
    options = {"options": f"{parsed.query.get('options', '')} {settings}", "application_name": name}
    return CLIENT | options | _password(parsed)


def schema_of(url: str | sa.URL) -> str:
    """The name that a ledger's URL ends with."""
    return str(sa.make_url(url).query.get("options", "")).partition("=")[2]


def shown(url: sa.URL) -> str:
    """For messages: the schema and its database."""
    return f"{schema_of(url)} in {url.set(query={}).render_as_string(hide_password=True)}"


def meaning(error: BaseException | None) -> tuple[str, str] | None:
    """What an error says about the ledger, and the fix; None where it says nothing about it."""
    if isinstance(error, psycopg.OperationalError) and not error.sqlstate:
        return (
            f"the database cannot be reached ({first_line(error)})",
            "does it run there, and may you connect from here? psql takes the same URL",
        )
    return _MEANINGS.get(_code(error))


def _code(error: BaseException | None) -> str:
    return (error.sqlstate or "") if isinstance(error, psycopg.Error) else ""


def _password(url: sa.URL) -> dict[str, str]:
    """That of the environment's URL, where it names the same database."""
    try:
        check_database_url(named := os.environ.get(URL_VARIABLE, ""), secret=True)
    except ValueError:
        return {}
    given = sa.make_url(named)
    if given.password and all(getattr(given, n) == getattr(url, n) for n in ("username", "host", "port", "database")):
        return {"password": given.password}
    return {}
