"""Who may ask: the key, where it comes from, and what nobody gets without it."""

import base64
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import openai
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from rollout_server.access import KEY, KEY_FILE, AccessError, api_key, check_exposed
from rollout_server.app import create_app
from rollout_server.engines.scripted import ScriptedEngine
from rollout_server.schema import ErrorBody

SECRET = "3fa85f6457174562b3fc2c963f66afa6"
SERVER = [sys.executable, "-m", "rollout_server", "--engine", "scripted"]


@pytest.fixture(autouse=True)
def no_key_around(monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.delenv(KEY_FILE, raising=False)


@pytest.fixture
def app(engine, tmp_path):
    return create_app(engine, tmp_path, key=SECRET)


def test_key_is_that_of_the_environment_or_of_a_file(monkeypatch, tmp_path):
    assert api_key() is None
    (tmp_path / "key").write_text(f"{SECRET}\n")
    monkeypatch.setenv(KEY_FILE, str(tmp_path / "key"))
    assert api_key() == SECRET
    monkeypatch.setenv(KEY, "another")
    assert api_key() == "another"
    monkeypatch.setenv(KEY, " ")
    assert api_key() == SECRET


@pytest.mark.parametrize("content", [None, b"", b"\n", b"two words", "schlüssel".encode(), b"\xff\xfe", b"a\x00b"])
def test_key_that_cannot_be_used_is_told_without_it(monkeypatch, tmp_path, content):
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    monkeypatch.setenv(KEY_FILE, str(tmp_path / "key"))
    with pytest.raises(AccessError) as caught:
        api_key()
    assert caught.value.fix
    text = (content or b"").decode(errors="replace").strip()
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "no-such-host.invalid", ""])
def test_who_can_be_reached_needs_a_key(host):
    with pytest.raises(AccessError, match="no key"):
        check_exposed(host, None)
    check_exposed(host, SECRET)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_none(host):
    check_exposed(host, None)


@pytest.mark.anyio
async def test_every_path_needs_the_key_but_health_and_ready(app, client):
    paths = [(method, route.path) for route in app.routes for method in route.methods]
    assert ("POST", "/v1/generate") in paths
    assert ("GET", "/metrics") in paths
    open_paths = []
    for method, path in [*paths, ("GET", "/nowhere"), ("GET", "/health/"), ("GET", "//health")]:
        answers = [
            await client.request(method, path, headers=headers)
            for headers in ({}, {"authorization": f"Bearer {SECRET}x"}, {"authorization": SECRET})
        ]
        if all(answer.status_code == 200 for answer in answers):
            open_paths.append(path)
            continue
        for answer in answers:
            assert answer.status_code == 401, (method, path)
            assert "WWW-Authenticate" in answer.headers
    assert set(open_paths) == {"/health", "/ready"}


@pytest.mark.anyio
async def test_refusal_has_the_body_of_its_path(client):
    for path in ("/v1/completions", "/v1/chat/completions", "/v1/models", "/v1/models/any"):
        error = (await client.post(path)).json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
        assert KEY in error["message"]
    for path in ("/v1/generate", "/v1/policies", "/metrics", "/nowhere"):
        assert KEY in ErrorBody.model_validate((await client.get(path)).json()).fix


@pytest.mark.anyio
@pytest.mark.parametrize("credentials", [f"Bearer {SECRET}", f"bearer {SECRET}", f"Bearer  {SECRET}", "basic"])
async def test_key_opens(client, credentials):
    if credentials == "basic":  # a browser
        credentials = "Basic " + base64.b64encode(f"anybody:{SECRET}".encode()).decode()
    answer = await client.get("/v1/policies", headers={"authorization": credentials})
    assert answer.status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize(
    "credentials", ["", "Bearer", "Bearer ", "Basic", "Basic !", "Basic /w==", "Basic Og==", "Digest x", b"Bearer \xff"]
)
async def test_no_credentials_are_a_refusal_and_no_defect(client, credentials):
    answer = await client.get("/v1/policies", headers={b"authorization": credentials})
    assert answer.status_code == 401


@pytest.mark.anyio
async def test_openais_client_sends_it(client):
    for key, error in [(SECRET, None), ("wrong", openai.AuthenticationError)]:
        ai = openai.AsyncOpenAI(base_url="http://server/v1", api_key=key, http_client=client, max_retries=0)
        if error is None:
            assert (await ai.completions.create(model="scripted", prompt="a")).choices
        else:
            with pytest.raises(error, match=KEY):
                await ai.completions.create(model="scripted", prompt="a")


def test_websocket_is_closed(tmp_path):
    app = create_app(ScriptedEngine(), tmp_path, key=SECRET)
    with TestClient(app) as client, pytest.raises(WebSocketDisconnect), client.websocket_connect("/v1/generate"):
        pass


def everywhere() -> socket.socket:
    """A listener that other machines could reach."""
    return socket.create_server(("0.0.0.0", 0))


@pytest.mark.parametrize("inherited", [False, True])
def test_server_that_can_be_reached_does_not_start_without_a_key(inherited):
    with everywhere() as listener:
        where = ["--fd", str(listener.fileno())] if inherited else ["--host", "0.0.0.0", "--port", "0"]
        result = subprocess.run(
            [*SERVER, *where], pass_fds=[listener.fileno()], capture_output=True, text=True, timeout=60
        )
    assert result.returncode == 2
    assert "0.0.0.0 can be reached from other machines" in result.stderr
    assert KEY in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_key_of_a_file_that_is_not_there_is_a_sentence_and_exit_2(monkeypatch, tmp_path):
    monkeypatch.setenv(KEY_FILE, str(tmp_path / "nowhere"))
    result = subprocess.run([*SERVER, "--port", "0"], capture_output=True, text=True, timeout=60)
    assert (result.returncode, "Traceback" in result.stderr) == (2, False)
    assert str(tmp_path / "nowhere") in result.stderr


def test_socket_of_this_machine_alone_is_no_tcp_socket():
    with socket.socket(socket.AF_UNIX) as listener:
        command = [*SERVER, "--fd", str(listener.fileno())]
        result = subprocess.run(command, pass_fds=[listener.fileno()], capture_output=True, text=True, timeout=60)
    assert (result.returncode, "AF_UNIX" in result.stderr) == (2, True)


@pytest.mark.parametrize("given", ["environment", "--api-key", "--api-key="])
def test_server_with_a_key_serves_who_has_it_and_shows_it_nowhere(monkeypatch, tmp_path, given):
    arguments = {"environment": [], "--api-key": ["--api-key", SECRET], "--api-key=": [f"--api-key={SECRET}"]}[given]
    if given == "environment":
        monkeypatch.setenv(KEY, SECRET)
    log = tmp_path / "log"
    with everywhere() as listener, log.open("w") as output:
        command = [*SERVER, "--fd", str(listener.fileno()), *arguments]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()], stdout=output, stderr=output)
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx.Client(base_url=url, timeout=60) as client:
                answers = [client.get(path) for path in ("/health", "/v1/policies", "/metrics", "/openapi.json")]
                assert [answer.status_code for answer in answers] == [200, 401, 401, 401]
                headers = {"authorization": f"Bearer {SECRET}"}
                known = [client.get(path, headers=headers) for path in ("/v1/policies", "/metrics", "/openapi.json")]
                assert {answer.status_code for answer in known} == {200}
            about = Path(f"/proc/{process.pid}")
            title = [(about / name).read_text() for name in ("cmdline", "comm", "status")]
        finally:
            process.terminate()
            process.wait(60)
    assert process.returncode == 0
    assert "rollout_server" in title[0]
    for text in (log.read_text(), *title, *(answer.text + str(answer.headers) for answer in [*answers, *known])):
        assert SECRET not in text


def test_server_without_a_key_is_asked_by_its_own_names_alone(server_process):
    """A browser can be made to ask 127.0.0.1 by any name; the page that does it then reads the answer."""
    with server_process("--engine", "scripted") as (_, client):
        port = client.base_url.port
        for host in ("localhost", f"localhost:{port}", "127.0.0.1:1", "[::1]", f"[::1]:{port}", "LOCALHOST"):
            assert client.get("/v1/policies", headers={"host": host}).status_code == 200
        for host in (
            "evil.example",
            f"evil.example:{port}",
            "localhost.evil.example",
            "127.0.0.1.evil",
            "",
            "[::1",
            "a@b",
        ):
            for path in ("/v1/policies", "/health", "/v1/models"):
                answer = client.get(path, headers={"host": host})
                assert answer.status_code in (400, 421)
                assert answer.status_code == 400 or "localhost" in answer.text
