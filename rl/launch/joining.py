"""How a machine finds the run that it takes part in, and how it is found."""

import fcntl
import socket
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import sqlalchemy as sa

from rl.buffer.database import shown
from rl.buffer.postgres import schema_of
from rl.buffer.roles import Roles
from rl.collect.client import parsed
from rl.core.dburl import check_database_url
from rl.core.errors import UsageError
from rl.core.roles import Role
from rl.core.rundir import RunDir
from rl.launch.begin import check_same_problems
from rl.launch.elsewhere import place_of
from rl.launch.server import listen
from rollout_server.access import AccessError, api_key, check_exposed

BEGIN_LIMIT_S = 1800.0
"""For the supervisor to begin: it may be started after those that join it, and load its problems from a hub."""
AGAIN_LIMIT_S = 60.0
"""For a run that has ended to be begun again."""
LOOK_S = 0.5
URL_FIX = "write http://HOST:PORT, where the other machines reach this server"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Here:
    """This machine, as the others see it."""

    address: str
    """Where they reach it: a host name or an IP address."""
    listener: socket.socket | None = None
    """Of its rollout server."""
    url: str | None = None
    """Of its rollout server."""


@contextmanager
def found(where: str, role: Role, folder: Path | None) -> Iterator[tuple[RunDir, Roles]]:
    """The run, once its supervisor has begun it, as this machine has it: nobody else here has this role in it.

    Args:
        where: the URL of its ledger; or its directory, if this machine shares that with the supervisor's.
        folder: for what this machine keeps of it; None for one that is named after it.

    Raises:
        UsageError: that is no such URL, it was not begun in time, the role is taken here, or this machine has other
            problems.
    """
    shared = None
    if "://" not in where:
        shared = RunDir(Path(where))
        _wait(shared.problems_file.exists, f"{where} is no run that has begun")
        where = shared.buffer_url
    else:
        _check_ledger(where)
    with closing(Roles(where)) as board:
        _wait(lambda: bool(board.description()), f"no supervisor has begun the run in {shown(where)}", board.ended)
        run = shared or _copy(board.description(), role, folder)
        check_same_problems(run, run.config())
        with _only_one(run, role):
            yield run, board


def _check_ledger(url: str) -> None:
    try:
        check_database_url(url)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if not schema_of(url):
        fix = "take the URL that rl.train says: it ends with the run's schema, ?options=-csearch_path%3DRUN"
        raise UsageError(f"{url} names no run", fix=fix)


def _copy(described: dict[str, str], role: Role, folder: Path | None) -> RunDir:
    """A directory of this machine with what whoever works for a run has to know of it."""
    run = RunDir(folder or Path("runs") / f"{described['name']}-{role}")
    for path in (run.logs, run.checkpoints, run.evals):
        path.mkdir(parents=True, exist_ok=True)
    run.copy_mark.touch()
    bring_up_to_date(run, described)
    return run


def bring_up_to_date(run: RunDir, described: dict[str, str]) -> None:
    """Where this machine has a copy, that is of the run as it is described now: a resume may have made it longer."""
    if run.copy_mark.exists():
        run.config_file.write_text(described["config"])
        run.problems_file.write_text(described["problems"])


@contextmanager
def _only_one(run: RunDir, role: Role) -> Iterator[None]:
    """Holds the role in this place: whoever had it has gone."""
    with (run.root / f"{role}@{socket.gethostname()}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            fix = "end it, or take another --run-dir"
            raise UsageError(f"a {role} of this run is there already: {place_of(run)}", fix=fix) from None
        yield


def _wait(condition: Callable[[], bool], missing: str, ended: Callable[[], bool] = lambda: False) -> None:
    """Returns once the condition is met. Where the run has ended, and is not begun again, this process does, too.

    Raises:
        UsageError: it was not met in time.
    """
    begin = time.monotonic()
    if not condition():
        print(f"{missing}; waiting for it", file=sys.stderr, flush=True)
    while not condition():
        if ended() and time.monotonic() - begin > AGAIN_LIMIT_S:
            print("the run has ended")
            raise SystemExit(0)
        if time.monotonic() - begin > BEGIN_LIMIT_S:
            raise UsageError(f"{missing}, in {BEGIN_LIMIT_S:.0f} s", fix="start it: python -m rl.train --elsewhere …")
        time.sleep(LOOK_S)


@contextmanager
def reached(args: Namespace, run: RunDir) -> Iterator[Here]:
    """Opens what the others need of this machine.

    Raises:
        UsageError: a server's port is taken, or open to everybody, or its URL is none.
    """
    address = args.address or _address(run)
    if args.role != "server":
        yield Here(address=address)
        return
    host = args.host or address
    try:
        check_exposed(host, api_key())
    except AccessError as error:
        raise UsageError(str(error), fix=error.fix) from None
    if args.url:
        _check_url(args.url)
    with listen(args.port, host) as listener:
        port = listener.getsockname()[1]
        yield Here(address=address, listener=listener, url=args.url or f"http://{_bracketed(address)}:{port}")


def _check_url(url: str) -> None:
    try:
        address = parsed(url)
    except httpx.InvalidURL as error:
        raise UsageError(f"--url {url}: {error}", fix=URL_FIX) from None
    if address.scheme not in ("http", "https") or not address.host:
        raise UsageError(f"--url {url} is no address of a server", fix=URL_FIX)


def _address(run: RunDir) -> str:
    """This machine's, on the way to the ledger's."""
    host = sa.make_url(run.buffer_url).host if run.spans_machines else None
    if host is None:
        return LOOPBACK
    family, _, _, _, target = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:  # nothing is sent
        probe.connect(target)
        return str(probe.getsockname()[0])


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
