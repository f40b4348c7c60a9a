"""/metrics, /health and /ready: what they say of a process that is well, of one that is stuck, and to whom."""

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.parser import text_string_to_metric_families

from rl.core import telemetry
from rl.core.errors import UsageError
from rl.core.processes import Child, Children
from rl.core.rundir import RunDir
from rl.core.telemetry import NO_PORTS, Ports, Vitals, serve
from rollout_server import connections
from tests.observe.recorded import new_run
from tests.telemetry.conftest import ask, free_port, free_ports

STUCK = """
import asyncio, sys, time
from pathlib import Path
from rl.core import telemetry
from rl.core.rundir import RunDir

telemetry.SILENCE_LIMIT_S, telemetry.BEAT_S = 0.5, 0.05

async def run(vitals):
    turning = asyncio.create_task(vitals.turning())
    vitals.ready = lambda: True
    await asyncio.to_thread(sys.stdin.readline)
    time.sleep(600)

vitals = telemetry.Vitals()
telemetry.serve(RunDir(Path("runs/first")), "collector", vitals, [], host="127.0.0.1", port=int(sys.argv[1]))
asyncio.run(run(vitals))
"""


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TALLY_API_KEY", raising=False)
    monkeypatch.delenv("TALLY_API_KEY_FILE", raising=False)


@pytest.fixture
def served(until: Callable[..., None]) -> Callable[..., int]:
    """Serves registries in a thread of this process; the port."""

    def begin(vitals: Vitals, *registries: CollectorRegistry, port: int | None = None) -> int:
        port = port or free_port()
        serve(RunDir(Path("runs/first")), "collector", vitals, registries, host="127.0.0.1", port=port)
        return port

    return begin


def test_every_sample_states_run_and_role_and_what_is_not_measured_is_not_there(
    served: Callable[..., int], until: Callable[..., None]
) -> None:
    registry = CollectorRegistry()
    Counter("made", "Things.", ["kind"], registry=registry).labels("good").inc(3)
    Gauge("unknown", "Not known yet.", registry=registry).set(float("nan"))
    port = served(Vitals(), registry)
    until(lambda: ask(port, "/metrics")[0])
    families = {family.name: family for family in text_string_to_metric_families(ask(port, "/metrics")[1])}
    (made,) = families["made"].samples
    assert (made.name, made.value) == ("made_total", 3)
    assert made.labels == {"kind": "good", "run": "first", "role": "collector"}
    assert families["unknown"].samples == []
    assert families["process_resident_memory_bytes"].samples[0].value > 1e6


def test_a_process_is_ready_when_it_says_so(served: Callable[..., int], until: Callable[..., None]) -> None:
    vitals = Vitals()
    port = served(vitals)
    until(lambda: ask(port, "/health")[0])
    assert ask(port, "/health") == (200, "well\n")  # it starts
    assert ask(port, "/ready") == (503, "not ready\n")
    vitals.ready = lambda: True
    assert ask(port, "/ready") == (200, "ready\n")


def test_a_loop_that_is_stuck_is_told_by_a_process_that_still_answers(until: Callable[..., None]) -> None:
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", STUCK, str(port)], stdin=subprocess.PIPE) as process:
        try:
            until(lambda: ask(port, "/ready") == (200, "ready\n"))
            assert ask(port, "/health") == (200, "well\n")
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
            until(lambda: ask(port, "/health") == (503, "stuck\n"))
            assert ask(port, "/ready")[0] == 503
        finally:
            process.kill()


def test_one_that_does_not_start_in_time_is_stuck(
    served: Callable[..., int], until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "START_LIMIT_S", 0.0)
    vitals = Vitals()
    port = served(vitals)
    until(lambda: ask(port, "/health") == (503, "stuck\n"))
    vitals.turn()
    assert ask(port, "/health") == (200, "well\n")


def test_who_has_the_key_may_ask_and_health_is_for_all(
    served: Callable[..., int], until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALLY_API_KEY", "secret-of-the-test")
    port = served(Vitals())
    until(lambda: ask(port, "/health")[0])
    assert ask(port, "/health")[0] == 200
    assert ask(port, "/metrics")[0] == ask(port, "/metrics", "another")[0] == 401
    assert ask(port, "/metrics", "secret-of-the-test")[0] == 200


def test_before_the_key_is_asked_for_there_are_limits(
    served: Callable[..., int], until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_HEAD_LIMIT_S", 0.1)
    port = served(Vitals())
    until(lambda: ask(port, "/health")[0])
    half = b"GET /metrics HTTP/1.1\r\nX-Long: "
    for sent, answer in ((half, b""), (half.ljust(2**16 + 1, b"a"), b"HTTP/1.1 400 Bad Request\r\n")):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(sent)
            assert connection.makefile("rb").readline() == answer


def test_beyond_this_machine_nothing_is_served_without_a_key() -> None:
    for ports in (Ports("0.0.0.0", free_ports()), Ports("::", free_ports())):
        with pytest.raises(UsageError, match="no key is set") as refused:
            ports.check(1)
        assert "TALLY_API_KEY" in refused.value.fix
    with pytest.raises(UsageError, match="no key is set"):
        serve(RunDir(Path("runs/first")), "collector", Vitals(), [], host="0.0.0.0", port=free_port())


def test_a_replaced_process_gets_the_port_once_its_predecessor_has_left_it(
    served: Callable[..., int], until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as predecessor:
        port = served(Vitals(), port=predecessor.getsockname()[1])
        until(lambda: "Address already in use" in caplog.text)
    until(lambda: ask(port, "/health")[0] == 200)


def test_ports_follow_from_the_first() -> None:
    ports = Ports("127.0.0.1", 9400)
    assert ports.flags("collector") == ["--metrics-host=127.0.0.1", "--metrics-port=9401"]
    assert ports.flags("evaluator")[1] == "--metrics-port=9402"
    assert ports.flags("learner")[1] == "--metrics-port=9410"
    assert NO_PORTS.flags("collector") == []
    NO_PORTS.check(2)


@pytest.mark.parametrize("place", [0, 1, 2, 10, 11])
def test_a_taken_port_is_told_before_anything_is_started(place: int) -> None:
    first = free_ports(learners=2)
    with (
        socket.create_server(("127.0.0.1", first + place)),
        pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{first + place}: Address already in use") as taken,
    ):
        Ports("127.0.0.1", first).check(2)
    assert taken.value.fix == "take another --metrics-port"


@pytest.mark.parametrize("port", ["0", "-1", "65530", "99999"])
def test_a_port_that_is_none_ends_the_command_with_a_sentence(port: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rl.train", "--run-dir", str(tmp_path / "run"), "--metrics-port", port]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "take " in done.stderr
    assert not (tmp_path / "run").exists()


def test_each_rank_of_a_learner_answers_on_a_port_of_its_own(tmp_path: Path, until: Callable[..., None]) -> None:
    run, first = new_run(tmp_path / "run"), free_ports(learners=2)
    flags = ["--policy", "p", "--server-url", "http://127.0.0.1:1", *Ports("127.0.0.1", first).flags("learner")]
    command = [sys.executable, "-m", "rl.launch.ranks", "2", str(run.root), *flags]
    with Children() as children:
        children.add(Child("learner", command, tmp_path / "learner.log", {"OMP_NUM_THREADS": "1"}))
        for rank in range(2):
            port = first + 10 + rank
            until(lambda port=port: ask(port, "/health") == (200, "well\n"))
            assert ask(port, "/ready") == (503, "not ready\n")  # there is no server
            told = f'tally_learner_seconds_total{{phase="start",role="learner-{rank}",run="run"}}'
            assert told in ask(port, "/metrics")[1]
