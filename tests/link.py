"""A link to a database server that loses COMMITs: it breaks before one is there, or before its answer is back."""

import random
import select
import socket
from collections import Counter
from contextlib import suppress
from threading import Thread

import sqlalchemy as sa

LOST = ("question", "answer", *[None] * 10)
"""What of a COMMIT; most arrive and are answered."""


class Link:
    """Carries the connections of a process of this machine to a server of this machine.

    Args:
        url: of a ledger there.
        losing: chooses what is lost.
    """

    def __init__(self, url: str, losing: random.Random) -> None:
        server = sa.make_url(url)
        self._port, self._losing = server.port, losing
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = server.set(port=self._listener.getsockname()[1]).render_as_string()
        """Of the same ledger, over this link."""
        self.lost = Counter({"questions lost": 0, "answers lost": 0})

    def __enter__(self) -> "Link":
        Thread(target=self._accept).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # it is closed
            while True:
                client, _ = self._listener.accept()
                Thread(target=self._carry, args=[client]).start()

    def _carry(self, client: socket.socket) -> None:
        """Until either side ends, or a COMMIT is lost."""
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._port)) as server:
            while True:
                for source in select.select([client, server], [], [])[0]:
                    if not (data := source.recv(2**16)):
                        return
                    lost = self._choose(data) if source is client else None
                    if lost == "question":
                        return
                    (server if source is client else client).sendall(data)
                    if lost == "answer":
                        server.recv(2**16)
                        return

    def _choose(self, question: bytes) -> str | None:
        lost = self._losing.choice(LOST) if b"COMMIT" in question else None
        if lost is not None:
            self.lost[f"{lost}s lost"] += 1
        return lost
