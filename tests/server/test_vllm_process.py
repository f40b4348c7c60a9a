"""vLLM's process and the server's: whichever ends, however it ends, the other one does too."""

import os
import subprocess
import threading
from signal import SIGINT, SIGKILL

import pytest

from rl.problems.starter import STARTER_MODEL

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

MODEL = ("--model", str(STARTER_MODEL), "--cpu-cache", "0.1")


def test_killed_engine_fails_what_was_asked_and_ends_the_server(ready_server, engine_of):
    with ready_server(*MODEL, stderr=subprocess.PIPE) as (process, client):
        engine = engine_of(process.pid)
        engine.suspend()
        kill = threading.Timer(0.5, engine.kill)
        kill.start()
        answer = client.post("/v1/generate", json={"prompts": [[5, 6, 7]], "sampling": {"max_tokens": 4}})
        kill.join()
        assert answer.status_code == 503
        assert "its process was killed by SIGKILL" in answer.json()["detail"]
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 5
    assert "the engine died: its process was killed by SIGKILL" in stderr.strip().splitlines()[-1]


def test_engine_killed_while_it_loads_is_no_fault_of_the_model(server_process, engine_of):
    with server_process(*MODEL, stderr=subprocess.PIPE) as (process, _):
        engine_of(process.pid).kill()
        process.communicate(timeout=30)
    assert process.returncode == 5


@pytest.mark.parametrize("ready", [False, True])
def test_engine_does_not_outlive_a_killed_server(server_process, ready_server, engine_of, ready):
    with (ready_server if ready else server_process)(*MODEL) as (process, _):
        engine = engine_of(process.pid)
        os.kill(process.pid, SIGKILL)
        engine.wait(timeout=30)


def test_interrupt_of_both_ends_them_as_it_ends_the_server(ready_server, engine_of):
    with ready_server(*MODEL, stderr=subprocess.PIPE) as (process, _):
        engine = engine_of(process.pid)
        engine.send_signal(SIGINT)
        process.send_signal(SIGINT)
        _, stderr = process.communicate(timeout=30)
        engine.wait(timeout=30)
    assert process.returncode == 0
    assert "error" not in stderr
