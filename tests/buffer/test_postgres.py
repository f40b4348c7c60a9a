"""What befalls a ledger in PostgreSQL is waited for, or is a sentence that says what to do. The faults are real."""

from collections.abc import Callable
from contextlib import closing
from threading import Thread

import pytest
import sqlalchemy as sa

from rl.buffer import patience, postgres
from rl.buffer.database import open_ledger
from rl.buffer.ledger import Buffer
from rl.buffer.tables import State, groups
from rl.core.errors import LedgerError
from rl.core.types import Group
from tests.conftest import SHA256
from tests.postgres import Server

MakeGroup = Callable[..., Group]


def opened(url: str) -> Buffer:
    return Buffer(url, capacity=8, group_size=2)


def set_(server: Server, url: str, setting: str) -> None:
    """What its administrator has as a default of the database."""
    server.ask(f"ALTER DATABASE {sa.make_url(url).database} SET {setting}")


def test_a_database_that_is_away_is_waited_for(postgres_url: str, postgres: Server, make_group: MakeGroup) -> None:
    with closing(opened(postgres_url)) as buffer:
        buffer.proved("p", 0, SHA256)
        buffer.issue()
        postgres.stop()
        coming = Thread(target=postgres.start)
        coming.start()
        assert buffer.put(make_group(1)) == State.READY
        coming.join()
        postgres.crash()
        coming = Thread(target=postgres.start)
        coming.start()
        with closing(opened(postgres_url)) as other:
            assert other.counts()[State.READY] == 1
        coming.join()


def test_not_for_ever(postgres_url: str, postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "AWAY_S", 0.3)
    with closing(opened(postgres_url)) as buffer:
        postgres.stop()
        try:
            with pytest.raises(LedgerError, match=r"the ledger run in .* is away .* waited [0-9]+ s for it") as told:
                buffer.issue()
        finally:
            postgres.start()
        assert "--resume" in told.value.fix
        assert buffer.issue() == [1, 2, 3, 4]


@pytest.mark.timeout(60)
def test_who_leaves_does_not_wait_for_it(postgres_url: str, postgres: Server) -> None:
    with closing(opened(postgres_url)) as buffer:
        postgres.stop()
        issued = []
        with patience.in_passing():
            issued = buffer.issue()
        postgres.start()
        assert issued == []
        with patience.in_passing():
            issued = buffer.issue()
        assert issued == [1, 2, 3, 4]


def test_a_ledger_that_stays_locked_is_said(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, make_group: MakeGroup
) -> None:
    monkeypatch.setitem(postgres.SERVER, "lock_timeout", "50ms")
    with closing(opened(postgres_url)) as buffer, closing(open_ledger(postgres_url)) as other:
        buffer.proved("p", 0, SHA256)
        buffer.issue()
        with other.writes():
            with pytest.raises(LedgerError, match="another process keeps it locked"):
                buffer.lease(1, policy_version=0, max_staleness=0)
            assert buffer.put(make_group(1)) == State.READY, "which holds up nobody, and is held up by nobody"
        assert buffer.lease(1, policy_version=0, max_staleness=0)


def test_who_waited_for_the_lock_sees_what_was_done_meanwhile(postgres_url: str, postgres: Server) -> None:
    """Whatever isolation the database is set to."""
    set_(postgres, postgres_url, "default_transaction_isolation = 'repeatable read'")
    issued: list[int] = []
    with closing(opened(postgres_url)) as buffer, closing(open_ledger(postgres_url)) as other:
        waiting = Thread(target=lambda: issued.extend(buffer.issue()))
        with other.writes() as db:
            waiting.start()
            while not postgres.ask("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'advisory'"):
                assert waiting.is_alive()
            db.execute(groups.insert().values(id=1, state=State.ISSUED))
        waiting.join()
    assert issued == [2, 3, 4]


def test_who_is_frozen_with_the_lock_loses_it(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(postgres.SERVER, "idle_in_transaction_session_timeout", "100ms")
    with closing(opened(postgres_url)) as buffer, closing(open_ledger(postgres_url)) as other:
        with pytest.raises(LedgerError, match="idle-in-transaction"), other.writes():
            assert buffer.issue() == [1, 2, 3, 4]
        assert buffer.unfinished() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("deed", "what"),
    [
        ("ALTER TABLE run.groups DROP COLUMN mean_reward", "another version of Tally"),
        ("ALTER SCHEMA run RENAME TO gone", "its schema is not there"),
        ("ALTER DATABASE {database} SET default_transaction_read_only = on", "may not be written"),
    ],
)
def test_what_is_wrong_with_it_is_said(postgres_url: str, postgres: Server, deed: str, what: str) -> None:
    opened(postgres_url).close()
    database = str(sa.make_url(postgres_url).database)
    postgres.ask(deed.format(database=database), database)
    with pytest.raises(LedgerError, match=what) as told, closing(opened(postgres_url)) as buffer:
        buffer.issue()
    assert told.value.fix


def test_what_is_committed_survives_a_crash_whatever_the_database_is_set_to(
    postgres_url: str, postgres: Server
) -> None:
    set_(postgres, postgres_url, "synchronous_commit = off")
    with closing(opened(postgres_url)) as buffer:
        issued = buffer.issue()
        postgres.crash()
        postgres.start()
        assert buffer.unfinished() == issued
