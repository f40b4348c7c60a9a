"""What a process says of itself over HTTP, where it is asked to: /metrics for Prometheus, /health and /ready.

A thread answers, so that a loop which is stuck is told by the answer. Where nobody asks there is no thread.
"""

import asyncio
import logging
import math
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, NoReturn

from rl.core.errors import UsageError
from rl.core.metrics import PROCESS
from rl.core.pulse import BEAT_S, SILENCE_LIMIT_S, START_LIMIT_S
from rl.core.rundir import RunDir

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric
    from starlette.types import ASGIApp

PLACES = {"supervisor": 0, "collector": 1, "evaluator": 2, "learner": 10}
"""Of each process of a run, counted from the port of its supervisor; the ranks of the learner follow one another."""
CONNECTIONS = 256
"""At a time, to one process."""
AGAIN_S = 1.0
"""Between two looks whether a port is free again."""
logger = logging.getLogger(__name__)


class Vitals:
    """Whether a process is well, and ready for its work. Its own loop writes, the thread that answers reads."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._turned: float | None = None
        self.ready: Callable[[], bool] = lambda: False
        """Whether it can do its work."""

    def turn(self) -> None:
        """To be called whenever the process's loop turns."""
        self._turned = time.monotonic()

    async def turning(self) -> NoReturn:
        """Turns with the event loop; ends by being cancelled."""
        while True:
            self.turn()
            await asyncio.sleep(BEAT_S)

    @property
    def well(self) -> bool:
        """Whether the loop turns, or the process still starts."""
        now = time.monotonic()
        if self._turned is None:
            return now - self._began <= START_LIMIT_S
        return now - self._turned <= SILENCE_LIMIT_S

    def refresh(self) -> None:
        """Called by the thread that answers, before it reads the metrics: for what costs something to know."""


@dataclass(frozen=True)
class Ports:
    """Where the processes of a run answer, each on a port of its own.

    Args:
        first: the supervisor's; `PLACES` says how the others follow. None where nobody asks.
    """

    host: str
    first: int | None

    def flags(self, role: str) -> list[str]:
        """For the process of a role, as `cli.add_metrics_flags` takes them."""
        if self.first is None:
            return []
        return [f"--metrics-host={self.host}", f"--metrics-port={self.first + PLACES[role]}"]

    def check(self, learners: int) -> None:
        """Raises:
        UsageError: one of them is taken, or everybody could ask there.
        """
        if self.first is None:
            return
        if self.first < 1:
            raise UsageError(f"--metrics-port {self.first} is no port to be found at", fix="take one, like 9400")
        _key_for(self.host)
        ranks = (PLACES["learner"] + rank for rank in range(learners))
        for place in (*(place for role, place in PLACES.items() if role != "learner"), *ranks):
            try:
                _listener(self.host, self.first + place).close()
            except (OSError, OverflowError) as error:
                message = f"cannot listen on {self.host}:{self.first + place}: {_reason(error)}"
                raise UsageError(message, fix="take another --metrics-port") from None


NO_PORTS = Ports("", None)


def serve(
    run: RunDir,
    role: str,
    vitals: Vitals,
    registries: Sequence["CollectorRegistry"],
    *,
    host: str,
    port: int | None,
) -> None:
    """Answers from now on, in a thread, until the process ends.

    Where the port is taken, the thread waits for it: the process whose place this one takes may not be gone yet.

    Args:
        role: what the process does, like `collector`, or `learner-0` of a rank.
        registries: of `rl.core.metrics`.
        port: None starts nothing.

    Raises:
        UsageError: everybody could ask there.
    """
    if port is None:
        return
    labels = {"run": run.root.resolve().name, "role": role}
    app = _app(vitals, _Labelled([PROCESS, *registries], labels), _key_for(host))
    Thread(target=_answer, args=(app, host, port), name="metrics", daemon=True).start()


class _Labelled:
    """The metrics of several registries, with the same labels on all of them; what is no number is left out."""

    def __init__(self, registries: Sequence["CollectorRegistry"], labels: Mapping[str, str]) -> None:
        self._registries, self._labels = registries, labels

    def collect(self) -> Iterator["Metric"]:
        for registry in self._registries:
            for family in registry.collect():
                family.samples = [
                    sample._replace(labels={**sample.labels, **self._labels})
                    for sample in family.samples
                    if not math.isnan(sample.value)
                ]
                yield family


def _app(vitals: Vitals, metrics: _Labelled, key: str | None) -> "ASGIApp":
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    from rollout_server.access import Gate

    def answer(good: bool, words: Sequence[str]) -> Response:
        return PlainTextResponse(f"{words[0] if good else words[1]}\n", status_code=200 if good else 503)

    async def health(_: Request) -> Response:
        return answer(vitals.well, ("well", "stuck"))

    async def ready(_: Request) -> Response:
        return answer(vitals.well and vitals.ready(), ("ready", "not ready"))

    def scrape(_: Request) -> Response:  # in a thread of its own: a slow ledger does not keep /health waiting
        vitals.refresh()
        return Response(generate_latest(metrics), media_type=CONTENT_TYPE_LATEST)

    return Gate(
        Starlette(routes=[Route("/health", health), Route("/ready", ready), Route("/metrics", scrape)]), key=key
    )


def _answer(app: "ASGIApp", host: str, port: int) -> None:
    import uvicorn

    from rollout_server import connections

    waits = False
    while True:
        try:
            listener = _listener(host, port)
            break
        except OSError as error:
            if not waits:
                logger.warning("waits for %s:%d to answer on: %s", host, port, _reason(error))
            waits = True
            time.sleep(AGAIN_S)
    connections.prepare(listener)
    uvicorn.Server(connections.config(app, stop_s=0, most=CONNECTIONS)).run(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def _reason(error: OSError | OverflowError) -> str:
    """Without what Python adds in brackets."""
    return str(getattr(error, "strerror", None) or error).partition(" (")[0]


def _key_for(host: str) -> str | None:
    """What whoever asks there has to know; None where nobody has to know anything.

    Raises:
        UsageError: everybody could ask there, or the key cannot be read.
    """
    from rollout_server.access import AccessError, api_key, check_exposed

    try:
        key = api_key()
        check_exposed(host, key)
    except AccessError as error:
        raise UsageError(f"--metrics-host: {error}", fix=error.fix) from None
    return key
