"""What of a run goes from machine to machine through its ledger: records, checkpoints and results of evaluations.

A ledger in the run directory is shared by processes that share that directory: then nothing is carried. A ledger in a
database server (`--buffer-url`) is for a run that spans machines, each with a directory of its own. Whoever makes a
file sends it before the ledger says that it is made, and the supervisor brings everything home.
"""

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from rl.buffer.database import Database, open_ledger
from rl.buffer.fence import check_not_given_up
from rl.buffer.patience import patiently
from rl.buffer.tables import metadata
from rl.core.rundir import RunDir, record_line

PART = 2**24
"""Bytes of a file in one row: an adapter with its optimizer may have a GB."""
SENT = "[!.]*"
"""Of a folder: all but drafts."""

records = sa.Table(  # on their way to metrics.jsonl
    "records",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("line", sa.Text, nullable=False),
)
files = sa.Table(
    "files",
    metadata,
    sa.Column("path", sa.String, primary_key=True),  # in the run directory
    sa.Column("part", sa.Integer, primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False),  # of all parts together
    sa.Column("content", sa.LargeBinary, nullable=False),
)


@patiently
class Courier:
    """Of one process. Where the ledger lies in the run directory it writes there, and carries nothing.

    Args:
        learner: the policy of the learner that sends; one that was given up may send no more.

    Raises (in every method):
        LedgerError: the database cannot be used.
    """

    def __init__(self, run: RunDir, learner: str | None = None) -> None:
        self._run, self._learner = run, learner
        self._db = open_ledger(run.buffer_url) if run.spans_machines else None
        self._brought: set[int] = set()
        """Records that are at home, and may still be in the ledger."""

    def close(self) -> None:
        if self._db:
            self._db.close()

    def log(self, **record: Any) -> None:
        """Adds a record to `metrics.jsonl`."""
        line = record_line(**record)
        if self._db is None:
            return self._run.append(line)
        with self._sends(self._db) as db:
            db.execute(records.insert().values(line=line))

    def send(self, path: Path) -> None:
        """A file of the run directory, or a folder of files, in place of what was sent under this path before."""
        if self._db is None:
            return
        with self._sends(self._db) as db:
            db.execute(files.delete().where(self._at(path)))
            for file in [path] if path.is_file() else sorted(path.glob(SENT)):
                for row in self._rows(file):
                    db.execute(files.insert(), row)
        self._leave_only(path)

    def fetch(self, folder: Path, names: Collection[str] = ()) -> None:
        """Has a folder of the run directory hold what was sent last; where nothing was sent it stays as it is.

        Args:
            names: of the files that are needed; without any, all are.
        """
        if self._db is None:
            return
        self._leave_only(folder)
        with self._db.reads() as db:
            db.execution_options(isolation_level="REPEATABLE READ")  # all are of one moment
            for file, sha256 in self._sent(db, folder):
                if (not names or file.name in names) and not _holds(file, sha256):
                    self._write(db, file, sha256)

    def forget(self, path: Path) -> None:
        """What was sent under this path is needed by nobody any more."""
        if self._db is None:
            return
        with self._db.writes(alone=False) as db:
            db.execute(files.delete().where(self._at(path)))

    def bring_home(self) -> None:
        """Takes out of the ledger what others have made: records, after the evaluations that they are of.

        Killed in between, it does some of it again: of the same records the last counts.
        """
        if self._db is None:
            return
        with self._db.reads() as db:
            db.execution_options(isolation_level="REPEATABLE READ")
            lines = db.execute(sa.select(records).order_by(records.c.id)).all()
            evals = self._sent(db, self._run.evals)
            for file, sha256 in evals:
                self._write(db, file, sha256)
        for row in lines:
            if row.id not in self._brought:
                self._run.append(row.line)
                self._brought.add(row.id)
        with self._db.writes(alone=False) as db:
            for file, sha256 in evals:
                db.execute(files.delete().where(files.c.path == self._name(file), files.c.sha256 == sha256))
            db.execute(records.delete().where(records.c.id.in_([row.id for row in lines])))
        self._brought.clear()

    @contextmanager
    def _sends(self, to: Database) -> Iterator[sa.Connection]:
        """Whether the sender was given up is asked last: who does so waits for whoever has asked, and to send may take
        minutes."""
        with to.writes(alone=False) as db:
            yield db
            check_not_given_up(db, self._learner)

    def _leave_only(self, checkpoint: Path) -> None:
        """A machine that has joined needs one checkpoint at a time."""
        if self._run.copy_mark.exists() and checkpoint.parent == self._run.checkpoints:
            for other in self._run.checkpoints.glob("step-*"):
                if other != checkpoint:
                    shutil.rmtree(other, ignore_errors=True)

    def _at(self, path: Path) -> sa.ColumnElement[bool]:
        """Of the rows of a file, or of all files below a folder."""
        name = self._name(path)
        return (files.c.path == name) | files.c.path.startswith(f"{name}/", autoescape=True)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._run.root).as_posix()

    def _rows(self, file: Path) -> Iterator[dict[str, Any]]:
        about = {"path": self._name(file), "sha256": _sha256(file)}
        with file.open("rb") as content:
            for part, some in enumerate(iter(partial(content.read, PART), b"")):
                yield {**about, "part": part, "content": some}

    def _sent(self, db: sa.Connection, folder: Path) -> list[tuple[Path, str]]:
        """The files that were sent of a folder, each with its hash."""
        whole = sa.select(files.c.path, files.c.sha256).where(self._at(folder), files.c.part == 0)
        return [(self._run.root / path, sha256) for path, sha256 in db.execute(whole)]

    def _write(self, db: sa.Connection, file: Path, sha256: str) -> None:
        """Part by part, as it may be larger than the memory. Of two processes that do so at a time each writes the same
        into the same draft, and what a killed one has left is gone over."""
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.{sha256[:12]}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT, 0o666), "wb") as whole:
            for part in count():
                here = (files.c.path == self._name(file)) & (files.c.part == part)
                if (some := db.scalar(sa.select(files.c.content).where(here))) is None:
                    break
                whole.write(some)
        with suppress(FileNotFoundError):  # another process of this machine was as quick
            draft.replace(file)


def _holds(file: Path, sha256: str) -> bool:
    return file.exists() and _sha256(file) == sha256


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
