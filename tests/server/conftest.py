"""Adapters as bytes and servers as processes, for the tests of the rollout server."""

import hashlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from safetensors.numpy import save

from rollout_server.engines.scripted import FACTS
from rollout_server.schema import CONFIG_KEY, HASH_HEADER


@pytest.fixture
def anyio_backend():
    return "asyncio"


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
        return save(tensors or adapter_tensors(seed), metadata={CONFIG_KEY: json.dumps(config)})

    return make


@pytest.fixture(scope="session")
def hashed():
    """Makes the header that goes with a body."""
    return lambda body: {HASH_HEADER: hashlib.sha256(body).hexdigest()}


@pytest.fixture(scope="session")
def server_process():
    """Starts `python -m rollout_server` on a free port; gives the process and a client, and leaves nothing behind."""

    @contextmanager
    def start(*args, stderr=None) -> Iterator[tuple[subprocess.Popen, httpx.Client]]:
        listener = socket.create_server(("127.0.0.1", 0))
        command = [sys.executable, "-m", "rollout_server", "--fd", str(listener.fileno()), *args]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()], stderr=stderr, text=True)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=120) as client:
                yield process, client
        finally:
            process.kill()
            process.communicate()
            listener.close()

    return start
