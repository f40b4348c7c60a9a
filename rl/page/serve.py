"""Serves the page until it is told to stop."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import anyio.to_thread
import uvicorn

from rl.core.errors import UsageError
from rl.page.app import create_app
from rl.page.board import Board
from rl.page.folder import Folder
from rollout_server import connections
from rollout_server.access import OWN_NAMES, AccessError, api_key, check_exposed

THREADS = 4
"""Pages that are made at the same time: each may hold a few groups and an evaluation in memory."""
CONNECTIONS = 1024
"""At a time, of which a browser has up to six."""
STOP_S = 3
"""What answers get that are being made at the end."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # uvicorn would raise the signal again when it has stopped


def serve(root: Path, host: str, port: int) -> None:
    """Answers until SIGINT or SIGTERM.

    Raises:
        UsageError: there is no such folder, everybody could ask there, or the port is taken.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}", fix="name a run, or the folder that its runs are in")
    try:
        key = api_key()
        check_exposed(host, key)
    except AccessError as error:
        raise UsageError(str(error), fix=error.fix) from None
    board = Board(Folder(root))
    app = create_app(board, key=key, hosts=OWN_NAMES | {host.lower()} if key is None else None)
    with _listener(host, port) as listener:
        at = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/"
        print(f"{root} is shown at {at} (Ctrl-C ends it)", flush=True)
        Thread(target=board.warm, name="warm", daemon=True).start()
        connections.prepare(listener)
        config = connections.config(app, stop_s=STOP_S, most=CONNECTIONS)
        asyncio.run(_until_told(_Server(config), listener))


async def _until_told(server: uvicorn.Server, listener: socket.socket) -> None:
    def stop() -> None:
        server.should_exit = True

    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    await server.serve(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot listen on {host}:{port}: {reason}", fix="choose another --host or --port") from None
