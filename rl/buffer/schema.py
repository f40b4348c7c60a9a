"""The schema of a run in a PostgreSQL database that holds many: named after its directory, made with it, moved aside
with it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.schema import CreateSchema, DropSchema

from rl.buffer.postgres import connect_args, schema_of
from rl.core.dburl import URL_VARIABLE, check_database_url
from rl.core.errors import UsageError, first_line
from rl.core.rundir import RunDir

LONGEST = 63
NAME = re.compile(rf"(?!pg_)[a-z0-9_][a-z0-9_.-]{{0,{LONGEST - 1}}}")
"""Of a schema: what needs no quotes in a search path, and PostgreSQL keeps whole and not for itself."""
_FIXES = {
    "password": f"put the password into PGPASSWORD or ~/.pgpass, or the whole URL into {URL_VARIABLE}",
    "does not exist": "createdb and createuser make what is missing",
    "permission denied": "GRANT CREATE ON DATABASE lets a user make schemas, and only its owner renames one",
    "": "does it run there, and may you connect from here? psql takes the same URL",
}
"""By what the database complains of."""
_EXISTS = sa.text("SELECT count(*) FROM pg_namespace WHERE nspname = :name")
_OPEN = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = :name")


def url_of_environment() -> str | None:
    """The database that the environment names, without its password, which whoever connects looks up there.

    Raises:
        UsageError: that is no URL of a database.
    """
    if not (given := os.environ.get(URL_VARIABLE)):
        return None
    try:
        check_database_url(given, secret=True)
    except ValueError as error:
        raise UsageError(f"{URL_VARIABLE}: {error}") from None
    return sa.make_url(given)._replace(password=None).render_as_string()


def check_database(url: str) -> None:
    """Raises:
    UsageError: the database cannot be reached.
    """
    with _connected(url):
        pass


@contextmanager
def new_schema(url: str, run: RunDir, *, overwrite: bool) -> Iterator[str]:
    """Makes the schema of a run, which is there once the block has ended well; yields the URL of the ledger in it.

    Args:
        url: of the database.
        overwrite: moves a schema of that name aside.

    Raises:
        UsageError: the database cannot be reached, the schema exists, or it may not be made, or not under that name.
    """
    name = _name_for(run)
    if "options" in sa.make_url(url).query:
        raise UsageError("--buffer-url has options", fix="leave them out: they are to name the run's own schema")
    with _connected(url) as db:
        if db.scalar(_EXISTS, {"name": name}):
            if not overwrite:
                fix = "go on with its run (--resume), take another --run-dir, or move it aside with --overwrite"
                raise UsageError(f"the schema {name} exists in {url}", fix=fix)
            _rename(db, name, _aside_of(name, f".{datetime.now():%Y%m%d-%H%M%S}.old"))
        db.execute(CreateSchema(name))
        yield _in_schema(url, name)
        db.commit()


def follow(url: str, suffix: str) -> str:
    """Renames the schema of a ledger whose run was moved aside; returns the ledger's new URL.

    Raises:
        UsageError: the database cannot be reached, or the schema may not be renamed.
    """
    old = schema_of(url)
    new = _aside_of(old, suffix)
    with _connected(url) as db:
        if db.scalar(_EXISTS, {"name": old}):  # else who made the run was killed at it
            _rename(db, old, new)
        db.commit()
    return _in_schema(url, new)


def database_of(url: str) -> str:
    """The database of a ledger at this URL, as a user names it."""
    return sa.make_url(url).difference_update_query(["options"]).render_as_string(hide_password=False)


def drop_schema(url: str) -> None:
    """Removes the ledger at this URL with all that is in it, which no run may ask for.

    Raises:
        UsageError: the database cannot be reached.
    """
    with _connected(url) as db:
        db.execute(DropSchema(schema_of(url), cascade=True))
        db.commit()


@contextmanager
def _connected(url: str) -> Iterator[sa.Connection]:
    name = sa.make_url(url).set(query={}).render_as_string()
    engine = sa.create_engine(url, connect_args=connect_args(url, name="tally"), poolclass=sa.NullPool)

    @event.listens_for(engine, "handle_error", retval=True)
    def _explain(context: sa.ExceptionContext) -> UsageError:
        complaint = first_line(context.original_exception)
        fix = next(fix for word, fix in _FIXES.items() if word in str(context.original_exception))
        return UsageError(f"cannot use the database {name}: {complaint}", fix=fix)

    with engine.connect() as db:
        yield db


def _rename(db: sa.Connection, old: str, new: str) -> None:
    """Raises:
    UsageError: processes of its run have it open.
    """
    if db.scalar(_OPEN, {"name": old}):
        fix = "wait for it, or stop it with Ctrl-C where it was started"
        raise UsageError(f"the run of the schema {old} is in progress", fix=fix)
    quoted = db.dialect.identifier_preparer.quote_identifier
    db.exec_driver_sql(f"ALTER SCHEMA {quoted(old)} RENAME TO {quoted(new)}")


def _name_for(run: RunDir) -> str:
    name = run.root.resolve().name.lower()
    if not NAME.fullmatch(name):
        fix = f"take a --run-dir whose name has at most {LONGEST} letters, digits and . - _"
        raise UsageError(f"no schema can be named as the run directory is: {name}", fix=fix)
    return name


def _aside_of(name: str, suffix: str) -> str:
    return f"{name[: LONGEST - len(suffix)]}{suffix}"


def _in_schema(url: str, name: str) -> str:
    whole = sa.make_url(url).update_query_dict({"options": f"-csearch_path={name}"})
    return whole.render_as_string(hide_password=False)  # it has none
