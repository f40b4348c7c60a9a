"""Connections that hold the server up, or mean to: what is slow to ask, too long, or too much."""

import asyncio
import json
import resource
import socket
import subprocess
import sys

import httpx
import pytest
import uvicorn

from rollout_server import connections
from rollout_server.app import create_app
from rollout_server.limits import LARGEST_BODY

pytestmark = pytest.mark.anyio

HEAD = b"POST /v1/generate HTTP/1.1\r\nHost: server\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
BODY = json.dumps({"prompts": [[1, 2]], "sampling": {"max_tokens": 4}}).encode()


@pytest.fixture
async def listening(engine, tmp_path, listening_with):
    """The port of a server that listens as ours does."""
    async with listening_with(create_app(engine, tmp_path, guests=1)) as url:
        yield httpx.URL(url).port


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(connections, "_HEAD_LIMIT_S", 0.1)


async def dribble(writer, data):
    """Until the other side has closed."""
    for byte in data:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("sent", [b"", b"P", b"POST /v1/generate HTTP/1.1\r\nHost: s"])
async def test_head_that_does_not_come_is_not_waited_for(impatient, listening, sent):
    reader, writer = await asyncio.open_connection("127.0.0.1", listening)
    writer.write(sent)
    assert await reader.read() == b""
    writer.close()


async def test_head_that_comes_by_the_byte_is_not_waited_for(impatient, listening):
    reader, writer = await asyncio.open_connection("127.0.0.1", listening)
    dribbling = asyncio.create_task(dribble(writer, b"GET /health HTTP/1.1\r\n" + b"X-A: b\r\n" * 1000))
    assert await reader.read() == b""
    dribbling.cancel()
    writer.close()


async def test_what_is_asked_in_time_may_take_longer_than_to_ask(impatient, listening, engine):
    reader, writer = await asyncio.open_connection("127.0.0.1", listening)
    engine.gate.clear()
    for _ in range(2):  # the second request on the same connection, too
        engine.gate.clear()
        writer.write(HEAD % len(BODY) + BODY)
        while not engine.running:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        engine.gate.set()
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-l"))
        assert json.loads(await reader.readexactly(length))["completions"]
    writer.close()


async def test_head_that_is_too_long_is_refused(listening):
    reader, writer = await asyncio.open_connection("127.0.0.1", listening)
    writer.write(b"GET /health HTTP/1.1\r\nHost: server\r\nX-Long: " + b"a" * 70_000)
    assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20, b"\r\n\r\nHELO\r\n\r\n", b"\x00" * 99]
)
async def test_what_is_no_http_is_told_so_and_harms_nobody(listening, garbage):
    reader, writer = await asyncio.open_connection("127.0.0.1", listening)
    writer.write(garbage)
    assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listening}") as client:
        assert (await client.get("/ready")).status_code == 200


async def test_refusal_reaches_a_client_that_still_sends(listening, engine):
    """And the connection can be used again."""
    limits = httpx.Limits(max_connections=2)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listening}", timeout=30, limits=limits) as client:
        engine.gate.clear()
        first = asyncio.create_task(client.post("/v1/completions", json={"model": "scripted", "prompt": "a"}))
        while not engine.running:
            await asyncio.sleep(0.01)
        for _ in range(3):
            large = {"model": "scripted", "prompt": "a" * (LARGEST_BODY - 1000)}
            assert (await client.post("/v1/completions", json=large)).status_code == 429
        engine.gate.set()
        assert (await first).status_code == 200
        assert (await client.post("/v1/generate", content=BODY)).status_code == 422
        assert (await client.get("/ready")).status_code == 200


async def test_connections_beyond_all_measure_are_closed_and_the_others_served(engine, tmp_path):
    app = create_app(engine, tmp_path)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(connections.config(app, stop_s=1, most=3))
    serving = asyncio.create_task(server.serve([listener]))
    (_, idle), *there = [await asyncio.open_connection(*listener.getsockname()) for _ in range(3)]
    for _ in range(5):
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        assert await reader.read() == b""
        writer.close()
    idle.close()
    while len(server.server_state.connections) == 3:
        await asyncio.sleep(0.01)
    there.append(await asyncio.open_connection(*listener.getsockname()))
    for reader, writer in there:
        writer.write(b"GET /health HTTP/1.1\r\nHost: server\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
    server.should_exit = True
    await serving


def test_kernel_breaks_connections_that_nobody_reads_and_lends_all_files_it_may():
    script = (
        "import resource, socket\n"
        "from rollout_server.connections import prepare\n"
        "_, most = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))\n"
        "with socket.create_server(('127.0.0.1', 0)) as listener:\n"
        "    prepare(listener)\n"
        "    with socket.create_connection(listener.getsockname()):\n"
        "        accepted, _ = listener.accept()\n"
        "        print(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))\n"
        "        accepted.close()\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    limit_ms, files = map(int, done.stdout.split())
    assert limit_ms > 0
    assert files == resource.getrlimit(resource.RLIMIT_NOFILE)[1] > 256
