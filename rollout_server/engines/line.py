"""Between the server and the process of its engine: what they say to each other are pickles, each after its size.

The server asks by tuples of a method, the request's number and arguments; the process answers by lists of `Reply`.
"""

import ctypes
import os
import pickle
import select
import signal
import socket
import sys
from contextlib import suppress
from time import monotonic
from typing import Any

SIZE_BYTES = 8
LIFE = 0
"""The number of the engine's own life, where requests have others: it is loaded, and it has ended."""
EARLY = 1
"""The number under which the process says how many completions have ended whose requests go on."""
FIRST_REQUEST = 2
_BEAT_S = 1.0
"""How long the process steps at the most without a word."""
_PR_SET_PDEATHSIG = 1

Reply = tuple[int, bool, Any]
"""Number of the request, whether this is the last to it, and what it is; an exception is to be raised."""


def packed(message: Any) -> bytes:
    pickled = pickle.dumps(message)
    return len(pickled).to_bytes(SIZE_BYTES) + pickled


class Gone(Exception):
    """The server has."""


class Line:
    """The server's messages, and ours: blocks until they are here, or gone. Raises Gone."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._spoke = monotonic()

    def waits(self) -> bool:
        """Whether a message has come, or the other side has gone."""
        return bool(self._poll.poll(0))

    def receive(self) -> Any:
        size = int.from_bytes(self._exactly(SIZE_BYTES))
        return pickle.loads(self._exactly(size))

    def send(self, replies: list[Reply]) -> None:
        try:
            self._connection.sendall(packed(replies))
        except OSError as error:
            raise Gone from error
        self._spoke = monotonic()

    def beat(self) -> None:
        """To be called in each step."""
        if monotonic() - self._spoke > _BEAT_S:
            self.send([])

    def end(self) -> None:
        """Says no more, and waits until the server has read all: what it still writes would break the line before."""
        with suppress(OSError):  # it has gone before
            self._connection.shutdown(socket.SHUT_WR)
            while self._connection.recv(2**16):
                pass

    def _exactly(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            try:
                piece = self._connection.recv(size - len(received))
            except OSError as error:
                raise Gone from error
            if not piece:
                raise Gone
            received += piece
        return bytes(received)


def be_a_child(parent: int) -> None:
    """Between fork and exec. Signals to the whole group are the server's, which tells when to stop; it kills this
    process by its own end (on Linux: elsewhere this ends when it finds nobody to speak to).

    Args:
        parent: its process id.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it had ended before
            os.kill(os.getpid(), signal.SIGKILL)
