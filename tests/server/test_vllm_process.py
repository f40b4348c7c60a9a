"""vLLM's process and the server's: whichever ends, however it ends, the other one does too."""

import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from signal import SIGINT, SIGKILL, SIGTERM

import pytest

from rl.problems.starter import STARTER_MODEL
from rollout_server.engines.vllm import VllmEngine
from rollout_server.engines.vllm_load import Options
from rollout_server.schema import GenerateRequest, Sampling

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


def test_server_that_is_stopped_in_the_middle_ends_well(ready_server):
    """Its requests are aborted while the engine says farewell."""
    long = {"model": STARTER_MODEL.name, "prompt": "1+1=", "n": 16, "max_tokens": 400, "ignore_eos": True}
    with ready_server(*MODEL, stderr=subprocess.PIPE) as (process, client), ThreadPoolExecutor() as pool:
        asked = [pool.submit(client.post, "/v1/completions", json=long) for _ in range(16)]
        while 'tally_server_completions_sampling{by="guest"} 0.0' in client.get("/metrics").text:
            assert not any(request.done() for request in asked)
        process.send_signal(SIGTERM)
        _, stderr = process.communicate(timeout=30)
        assert any(request.exception() for request in asked)
    assert process.returncode == 0
    assert "error: " not in stderr


def test_interrupt_of_both_ends_them_as_it_ends_the_server(ready_server, engine_of):
    with ready_server(*MODEL, stderr=subprocess.PIPE) as (process, _):
        engine = engine_of(process.pid)
        engine.send_signal(SIGINT)
        process.send_signal(SIGINT)
        _, stderr = process.communicate(timeout=30)
        engine.wait(timeout=30)
    assert process.returncode == 0
    assert "error" not in stderr


@pytest.mark.anyio
async def test_completions_that_have_ended_are_told_before_their_request_ends():
    engine = VllmEngine(Options(model=str(STARTER_MODEL), cpu_cache=0.1))
    told: list[int] = []
    engine.on_early = told.append
    await engine.start()
    prompts = [[5, 6, 7], [8, 9]]
    answer = await engine.generate(GenerateRequest(prompts=prompts, n=16, sampling=Sampling(max_tokens=40)), None)
    assert len({len(completion.token_ids) for siblings in answer for completion in siblings}) > 1
    *meanwhile, last = told
    assert meanwhile == sorted(meanwhile)
    assert 0 < meanwhile[0] <= meanwhile[-1] < 32
    assert last == 0
    engine.close()
    await engine.join()
