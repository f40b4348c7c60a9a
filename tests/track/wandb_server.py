"""As much of W&B's server as its uploader needs; what it was sent is kept. It stands for W&B's cloud, not in for it."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BUCKET = {"id": "UnVuOjE=", "displayName": "a run", "config": "{}", "tags": [], "summaryMetrics": "{}"}
BUCKET |= {"historyTail": "[]", "eventsTail": "[]", "wandbConfig": "{}", "logLineCount": 0, "eventsLineCount": 0}
VIEWER = {"id": "VTox", "entity": "me", "username": "me", "email": "me@here", "flags": "{}", "teams": {"edges": []}}


class Cloud(ThreadingHTTPServer):
    def __init__(self, *, refuses: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.refuses = refuses
        self.rows: dict[int, dict[str, Any]] = {}
        """The run's history by place in its file, as the server has it."""
        self.files: set[str] = set()
        self.ended = 0
        self.views: dict[str, dict[str, Any]] = {}
        """Saved workspaces and reports, by their type."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Cloud

    def do_HEAD(self) -> None:
        self._answer({})

    def do_PUT(self) -> None:
        self._body()
        self.server.files.add(self.path.removeprefix("/upload/"))
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        if self.server.refuses and re.search(self.server.refuses, self.path):
            self._answer({"error": "no"}, status=403)
        elif self.path == "/graphql":
            self._answer(self._graphql(json.loads(body)))
        elif self.path.endswith("/file_stream"):
            self._take(json.loads(body))
            self._answer({})
        else:
            self._answer({})

    def _graphql(self, request: dict[str, Any]) -> dict[str, Any]:
        given = request.get("variables") or {}
        project = {"id": "p", "name": given.get("project"), "entity": {"id": "e", "name": "me"}}
        bucket = BUCKET | {"name": given.get("name"), "project": project, "historyLineCount": len(self.server.rows)}
        if "mutation UpsertBucket" in request["query"]:
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": not self.server.rows}}}
        if "query RunResumeStatus" in request["query"]:
            return {"data": {"model": project | {"bucket": bucket if self.server.rows else None}}}
        if "mutation CreateRunFiles" in request["query"]:
            files = [{"name": name, "uploadUrl": f"{self.server.url}/upload/{name}"} for name in given["files"]]
            return {"data": {"createRunFiles": {"runID": bucket["id"], "uploadHeaders": [], "files": files}}}
        if "viewer {" in request["query"]:
            return {"data": {"viewer": VIEWER}}
        if "mutation UpsertView2" in request["query"] or "mutation upsertView" in request["query"]:
            self.server.views[given["type"]] = json.loads(given["spec"])
            view = {"id": "dg==", "name": given["name"], "displayName": given["displayName"], "spec": given["spec"]}
            return {"data": {"upsertView": {"view": view | {"project": project}, "inserted": True}}}
        if "internalId" in request["query"]:
            return {"data": {"project": project | {"internalId": "cDox"}}}
        if "query GetProjects" in request["query"]:
            own = {"name": "tally", "entityName": "me", "createdAt": "2026-01-01", "isBenchmark": False, "user": None}
            last = {
                "pageInfo": {"endCursor": None, "hasNextPage": False, "hasPreviousPage": False, "startCursor": None}
            }
            return {"data": {"models": last | {"edges": [{"node": own | {"id": "p", "__typename": "Project"}}]}}}
        return {"data": None, "errors": [{"message": "unknown here"}]}

    def _take(self, sent: dict[str, Any]) -> None:
        for name, part in (sent.get("files") or {}).items():
            if name == "wandb-history.jsonl":
                self.server.rows |= {part["offset"] + i: json.loads(line) for i, line in enumerate(part["content"])}
        self.server.ended += bool(sent.get("complete"))

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        return gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body

    def _answer(self, answer: dict[str, Any], *, status: int = 200) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def cloud(*, refuses: str = "") -> Iterator[Cloud]:
    """
    Args:
        refuses: paths of the requests that it forbids, as a regular expression.
    """
    with Cloud(refuses=refuses) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
