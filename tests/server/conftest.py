"""Adapters as bytes and servers as processes, for the tests of the rollout server."""

import asyncio
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import httpx
import numpy as np
import psutil
import pytest
import uvicorn
from safetensors.numpy import save as save_arrays

from rollout_server import connections
from rollout_server.access import KEY
from rollout_server.app import create_app
from rollout_server.engines.scripted import FACTS, ScriptedEngine
from rollout_server.schema import CONFIG_KEY, HASH_HEADER


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def client_of():
    """Makes a client of an application in this process."""

    @asynccontextmanager
    async def client_of(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            yield client

    return client_of


@pytest.fixture(scope="session")
def listening_with():
    """Has an application answer as our servers do, in this process; gives its address."""

    @asynccontextmanager
    async def listening_with(app):
        listener = socket.create_server(("127.0.0.1", 0))
        connections.prepare(listener)
        server = uvicorn.Server(connections.config(app, stop_s=1))
        serving = asyncio.create_task(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving

    return listening_with


@pytest.fixture
async def engine():
    engine = ScriptedEngine()
    await engine.start()
    return engine


@pytest.fixture
def app(engine, tmp_path):
    return create_app(engine, tmp_path, keep=3)


@pytest.fixture
async def client(app, client_of):
    async with client_of(app) as client:
        yield client


@pytest.fixture
def publish(client, adapter_bytes, hashed):
    """Puts version v of a policy, with an adapter of its own, and accepts it."""

    async def publish(version, policy="run", *, accept=True):
        body = adapter_bytes(seed=version)
        answer = await client.put(f"/v1/policies/{policy}/{version}", content=body, headers=hashed(body))
        assert answer.status_code == 200, answer.text
        if accept:
            answer = await client.post(f"/v1/policies/{policy}/{version}/accept")
            assert answer.status_code == 200, answer.text

    return publish


@pytest.fixture
def adapter_tensors():
    """Makes the matrices of an adapter for all layers of the scripted model; the seed tells adapters apart."""

    def make(seed=0, rank=2):
        draw = np.random.default_rng(seed)
        tensors = {}
        for module, (outputs, inputs) in FACTS.linear_shapes.items():
            tensors[f"base_model.model.{module}.lora_A.weight"] = draw.normal(size=(rank, inputs))
            tensors[f"base_model.model.{module}.lora_B.weight"] = draw.normal(size=(outputs, rank))
        return {name: values.astype(np.float32) for name, values in tensors.items()}

    return make


@pytest.fixture
def adapter_bytes(adapter_tensors):
    """Makes ADAPTER BYTES; config overrides peft's configuration."""

    def make(seed=0, tensors=None, **config):
        config = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "up_proj"], "bias": "none"} | config
        return save_arrays(tensors or adapter_tensors(seed), metadata={CONFIG_KEY: json.dumps(config)})

    return make


@pytest.fixture(scope="session")
def hashed():
    """Makes the header that goes with a body."""
    return lambda body: {HASH_HEADER: hashlib.sha256(body).hexdigest()}


@pytest.fixture(scope="session")
def server_process():
    """Starts `python -m rollout_server` on a free port; gives the process and a client, and leaves nothing behind.

    key: that it wants, and the client sends."""

    @contextmanager
    def start(*args, stderr=None, key=None) -> Iterator[tuple[subprocess.Popen, httpx.Client]]:
        environment = os.environ | ({KEY: key} if key else {})
        headers = {"authorization": f"Bearer {key}"} if key else {}
        listener = socket.create_server(("127.0.0.1", 0))
        command = [sys.executable, "-m", "rollout_server", "--fd", str(listener.fileno()), *args]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()], env=environment, stderr=stderr, text=True)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx.Client(base_url=url, headers=headers, timeout=120) as client:
                yield process, client
        finally:
            process.kill()
            process.communicate()
            listener.close()

    return start


@pytest.fixture(scope="session")
def ready_server(server_process):
    """Starts a server as `server_process` does, and waits until it is ready."""

    @contextmanager
    def start(*args, **options) -> Iterator[tuple[subprocess.Popen, httpx.Client]]:
        with server_process(*args, **options) as (process, client):
            deadline = time.monotonic() + 300
            while client.get("/ready").status_code != 200:
                assert process.poll() is None, "the server ended while it loaded"
                assert time.monotonic() < deadline, "the server did not become ready in 300 s"
                time.sleep(0.05)
            yield process, client

    return start


@pytest.fixture(scope="session")
def engine_of():
    """Finds vLLM's process under that of its server, as soon as it is there."""

    def find(pid) -> psutil.Process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.001)
            for child in psutil.Process(pid).children():
                with suppress(psutil.NoSuchProcess):
                    if "rollout_server.engines.vllm_process" in child.cmdline():
                        return child
        pytest.fail(f"process {pid} has started no vLLM in 60 s")

    return find


@pytest.fixture(scope="session")
def upload_policy(hashed):
    """Puts and accepts the adapter of a peft model as a version of a policy."""

    def upload(client, model, policy, number):
        from peft import get_peft_model_state_dict
        from safetensors.torch import save

        config = model.peft_config["default"].to_dict()
        config["target_modules"] = sorted(config["target_modules"])
        body = save(get_peft_model_state_dict(model), metadata={CONFIG_KEY: json.dumps(config)})
        answer = client.put(f"/v1/policies/{policy}/{number}", content=body, headers=hashed(body))
        assert answer.status_code == 200, answer.text
        answer = client.post(f"/v1/policies/{policy}/{number}/accept")
        assert answer.status_code == 200, answer.text
        return answer.json()

    return upload
