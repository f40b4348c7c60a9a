"""A small server that speaks the part of the hub's protocol that is used."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Serves the repositories in `root`, all of whose branches are at one commit, and lists the files it sends."""

    root: Path
    sent: list[str]
    url: str

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.path.partition("?")[0].strip("/").split("/")
        words = [word for word in path if word not in ("api", "models", "datasets")]
        folder = self.root / "/".join(words[:2])
        try:
            if path[0] != "api":  # OWNER/NAME/resolve/REVISION/FILE
                data = (folder / words[4]).read_bytes()
                if body:
                    self.sent.append(words[4])
                return self._send(data, body)
            files = [{"rfilename": f.name, "size": f.stat().st_size} for f in sorted(folder.iterdir())]
            if words[2:3] == ["tree"]:
                (folder / "/".join(words[4:])).stat()
                tree = [{"type": "file", "path": f["rfilename"], "size": f["size"], "oid": "0" * 40} for f in files]
                return self._send(json.dumps(tree).encode(), body)
            info = {"id": "/".join(words[:2]), "sha": COMMIT, "siblings": files}
            if (folder / "config.json").exists():
                info["config"] = json.loads((folder / "config.json").read_text())
            return self._send(json.dumps(info).encode(), body)
        except (OSError, IndexError):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if folder.is_dir() else "RepoNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _send(self, data: bytes, body: bool) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{len(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve(root: Path) -> Iterator[type[Hub]]:
    """A hub of the repositories OWNER/NAME in `root`, models and data sets alike."""
    handler = type("OneHub", (Hub,), {"root": root, "sent": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield handler
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
