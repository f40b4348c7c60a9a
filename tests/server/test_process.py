"""The server as a process: how it starts, and how it ends."""

import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from rollout_server.engines.scripted import FATAL_PROMPT

SERVER = [sys.executable, "-m", "rollout_server"]


@pytest.fixture
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def wait_ready(client):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if client.get("/ready").status_code == 200:
            return
        time.sleep(0.05)
    pytest.fail("the server did not become ready in 60 s")


def generate(client, prompt):
    return client.post("/v1/generate", json={"prompts": [prompt], "sampling": {"max_tokens": 4}})


def test_taken_port_is_a_sentence_and_exit_2(taken_port):
    command = [*SERVER, "--engine", "scripted", "--port", str(taken_port)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert result.returncode == 2
    assert f"127.0.0.1:{taken_port}" in result.stderr
    assert "--port" in result.stderr
    assert "Traceback" not in result.stderr


def test_taken_port_is_found_before_anything_heavy_is_imported(taken_port):
    script = (
        "import sys, rollout_server.__main__ as server\n"
        f"sys.argv = ['server', '--model', 'none', '--port', '{taken_port}']\n"
        "try: server.main()\n"
        "finally: print([name for name in ('torch', 'vllm', 'fastapi') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stdout.strip()) == (2, "[]")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--port", "0"], "--model"),
        (["--engine", "scripted", "--port", "99999"], "99999"),
        (["--model", "any", "--port", "0", "--max-lora-rank", "513"], "--max-lora-rank is 513"),
        (["--model", "any", "--port", "0", "--max-loras", "0"], "--max-loras is 0"),
        (["--engine", "scripted", "--fd", "77"], "--fd 77"),
    ],
)
def test_wrong_arguments_are_a_sentence_and_exit_2(args, says):
    result = subprocess.run([*SERVER, *args], capture_output=True, text=True, timeout=30)
    assert result.returncode == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_missing_model_is_a_sentence_and_exit_3(tmp_path):
    command = [*SERVER, "--model", str(tmp_path / "nowhere"), "--port", "0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 3
    last = result.stderr.strip().splitlines()[-1]
    assert "could not load its model" in last
    assert str(tmp_path / "nowhere") in last
    assert "Traceback" not in result.stderr


def test_inherited_socket_keeps_its_address_over_a_restart():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [*SERVER, "--engine", "scripted", "--fd", str(listener.fileno())]
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60) as client:
            for _ in range(2):
                process = subprocess.Popen(command, pass_fds=[listener.fileno()])
                wait_ready(client)
                assert generate(client, [1, 2]).status_code == 200
                process.kill()
                process.wait(timeout=30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_it(server_process, number):
    with server_process("--engine", "scripted", stderr=subprocess.PIPE) as (process, client):
        wait_ready(client)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "Traceback" not in stderr


def test_dead_engine_answers_and_ends_the_process(server_process):
    with server_process("--engine", "scripted", stderr=subprocess.PIPE) as (process, client):
        wait_ready(client)
        assert generate(client, FATAL_PROMPT).status_code == 503
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 5
        assert stderr.strip().splitlines()[-1] == "error: the engine died: a prompt asked for it"


def test_help_is_light():
    script = (
        "import sys, runpy\n"
        "sys.argv = ['server', '--help']\n"
        "try: runpy.run_module('rollout_server', run_name='__main__')\n"
        "finally: print([name for name in ('torch', 'vllm', 'fastapi', 'numpy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert result.returncode == 0
    assert "--max-lora-rank" in result.stdout
    assert result.stdout.strip().endswith("[]")
