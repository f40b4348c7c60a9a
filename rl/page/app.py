"""The page's application: its paths, and what is answered where something fails: a sentence, and never a trace."""

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from rl.core.errors import TallyError
from rl.page import telemetry
from rl.page.board import Board
from rl.page.folder import NotFoundError
from rl.page.guard import Guard
from rl.page.render import html
from rl.page.views import Views
from rollout_server.access import Gate, Named


class _RunName(Convertor[str]):
    """A path with whatever characters a file system takes, line breaks too."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("run", _RunName())


def create_app(board: Board, *, key: str | None, hosts: Collection[str] | None) -> ASGIApp:
    """
    Args:
        key: what whoever asks has to know; None for nothing.
        hosts: names that the page may be asked for by; None for any.
    """
    views = Views(board)
    pages: dict[str, Callable[[Request], Response | Awaitable[Response]]] = {
        "/": views.runs,
        "/live": views.live_runs,
        "/run/{name:run}": views.run,
        "/live/{name:run}": views.live,
        "/completions/{name:run}": views.completions,
        "/config/{name:run}": views.config,
        "/audit/{name:run}": views.audit,
        "/compare": views.compare,
        "/compared": views.compared,
        "/health": _health,
        "/ready": partial(_ready, board),
        "/metrics": _metrics,
    }
    static = StaticFiles(directory=Path(__file__).parent / "static")
    app = Starlette(
        routes=[*(Route(path, view, methods=["GET"]) for path, view in pages.items()), Mount("/static", static)],
        exception_handlers={TallyError: _said, HTTPException: _refused, Exception: _defect},
    )
    return Guard(Named(Gate(app, key=key), hosts=hosts))  # around all of it: what a defect is answered, too


async def _health(request: Request) -> Response:
    """Of the loop that answers all: it waits for no thread."""
    return JSONResponse({"status": "ok"})


async def _ready(board: Board, request: Request) -> Response:
    there = board.folder.root.is_dir()
    return JSONResponse({"status": "ready" if there else "the folder is gone"}, status_code=200 if there else 503)


def _metrics(request: Request) -> Response:
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    return Response(generate_latest(telemetry.REGISTRY), media_type=CONTENT_TYPE_LATEST)


def _said(request: Request, error: Exception) -> Response:
    status = 404 if isinstance(error, NotFoundError) else 400
    return _sentence(status, str(error), error.fix if isinstance(error, TallyError) else "")


def _refused(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 400
    words = {404: "There is no such page.", 405: "This page is only to be read."}
    return _sentence(status, words.get(status, "It cannot be answered."))


def _defect(request: Request, error: Exception) -> Response:
    """Starlette raises it again, so that the server's log has the trace."""
    return _sentence(500, "This is a defect of the page; the log of its server says more.")


def _sentence(status: int, text: str, fix: str = "") -> Response:
    title = "Not found" if status == 404 else "Not shown"
    return html("said.html", status, title=title, text=text, fix=fix)
