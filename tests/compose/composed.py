"""`compose.yaml` under fire: real containers that are stopped, killed and started again, on a real Docker engine."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
SERVICES = ("server", "learner", "collector", "evaluator", "page")
LIMIT_S = 300.0
BUILD_LIMIT_S = 1800.0
FLAGS = "--eval-every 10 --eval-problems 16 --eval-samples 2 --save-every 5 --keep 3 --wandb off"
KILL = (
    "import os, pathlib\n"
    "for stat in pathlib.Path('/proc').glob('[0-9]*/stat'):\n"
    "    pid, parent = int(stat.parent.name), int(stat.read_text().rpartition(')')[2].split()[1])\n"
    "    if parent == 1: os.kill(pid, 9)\n"
)
"""Of a container's own process, which its init has started: `docker kill` counts as an order to stay down."""


def engine_runs() -> bool:
    return (
        shutil.which("docker") is not None
        and _docker("compose", "version", check=False).returncode == 0
        and (_docker("info", check=False).returncode == 0)
    )


class Composed:
    """The project's services under a name of their own; leaving the context removes them, with their volumes."""

    def __init__(self) -> None:
        self._project = f"tally-test-{uuid.uuid4().hex[:8]}"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._env = {"PAGE_PORT": str(self._port), "STEPS": "100000", "FLAGS": FLAGS, "RUN": "main"}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._compose("down", "--volumes", "--timeout", "5", check=False)

    def build(self) -> None:
        with _wheels() as address:
            env = {"PIP_FIND_LINKS": address, "BUILD_NETWORK": "host"} if address else {}
            self._compose("build", "--quiet", env=env, timeout=BUILD_LIMIT_S)

    def up(self, **settings: str) -> None:
        self._env |= settings
        self._compose("up", "--detach", "--no-build")

    def stop(self) -> dict[str, int]:
        """As `docker compose down` does first; the exit code of each service: 137 is one that did not stop in time."""
        self._compose("stop")
        return {service: self._inspect(service)["State"]["ExitCode"] for service in SERVICES}

    def down(self) -> None:
        self._compose("down")

    def kill(self, service: str) -> None:
        """Kills a container's process, and waits until another one runs in it and is well."""
        before = self._inspect(service)["RestartCount"]
        self._compose("exec", "-T", service, "python", "-c", KILL, check=False)  # it may end before it is answered
        self.wait(lambda: self._inspect(service)["RestartCount"] > before, f"a restart of {service}")
        self.wait(lambda: self._health(service) == "healthy", f"a healthy {service}")

    def steps(self) -> int:
        """The newest step that was logged."""
        records = self._compose(
            "exec", "-T", "page", "cat", "/runs/main/metrics.jsonl", check=False
        ).stdout.splitlines()
        return max((r["step"] for r in map(json.loads, records) if r["kind"] == "step"), default=0)

    def wait_for_steps(self, more: int) -> int:
        end = self.steps() + more
        self.wait(lambda: self.steps() >= end, f"step {end}")
        return end

    def wait_for_end(self) -> int:
        """The learner's exit code."""
        self.wait(lambda: self._inspect("learner")["State"]["Status"] == "exited", "the end of the run")
        return int(self._inspect("learner")["State"]["ExitCode"])

    def logs(self, service: str) -> str:
        """What it has said since its container was made."""
        done = self._compose("logs", "--no-log-prefix", service)
        return done.stdout + done.stderr

    def audit(self) -> str:
        """Its last line.

        Raises:
            CalledProcessError: the books do not balance.
        """
        said = self._compose("exec", "-T", "page", "python", "-m", "rl.audit", "/runs/main").stdout
        return said.splitlines()[-1]

    def page(self, path: str = "/", *, key: bool = True) -> tuple[int, str]:
        """The status of the page's answer, and the answer."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}{path}")
        if key:
            secret = self._compose("exec", "-T", "page", "cat", "/key/api-key").stdout.strip()
            request.add_header("Authorization", f"Bearer {secret}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + LIMIT_S
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(
                    f"waited {LIMIT_S:.0f} s for {what}\n{self._compose('logs', '--tail', '20').stdout}"
                )
            time.sleep(0.5)

    def _health(self, service: str) -> str:
        return str(self._inspect(service)["State"].get("Health", {}).get("Status"))

    def _inspect(self, service: str) -> Any:
        return json.loads(_docker("inspect", f"{self._project}-{service}-1").stdout)[0]

    def _compose(
        self, *words: str, env: dict[str, str] | None = None, check: bool = True, timeout: float = LIMIT_S
    ) -> "subprocess.CompletedProcess[str]":
        whole = ["compose", "--project-name", self._project, *words]
        return _docker(*whole, env={**self._env, **(env or {})}, check=check, timeout=timeout)


def _docker(
    *words: str, env: dict[str, str] | None = None, check: bool = True, timeout: float = LIMIT_S
) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        ["docker", *words],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done


@contextmanager
def _wheels() -> Iterator[str | None]:
    """An address of the folder where pip is told to look for wheels, for a build, if there is such a folder."""
    folder = next((d for d in os.environ.get("PIP_FIND_LINKS", "").split() if Path(d).is_dir()), None)
    if folder is None:
        yield None
        return

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
