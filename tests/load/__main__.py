"""More guests than the server has room for, while a run trains on it: `python -m tests.load --clients 64 --seconds 60`.

A real server (vLLM, the starter model, with a key) and a real `rl.train --server-url` on it; after some steps alone the
guests come, who ask OpenAI's paths for completions and chats, streamed and whole, and come again when they are told to.
Printed are what they were answered, and what that cost the run and the server.
"""

import argparse
import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import httpx
import psutil

from rl.core.rundir import RunDir
from rl.problems.starter import STARTER_MODEL
from rollout_server.access import KEY

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, KEY: "a-key-for-the-load", "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
LIMIT_S = 300.0
"""For the server to load its model, for the run's first steps, and for an answer."""
LONGEST_WAIT_S = 2.0
"""What a guest waits before it asks again, whatever it is told: few are more patient."""
MIB = 2**20


@dataclass(kw_only=True)
class Load:
    """What guests did to a server, and to the run on it."""

    statuses: Counter[str] = field(default_factory=Counter)
    """Of the guests' answers, or the errors of their connections."""
    took_s: list[float] = field(default_factory=list)
    """From request to end of those that were accepted."""
    untold: int = 0
    """Refusals for load that did not say when to come again."""
    steps: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Of the run, alone and with the guests: how many in how many seconds."""
    rss: dict[str, int] = field(default_factory=dict)
    """Bytes of the server: before, during (the most) and after."""
    alive: bool = False
    audit: subprocess.CompletedProcess[str] | None = None

    def __str__(self) -> str:
        others = {status: count for status, count in self.statuses.items() if status not in ("200", "429")}
        p50, p99 = (quantiles(self.took_s, n=100)[i] for i in (49, 98)) if len(self.took_s) > 1 else (0, 0)
        lines = [
            f"guests: {self.statuses['200']} accepted, {self.statuses['429']} told to come later, {others or 0} other",
            f"accepted: p50 {p50:.2f} s, p99 {p99:.2f} s; 429 without Retry-After: {self.untold}",
            *(f"run {who}: {n} steps in {s:.0f} s, {n / s:.2f} a second" for who, (n, s) in self.steps.items()),
            f"server: RSS {', '.join(f'{when} {size / MIB:.0f} MiB' for when, size in self.rss.items())}",
            f"books: {self.audit.stdout.strip().splitlines()[-1] if self.audit else 'not audited'}",
        ]
        return "\n".join(lines)


def put_under_load(folder: Path, *, clients: int, seconds: float, guests: int, alone_s: float, seed: int) -> Load:
    """Args: clients: that ask at a time; guests: that the server takes; alone_s: of the run, before they come."""
    load, run = Load(), RunDir(folder / "run")
    with _server(folder, guests) as (server, url), _training(folder, run, url) as training:
        _wait(lambda: len(_steps(run)) >= 2, training, "two steps")
        load.steps["alone"] = _during(run, lambda: time.sleep(alone_s))
        load.rss["before"] = server.memory_info().rss
        load.steps["with guests"] = _during(run, lambda: asyncio.run(_ask(load, url, server, clients, seconds, seed)))
        load.rss["after"] = server.memory_info().rss
        load.alive = server.is_running() and httpx.get(f"{url}/ready", timeout=LIMIT_S).status_code == 200
        assert training.poll() is None, "the run has ended"
        made = len(_steps(run))
        _wait(lambda: len(_steps(run)) > made, training, "a step after the guests have gone")
        training.send_signal(signal.SIGINT)
        training.wait(LIMIT_S)
    audit = [sys.executable, "-m", "rl.audit", str(run.root)]
    load.audit = subprocess.run(audit, env=ENVIRONMENT, cwd="/", capture_output=True, text=True, check=False)
    return load


@contextmanager
def _server(folder: Path, guests: int) -> Iterator[tuple[psutil.Process, str]]:
    with socket.create_server(("127.0.0.1", 0)) as listener, (folder / "server.log").open("w") as log:
        fd = listener.fileno()
        command = [sys.executable, "-m", "rollout_server", "--fd", str(fd), "--model", str(STARTER_MODEL)]
        command += ["--served-name", "starter", "--guests", str(guests)]
        process = subprocess.Popen(command, pass_fds=[fd], env=ENVIRONMENT, stderr=log)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            _wait(lambda: httpx.get(f"{url}/ready", timeout=LIMIT_S).status_code == 200, process, "the server")
            yield psutil.Process(process.pid), url
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def _training(folder: Path, run: RunDir, url: str) -> "Iterator[subprocess.Popen[bytes]]":
    command = [sys.executable, "-m", "rl.train", "--run-dir", str(run.root), "--server-url", url, "--wandb", "off"]
    command += ["--steps", "100000", "--eval-every", "50", "--eval-problems", "32"]
    with (folder / "train.log").open("w") as log:
        process = subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(60)


def _wait(condition: Callable[[], bool], process: "subprocess.Popen[bytes]", what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert process.poll() is None, f"it ended before {what}"
        assert time.monotonic() < end, f"waited {LIMIT_S:.0f} s for {what}"
        time.sleep(0.05)


def _steps(run: RunDir) -> list[int]:
    return [record["step"] for record in run.records() if record["kind"] == "step"]


def _during(run: RunDir, work: Callable[[], None]) -> tuple[int, float]:
    """Steps that the run makes meanwhile, and seconds."""
    start, before = time.monotonic(), len(_steps(run))
    work()
    return len(_steps(run)) - before, time.monotonic() - start


async def _ask(load: Load, url: str, server: psutil.Process, clients: int, seconds: float, seed: int) -> None:
    headers = {"authorization": f"Bearer {ENVIRONMENT[KEY]}"}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=LIMIT_S, limits=limits) as http:
        end = time.monotonic() + seconds
        guests = [asyncio.create_task(_guest(load, http, end, random.Random(seed + n))) for n in range(clients)]
        watching = asyncio.create_task(_watch(load, server))
        await asyncio.gather(*guests)
        watching.cancel()


async def _watch(load: Load, server: psutil.Process) -> None:
    while True:
        load.rss["during"] = max(load.rss.get("during", 0), server.memory_info().rss)
        await asyncio.sleep(0.2)


async def _guest(load: Load, http: httpx.AsyncClient, end: float, draw: random.Random) -> None:
    while time.monotonic() < end:
        start = time.monotonic()
        path, body = _request(draw)
        try:
            answer = await http.post(path, json=body)
        except httpx.HTTPError as error:
            load.statuses[type(error).__name__] += 1
            continue
        load.statuses[str(answer.status_code)] += 1
        if answer.status_code == 200:
            load.took_s.append(time.monotonic() - start)
            continue
        told = answer.headers.get("retry-after", "")
        load.untold += not told.isdecimal()
        await asyncio.sleep(min(float(told or 0), LONGEST_WAIT_S))


def _request(draw: random.Random) -> tuple[str, dict[str, object]]:
    question = f"{draw.randrange(100)}+{draw.randrange(100)}"
    common = {"model": "starter", "n": draw.choice([1, 4, 16]), "stream": draw.random() < 0.5}
    if draw.random() < 0.5:
        return "/v1/completions", common | {"prompt": [f"{question}="] * draw.choice([1, 4]), "max_tokens": 40}
    message = {"role": "user", "content": question}
    return "/v1/chat/completions", common | {"messages": [message], "max_completion_tokens": 40}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--clients", type=int, default=64, help="guests that ask at a time")
    parser.add_argument("--seconds", type=float, default=60, help="for which they do")
    parser.add_argument("--guests", type=int, default=16, help="requests of theirs that the server takes at a time")
    parser.add_argument("--alone", type=float, default=20, help="seconds of the run before they come")
    parser.add_argument("--seed", type=int, default=0, help="of what they ask")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        print(
            put_under_load(
                Path(folder),
                clients=args.clients,
                seconds=args.seconds,
                guests=args.guests,
                alone_s=args.alone,
                seed=args.seed,
            )
        )


if __name__ == "__main__":
    main()
