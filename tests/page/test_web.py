"""`python -m rl.web` as a process: who may ask, what an answer forbids a browser, and that nothing ends in a trace."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from rl.page.guard import HEADERS
from tests.page.service import ROOT, Service, served

VIEWS = ("run", "live", "completions", "config", "audit")


@pytest.fixture(scope="module")
def service(runs: Path) -> Iterator[Service]:
    with served(runs) as service:
        yield service


def command(*flags: str, **environment: str) -> tuple[int, str]:
    """(exit code, what it says on stderr) of a start that does not come to serve."""
    answer = subprocess.run(
        [sys.executable, "-m", "rl.web", *flags],
        cwd=ROOT,
        env={"PATH": "/usr/bin", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return answer.returncode, answer.stderr


# ---- the command


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    code, said = command(str(tmp_path / "gone"))
    assert code == 2
    assert said.startswith(f"error: there is no folder {tmp_path}/gone\n  fix: ")


def test_a_port_that_is_taken(runs: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, said = command(str(runs), "--port", str(other.getsockname()[1]))
    assert code == 2
    assert "Address already in use" in said


def test_beyond_this_machine_a_key_is_needed(runs: Path) -> None:
    code, said = command(str(runs), "--host", "0.0.0.0", "--port", "0")
    assert code == 2
    assert "no key is set" in said


def test_with_a_key_nobody_is_let_in_without_it(runs: Path) -> None:
    with served(runs, "--host", "0.0.0.0", TALLY_API_KEY="a-key-of-ours") as service:
        for path in ("/", "/run/first", "/live", "/live/first", "/metrics", "/static/page.js", "/nothing"):
            assert service.get(path).status_code == 401
            assert service.get(path, headers={"Authorization": "Bearer another"}).status_code == 401
        assert service.get("/health").status_code == service.get("/ready").status_code == 200
        answer = service.get("/run/first", auth=("", "a-key-of-ours"))  # as a browser asks its user for it
        assert answer.status_code == 200
        assert "a-key-of-ours" not in answer.text
        assert service.get("/live", headers={"Authorization": "Bearer a-key-of-ours"}).status_code == 200


def test_before_the_key_is_asked_for_there_are_limits(runs: Path) -> None:
    said = "Invalid HTTP request received.\n"
    with served(runs, "--host", "0.0.0.0", says=said, TALLY_API_KEY="a-key-of-ours") as service:
        host, _, port = service.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nX-Long: ".ljust(2**16 + 1, b"a"))
            assert connection.makefile("rb").readline() == b"HTTP/1.1 400 Bad Request\r\n"
        assert service.get("/health").status_code == 200


# ---- what holds for every answer


@pytest.mark.parametrize(
    "path", ["/", "/run/first", "/live/first", "/static/page.css", "/nothing", "/health", "/run/x"]
)
def test_an_answer_forbids_a_browser_all_that_it_does_not_need(service: Service, path: str) -> None:
    headers = service.get(path).headers
    for name, value in HEADERS.items():
        assert headers[name] == value
    assert "'unsafe" not in headers["Content-Security-Policy"]
    assert "server" not in headers


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "evil.example:8265", "[::2]"])
def test_a_name_that_was_made_to_mean_this_machine_is_refused(service: Service, host: str) -> None:
    answer = service.get("/run/first", headers={"Host": host})
    assert answer.status_code == 421
    assert "first" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9", "[::1]:8265", "LOCALHOST:1"])
def test_this_machine_has_several_names(service: Service, host: str) -> None:
    assert service.get("/run/first", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/run/first", "/live/first"])
def test_it_is_only_to_be_read(service: Service, method: str, path: str) -> None:
    assert service.client.request(method, service.url + path).status_code == 405


def raw(service: Service, path: str) -> tuple[int, str]:
    """What is answered to a path as it stands: other clients tidy it up before they send it."""
    with closing(HTTPConnection(service.url.removeprefix("http://"), timeout=60)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


@pytest.mark.parametrize(
    "name",
    ["x", "..", "../x", "%2e%2e/x", "..%2f..%2fetc", "first/..", "/first", "%00", "first%00", "%ff", "%0a", "a" * 3000],
)
@pytest.mark.parametrize("view", VIEWS)
def test_what_is_no_run_is_not_found(service: Service, view: str, name: str) -> None:
    status, said = raw(service, f"/{view}/{name}")
    assert status == 404
    assert "Traceback" not in said


@pytest.mark.parametrize("path", ["../app.py", "..%2fapp.py", "%2e%2e/app.py", "/etc/passwd", "%00", "..\\app.py"])
def test_no_other_file_is_served(service: Service, path: str) -> None:
    status, said = raw(service, f"/static/{path}")
    assert status == 404
    assert "import" not in said


@pytest.mark.parametrize(
    "query",
    [
        *("step=x", "step=-1", "step=1e9", "step=²", "after=99999999999999999999", "group=0x1"),
        *("verdict=nonsense", "order=best;drop", "state=gone", "change=all"),
    ],
)
def test_a_question_that_makes_no_sense_is_answered_with_a_sentence(service: Service, query: str) -> None:
    answer = service.get(f"/completions/first?{query}")
    assert answer.status_code == 400
    assert "Traceback" not in answer.text
    assert "is no number" in answer.text or "is not one of" in answer.text


@pytest.mark.parametrize("path", ["/compare", "/compare?run=x", "/compared", "/?page=x", "/live?page=-1"])
def test_so_is_one_about_several_runs(service: Service, path: str) -> None:
    assert service.get(path).status_code in (400, 404)


def test_what_a_script_of_somebody_else_says_it_knows_is_sent_all(service: Service) -> None:
    key = service.get("/live/first").json()["curves"]["key"]
    answer = service.get(f"/live/first?known={key}{'9' * 5000}")
    assert answer.status_code == 200
    assert answer.json()["curves"]["from"] == 0


def test_its_own_metrics(service: Service) -> None:
    service.get("/run/first")
    service.get("/run/nothing")
    said = service.get("/metrics").text
    assert 'tally_page_requests_total{status="200",view="run"}' in said
    assert 'tally_page_requests_total{status="404",view="run"}' in said
    assert "tally_page_runs " in said
    assert "process_resident_memory_bytes" in said


def test_ready_is_over_when_the_folder_is_gone(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with served(tmp_path / "runs") as service:
        assert service.get("/").status_code == 200
        assert service.get("/ready").status_code == 200
        (tmp_path / "runs").rmdir()
        assert service.get("/ready").status_code == 503
        assert service.get("/health").status_code == 200
        assert service.get("/").status_code == 200


def test_a_single_run_is_shown_at_once(runs: Path) -> None:
    with served(runs / "first") as service:
        answer = service.get("/")
        assert answer.status_code == 307
        assert service.get(answer.headers["location"]).status_code == 200
        assert service.get("/run/other").status_code == 404
