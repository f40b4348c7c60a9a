"""Many processes at one ledger: capacity holds at every moment, no group is lost or taken twice, whatever the database
suffers meanwhile."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, suppress
from signal import SIGKILL

from rl.buffer.audit import violations
from rl.buffer.history import History
from rl.buffer.tables import OCCUPYING, State
from rl.core.errors import UsageError
from tests.buffer.crowd import CONFIG, LOOK_S, crowd
from tests.postgres import Server

STEPS = 40


def looks(url: str, processes: list[Future[int]]) -> Iterator[int]:
    """Groups trained so far, again and again until all have ended; the buffer never holds more than it may."""
    while not all(process.done() for process in processes):
        with suppress(UsageError), closing(History(url)) as history:  # the database may be away
            counts = history.counts()
            assert sum(counts[state] for state in OCCUPYING) <= CONFIG.buffer // CONFIG.group_size
            yield counts[State.TRAINED]
        time.sleep(LOOK_S)
    for process in processes:
        process.result()


def check_books(url: str, processes: list[Future[int]]) -> None:
    with closing(History(url)) as history:
        books, counts = history.books(), history.counts()
        assert not any((broken := violations(history, books, CONFIG)).values()), broken
    trained, *put = (process.result() for process in processes)
    assert trained == counts[State.TRAINED] == STEPS * CONFIG.batch // CONFIG.group_size
    assert counts[State.ISSUED] == 0, "what was issued, somebody knew of"
    assert sum(put) == sum(counts.values())


def test_many_processes_share_a_ledger(ledger_url: str) -> None:
    with crowd(ledger_url, STEPS) as processes:
        for _ in looks(ledger_url, processes):
            pass
    check_books(ledger_url, processes)


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
    per_fault = STEPS * CONFIG.batch // CONFIG.group_size // (len(faults) + 1)
    left = list(faults)
    with crowd(postgres_url, STEPS) as processes:
        for trained in looks(postgres_url, processes):
            if left and trained >= per_fault * (1 + len(faults) - len(left)):
                left.pop(0)(postgres)
    assert not left
    check_books(postgres_url, processes)
