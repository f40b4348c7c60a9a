"""What of a run goes from machine to machine through its ledger: records, checkpoints and results of evaluations.

A ledger in the run directory is shared by processes that share that directory: then nothing is carried. A ledger in a
database server (`--buffer-url`) is for a run that spans machines, each with a directory of its own. Whoever makes a
file sends it before the ledger says that it is made, and the supervisor brings everything home.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from rl.buffer.database import open_ledger
from rl.buffer.patience import patiently
from rl.buffer.tables import metadata
from rl.core.rundir import RunDir, record_line

PART = 2**24
"""Bytes of a file in one row: an adapter with its optimizer may have a GB."""

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

    Raises (in every method):
        LedgerError: the database cannot be used.
    """

    def __init__(self, run: RunDir) -> None:
        self._run = run
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
        with self._db.writes(alone=False) as db:
            db.execute(records.insert().values(line=line))

    def send(self, path: Path) -> None:
        """A file of the run directory, or a folder of files, in place of what was sent under this path before."""
        if self._db is None:
            return
        with self._db.writes(alone=False) as db:
            db.execute(files.delete().where(self._at(path)))
            for file in [path] if path.is_file() else sorted(path.iterdir()):
                for row in self._rows(file):
                    db.execute(files.insert(), row)
        self._leave_only(path)

    def fetch(self, folder: Path) -> None:
        """Has a folder of the run directory hold what was sent last; where nothing was sent it stays as it is."""
        if self._db is None:
            return
        self._leave_only(folder)
        with self._db.reads() as db:
            whole = sa.select(files.c.path, files.c.sha256).where(self._at(folder), files.c.part == 0)
            sent = {self._run.root / path: sha256 for path, sha256 in db.execute(whole)}
            if all(_holds(file, sha256) for file, sha256 in sent.items()):
                return
            draft = folder.with_name(f".{folder.name}.{os.getpid()}")
            draft.mkdir(parents=True, exist_ok=True)
            for file in sent:
                (draft / file.name).write_bytes(self._content(db, file))
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another process of this machine was as quick
            draft.rename(folder)
        shutil.rmtree(draft, ignore_errors=True)

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
            lines = db.execute(sa.select(records).order_by(records.c.id)).all()
            made = sa.select(files.c.path, files.c.sha256).where(self._at(self._run.evals), files.c.part == 0)
            evals = db.execute(made).all()
            for path, _ in evals:
                file = self._run.root / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(self._content(db, file))
        for row in lines:
            if row.id not in self._brought:
                self._run.append(row.line)
                self._brought.add(row.id)
        with self._db.writes(alone=False) as db:
            for path, sha256 in evals:
                db.execute(files.delete().where(files.c.path == path, files.c.sha256 == sha256))
            db.execute(records.delete().where(records.c.id.in_([row.id for row in lines])))
        self._brought.clear()

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
        content = file.read_bytes()
        about = {"path": self._name(file), "sha256": hashlib.sha256(content).hexdigest()}
        for part, start in enumerate(range(0, len(content), PART)):
            yield {**about, "part": part, "content": content[start : start + PART]}

    def _content(self, db: sa.Connection, file: Path) -> bytes:
        parts = sa.select(files.c.content).where(files.c.path == self._name(file)).order_by(files.c.part)
        return b"".join(db.scalars(parts))


def _holds(file: Path, sha256: str) -> bool:
    return file.exists() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256
