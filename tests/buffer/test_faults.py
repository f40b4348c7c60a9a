"""What befalls the database is a sentence that says what to do, and nothing is half written. The faults are real."""

import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from rl.buffer import sqlite
from rl.buffer.ledger import Buffer
from rl.buffer.tables import State
from rl.core.errors import LedgerError
from rl.core.types import Group
from tests.conftest import SHA256

MakeGroup = Callable[..., Group]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "buffer.db"


def opened(path: Path) -> Buffer:
    return Buffer(f"sqlite:///{path}", capacity=200, group_size=2)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch, path: Path) -> Buffer:
    """A ledger whose file may not grow: for SQLite the same as a disk that has no room."""
    with closing(opened(path)) as buffer:
        buffer.proved("p", 0, SHA256)
        buffer.issue()

    def limit(connection: sqlite3.Connection, _: object) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    configure = sqlite._configure

    def configured(engine: sa.Engine) -> None:
        configure(engine)
        sa.event.listen(engine, "connect", limit)

    monkeypatch.setattr("rl.buffer.sqlite._configure", configured)
    return opened(path)


def test_a_full_disk_is_said_and_nothing_is_half_written(full: Buffer, path: Path, make_group: MakeGroup) -> None:
    groups = [make_group(i, "rw" * 20) for i in range(1, 101)]
    with pytest.raises(LedgerError, match="the disk is full") as caught:
        deque(map(full.put, groups), maxlen=0)
    assert str(path) in str(caught.value)
    assert "--resume" in caught.value.fix
    full.close()
    with closing(opened(path)) as buffer:
        (first, *_) = unfinished = buffer.unfinished()
        assert first > 1, "some were stored before"
        assert unfinished == list(range(first, 101))
        assert [group.id for group in buffer.load(range(1, first))] == list(range(1, first))
        assert buffer.put(groups[first - 1]) == State.READY, "there is room again"


def test_a_ledger_that_stays_locked_is_said(path: Path, monkeypatch: pytest.MonkeyPatch, make_group: MakeGroup) -> None:
    monkeypatch.setattr(sqlite, "LOCKED_S", 0.05)
    with closing(opened(path)) as buffer, closing(sqlite3.connect(path, isolation_level=None)) as other:
        buffer.proved("p", 0, SHA256)
        buffer.issue()
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="another process keeps it locked"):
            buffer.put(make_group(1))
        assert buffer.counts()[State.ISSUED] == 100, "it can still be read"
        other.execute("COMMIT")
        assert buffer.put(make_group(1)) == State.READY


def test_a_ledger_that_another_process_is_making_is_waited_for(path: Path) -> None:
    """Two ranks open it at the same moment."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other, ThreadPoolExecutor() as pool:
        other.execute("BEGIN IMMEDIATE")
        opening = pool.submit(opened, path)
        with pytest.raises(TimeoutError):
            opening.result(timeout=0.5)
        other.execute("COMMIT")
        opening.result().close()


@pytest.mark.parametrize(("content", "what"), [(b"something else", "no database"), (None, "cannot be opened")])
def test_what_is_no_ledger_is_said(path: Path, content: bytes | None, what: str) -> None:
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content * 999)
    with pytest.raises(LedgerError, match=what):
        opened(path)


def test_a_damaged_ledger_is_said(path: Path, make_group: MakeGroup) -> None:
    with closing(opened(path)) as buffer:
        buffer.proved("p", 0, SHA256)
        for i in buffer.issue():
            buffer.put(make_group(i, "rw" * 50))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LedgerError, match="it is damaged"), closing(opened(path)) as buffer:
        buffer.load(range(1, 101))


def test_a_flipped_bit_in_a_group_is_said(path: Path, make_group: MakeGroup) -> None:
    with closing(opened(path)) as buffer:
        buffer.proved("p", 0, SHA256)
        for i in buffer.issue():
            buffer.put(make_group(i, "rw"))
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"completion 1") + 3] ^= 4
    path.write_bytes(whole)
    with pytest.raises(LedgerError, match="checksum"), closing(opened(path)) as buffer:
        buffer.load(range(1, 101))


def test_a_ledger_of_another_version_is_said(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE groups (id INTEGER PRIMARY KEY, state TEXT, step INTEGER, payload BLOB)")
    with pytest.raises(LedgerError, match="another version of Tally"):
        opened(path)
