"""A real PostgreSQL server for tests: its data in a temporary folder, reached on a free port of loopback."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rl.buffer.schema import new_schema
from rl.core.rundir import RunDir

USER = "tally"
GUARDED, PASSWORD = "guarded", f"{secrets.token_hex(8)}/@:"
"""Another user, who needs a password and may make nothing."""
LIMIT_S = 60.0
BINARIES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
"""Of the newest version that Debian has installed; None where there is none."""


class Server:
    """One that a test may stop, crash and start again; its databases stay.

    Args:
        folder: that is its alone.
        address: where it is reached.
        enter: what precedes a command on the machine that it runs on.
    """

    def __init__(self, folder: Path, *, address: str = "127.0.0.1", enter: Sequence[str] = ()) -> None:
        self._folder, self.address = folder, address
        self._data, self._log = folder / "data", folder / "log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        if os.getuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        trusting = ["--auth=trust", f"--username={USER}", "--encoding=UTF8", "--locale=C", "--no-sync"]
        subprocess.run([*_binary("initdb"), f"--pgdata={self._data}", *trusting], check=True, capture_output=True)
        access = self._data / "pg_hba.conf"
        guard, all_others = f"host all {GUARDED} 127.0.0.1/32 scram-sha-256\n", "host all all samenet trust\n"
        access.write_text(f"{guard}{access.read_text()}{all_others}")
        settings = {"port": self.port, "listen_addresses": address, "unix_socket_directories": folder}
        settings["fsync"] = "off"  # what is killed here are processes, not the machine
        flags = [f"--{name}={value}" for name, value in settings.items()]
        self._command = [*enter, *_binary("postgres"), "-D", str(self._data), *flags]
        self.start()
        self.ask(f"CREATE ROLE {GUARDED} LOGIN PASSWORD '{PASSWORD}'")

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + LIMIT_S
        while True:
            with suppress(psycopg.OperationalError):
                self.ask("SELECT 1")
                return
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.02)

    def crash(self) -> None:
        """Ends it in the middle of whatever it does ("immediate" mode)."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """Ends it as its administrator would, whoever is connected ("fast" mode)."""
        self._end(signal.SIGINT)

    @property
    def pid(self) -> int:
        """Of the process that all others of it are children of."""
        return self._process.pid

    def wait(self) -> None:
        """Returns once it has ended, by whomever."""
        self._process.wait(LIMIT_S)

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@{self.address}:{self.port}/{database}"

    def ask(self, query: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """What a statement of its administrator answers."""
        here = {"host": str(self._folder), "port": self.port, "user": USER, "dbname": database}
        with psycopg.connect(**here, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def _end(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
        self._process.wait(LIMIT_S)


def _binary(name: str) -> list[str]:
    """The command of one of its programs, which refuse to run as root."""
    assert BINARIES is not None
    other = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    return [*other, str(BINARIES / name)]


@contextmanager
def server() -> Iterator[Server]:
    """One with a folder of its own, which goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
    started = Server(folder)
    try:
        yield started
    finally:
        started.crash()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    if BINARIES is None:
        pytest.skip("there is no PostgreSQL: apt-get install postgresql")
    with server() as started:
        yield started


@pytest.fixture
def database_url(postgres: Server) -> Iterator[str]:
    """Of an empty database."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    postgres.ask(f"CREATE DATABASE {name}")
    yield postgres.url(name)
    postgres.ask(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(database_url: str, tmp_path: Path) -> str:
    """Of a ledger in a schema of its own; its tables are still to be made."""
    with new_schema(database_url, RunDir(tmp_path / "run"), overwrite=False) as url:
        pass
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a ledger whose tables are still to be made: once in a file, once in PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/buffer.db"
    return str(request.getfixturevalue("postgres_url"))
