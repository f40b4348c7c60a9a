"""Many processes at one ledger: capacity holds at every moment, no group is lost or taken twice, whatever the database
and the way to it suffer meanwhile."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from pathlib import Path
from signal import SIGKILL

import pytest

from rl.buffer.audit import violations
from rl.buffer.history import History
from rl.buffer.tables import OCCUPYING, State
from rl.core.errors import UsageError
from tests.buffer.crowd import CONFIG, LOOK_S, crowd, open_buffer
from tests.commands import ROOT
from tests.machines.network import POSSIBLE, Network
from tests.postgres import BINARIES, USER, Server

STEPS = 40
UNTIL_STOPPED = 10**6  # steps
A_STEP = CONFIG.batch // CONFIG.group_size
CUT_S = 20.0


def looks(url: str, done: Callable[[], bool]) -> Iterator[int]:
    """Groups trained so far, again and again until it is done; the buffer never holds more than it may."""
    while not done():
        with suppress(UsageError), closing(History(url)) as history:  # the database may be away
            counts = history.counts()
            assert sum(counts[state] for state in OCCUPYING) <= CONFIG.buffer // CONFIG.group_size
            yield counts[State.TRAINED]
        time.sleep(LOOK_S)


def ended(processes: Sequence[Future[int]]) -> Callable[[], bool]:
    return lambda: all(process.done() for process in processes)


def check_books(url: str, trained: int, *put: int) -> None:
    """Args: trained: groups, as the learner has counted; put: as each collector has."""
    with closing(History(url)) as history:
        books, counts = history.books(), history.counts()
        assert not any((broken := violations(history, books, CONFIG)).values()), broken
    assert trained == counts[State.TRAINED] >= STEPS * A_STEP
    assert counts[State.ISSUED] == 0, "what was issued, somebody knew of"
    assert sum(put) == sum(counts.values())


def test_many_processes_share_a_ledger(ledger_url: str) -> None:
    with crowd(ledger_url, STEPS) as processes:
        for _ in looks(ledger_url, ended(processes)):
            pass
    check_books(ledger_url, *(process.result() for process in processes))


def restart(server: Server) -> None:
    server.stop()
    server.start()


def crash(server: Server) -> None:
    server.crash()
    server.start()


def kill_a_backend(server: Server) -> None:
    """One that is in a transaction, if there is one; the server ends all others and recovers."""
    found = server.ask("SELECT pid FROM pg_stat_activity WHERE application_name = 'run' ORDER BY state = 'idle'")
    os.kill(found[0][0], SIGKILL)


def end_backends(server: Server) -> None:
    """As an administrator would."""
    server.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'run'")


def test_a_database_that_comes_and_goes_loses_nothing(postgres_url: str, postgres: Server) -> None:
    faults: list[Callable[[Server], None]] = [end_backends, crash, kill_a_backend, restart, crash, end_backends]
    apart = due = STEPS * A_STEP // len(faults)
    with crowd(postgres_url, UNTIL_STOPPED) as processes:
        for trained in looks(postgres_url, ended(processes)):
            if trained < due:
                continue
            if faults:
                faults.pop(0)(postgres)
                due = trained + apart
            else:
                with closing(open_buffer(postgres_url)) as buffer:
                    buffer.ask_stop()
    check_books(postgres_url, *(process.result() for process in processes))


@pytest.mark.skipif(not POSSIBLE, reason="machines are made by root, with iproute2 and util-linux")
@pytest.mark.skipif(BINARIES is None, reason="there is no PostgreSQL: apt-get install postgresql")
def test_a_link_that_is_cut_for_a_while_loses_nothing(tmp_path: Path) -> None:
    """In the middle of whatever the processes do, on another machine than the database."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))  # where the user postgres may go
    with Network(tmp_path) as network:
        one, two = network.add("one"), network.add("two")
        server = Server(folder, address=one.address, enter=one.enter)
        server.ask("CREATE SCHEMA run")
        here = f"postgresql://{USER}@/postgres?host={folder}&port={server.port}&options=-csearch_path%3Drun"
        there = f"{server.url('postgres')}?options=-csearch_path%3Drun"
        process = two.python("tests.buffer.crowd", there, str(STEPS), log="log", env={"PYTHONPATH": str(ROOT)})
        cut = False
        for trained in looks(here, lambda: process.poll() is not None):
            if trained and not cut:
                with network.cut(two):
                    time.sleep(CUT_S)
                cut = True
        said = (two.folder / "log").read_text().splitlines()
        assert cut
        assert process.returncode == 0, said
        check_books(here, *map(int, said[-1].split()))
    server.wait()
    shutil.rmtree(folder)
