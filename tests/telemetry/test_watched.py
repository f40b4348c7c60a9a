"""A run that is watched from outside: its processes answer, a real Prometheus scrapes them, and every query of the
dashboard has an answer."""

import json
import math
import re
import shutil
import signal
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from rl.core import metrics
from rl.core.rundir import RunDir
from tests.commands import ROOT, Command
from tests.e2e.conftest import SMALL
from tests.telemetry.conftest import LIMIT_S, ask, free_port, free_ports

KEY = "key-of-a-watched-run"
PLACES = {"supervisor": 0, "collector": 1, "evaluator": 2, "learner-0": 10}
TARGETS = [("learner", 0), ("collector", 1), ("evaluator", 2), ("learner", 10)]
PROMETHEUS = shutil.which("prometheus")
REGISTRIES = (
    *(metrics.PROCESS, metrics.SAMPLING, metrics.COLLECTING),
    *(metrics.EVALUATING, metrics.LEARNING, metrics.SUPERVISING),
)
SUFFIXES = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "summary": ["_sum", "_count"]}

Query = Callable[[str, float], list[float]]

dashboard = json.loads((ROOT / "docker/grafana/tally.json").read_text())
QUERIES = sorted({target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])})


@pytest.mark.parametrize("expression", QUERIES)
def test_the_dashboard_asks_for_nothing_that_does_not_exist(expression: str) -> None:
    exported = {
        family.name + suffix
        for registry in REGISTRIES
        for family in registry.collect()
        for suffix in SUFFIXES.get(family.type, [""])
    }
    names = set(re.findall(r"([A-Za-z_:][\w:]*)\{", expression))
    assert names
    assert all(name.startswith("vllm:") for name in names - exported)
    assert expression.count("{") == expression.count('{run="$run"') + expression.count('{instance=~"$server"')


@dataclass(frozen=True)
class Watched:
    """A run that goes on."""

    run: RunDir
    command: Command
    port: int
    """Of its supervisor."""
    server: int
    """The port of its rollout server."""

    def ask(self, role: str, path: str) -> tuple[int, str]:
        return ask(self.port + PLACES[role], path, KEY)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    run, port, server = RunDir(folder / "run"), free_ports(), free_port()
    flags = ["--steps", "100000", "--wandb", "off", "--port", str(server), "--metrics-port", str(port), *SMALL]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TALLY_API_KEY", KEY)
        command = Command("rl.train", "--run-dir", str(run.root), *flags, cwd=folder)
    try:
        yield Watched(run, command, port, server)
        command.process.send_signal(signal.SIGINT)
        code, _, err = command.finish()
        assert (code, err) == (130, "")
    finally:
        command.kill()


@pytest.mark.e2e
@pytest.mark.vllm
def test_every_process_is_well_and_becomes_ready(watched: Watched) -> None:
    for role in PLACES:
        watched.command.wait_for(lambda role=role: watched.ask(role, "/ready") == (200, "ready\n"), f"{role} is ready")
        assert watched.ask(role, "/health") == (200, "well\n")
        status, page = watched.ask(role, "/metrics")
        assert status == 200
        assert f'process_cpu_seconds_total{{role="{role}",run="run"}}' in page
        assert ask(watched.port + PLACES[role], "/metrics")[0] == 401


@pytest.mark.e2e
@pytest.mark.vllm
@pytest.mark.skipif(not PROMETHEUS, reason="Debian's package prometheus is not installed")
def test_every_query_of_the_dashboard_has_an_answer(watched: Watched, tmp_path: Path) -> None:
    begin, end = time.time(), time.monotonic() + LIMIT_S
    unanswered = QUERIES
    with prometheus(watched, tmp_path) as values_of:
        while unanswered and time.monotonic() < end:
            time.sleep(1)
            unanswered = [query for query in unanswered if not any(map(math.isfinite, values_of(query, begin)))]
    assert unanswered == []


@pytest.mark.e2e
@pytest.mark.vllm
def test_a_worker_that_is_replaced_answers_on_the_same_port_and_is_counted(watched: Watched) -> None:
    watched.command.wait_for(lambda: watched.ask("collector", "/ready")[0] == 200, "a collector")
    first = watched.command.child("rl.collect")
    first.kill()
    counted = 'tally_worker_restarts_total{role="supervisor",run="run",worker="collector"} 1.0'
    watched.command.wait_for(lambda: counted in watched.ask("supervisor", "/metrics")[1], "its end is counted")
    watched.command.wait_for(lambda: watched.ask("collector", "/ready")[0] == 200, "another collector")
    assert watched.command.child("rl.collect").pid != first.pid


@pytest.mark.e2e
@pytest.mark.vllm
def test_logs_are_json_and_neither_they_nor_another_file_have_the_key(watched: Watched) -> None:
    watched.command.wait_for(lambda: watched.ask("evaluator", "/ready")[0] == 200, "an evaluator")
    for role in ("collector", "evaluator", "learner"):
        entries = [json.loads(line) for line in (watched.run.logs / f"{role}.log").read_text().splitlines()]
        assert {"started", "ready"} & {entry["message"].partition(":")[0] for entry in entries}
        assert all(entry["run"] == "run" and entry["role"].startswith(role) for entry in entries)
    files = [path for path in watched.run.root.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        with suppress(FileNotFoundError):  # the run goes on
            assert KEY.encode() not in path.read_bytes(), path
    for process in watched.command.descendants():
        with suppress(psutil.NoSuchProcess):
            assert KEY not in " ".join(process.cmdline())


@contextmanager
def prometheus(watched: Watched, folder: Path) -> Iterator[Query]:
    """A real one that scrapes the run by docker/prometheus.yml: what is asked for a query's values since a time."""
    config = (ROOT / "docker/prometheus.yml").read_text()
    (folder / "key").write_text(KEY)
    here = {
        **{f"{name}:{9400 + place}": f"127.0.0.1:{watched.port + place}" for name, place in TARGETS},
        "server:8000": f"127.0.0.1:{watched.server}",
        "/key/api-key": str(folder / "key"),
        "scrape_interval: 5s": "scrape_interval: 1s",
    }
    for there, address in here.items():
        assert there in config
        config = config.replace(there, address)
    (folder / "prometheus.yml").write_text(config)
    port = free_port()
    command = [PROMETHEUS or "", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]

    def values_of(expression: str, begin: float) -> list[float]:
        for variable, value in {"$run": "run", "$server": ".*", "$__rate_interval": "10s"}.items():
            expression = expression.replace(variable, value)
        asked = {"query": expression, "start": begin, "end": time.time(), "step": 1}
        status, page = ask(port, f"/api/v1/query_range?{urllib.parse.urlencode(asked)}")
        assert status in (0, 200, 503), page  # 400 is a query that cannot be parsed; 503 is a start
        series = json.loads(page)["data"]["result"] if status == 200 else []
        return [float(value) for one in series for _, value in one["values"]]

    with subprocess.Popen(command) as process:
        try:
            yield values_of
        finally:
            process.terminate()
