"""Rollout servers: those of this machine are started, those of somebody else are looked at."""

import asyncio
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from rl.collect.client import ServerClient
from rl.core.config import TrainConfig
from rl.core.errors import ServerError, UsageError, first_line
from rl.core.processes import Child
from rl.launch.placement import WHOLE
from rl.problems.models import resolve_model
from rl.problems.shapes import adapter_rank

LORAS_A_POLICY = 4
"""Adapters of a policy that are sampled by at the same time: its newest versions, and one that is evaluated."""


def listen(port: int, host: str = "127.0.0.1") -> socket.socket:
    """A listening socket, for a server to inherit: its address is known before it starts, and stays.

    Args:
        port: 0 takes a free one.

    Raises:
        UsageError: the port is taken.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        fix = "take another --port, or leave it out for a free one"
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot listen on {host}:{port}: {reason}", fix=fix) from None


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{host}:{port}"


def listen_all(port: int, servers: int) -> list[socket.socket]:
    """A listening socket for each server.

    Args:
        port: of the first, the others take those that follow; 0 takes free ones.

    Raises:
        UsageError: a port is taken.
    """
    return [listen(port + i if port else 0) for i in range(servers)]


def check_servers(urls: Sequence[str]) -> None:
    """Waits until servers that somebody else started have loaded their models.

    Raises:
        UsageError: one does not answer, does not speak our wire, or failed.
    """

    async def wait(url: str) -> None:
        async with ServerClient(url) as client:
            await client.health()  # a wrong address is told at once, and not waited for
            await client.wait_ready()

    for url in urls:
        fix = "start it (python -m rollout_server), or take another --server-url"
        try:
            asyncio.run(wait(url))
        except ServerError as error:
            raise UsageError(f"--server-url {url}: {error}", fix=error.fix or fix) from None
        except (ValueError, httpx.InvalidURL) as error:
            raise UsageError(f"--server-url {url} is no rollout server: {first_line(error)}", fix=fix) from None


def start_server(
    config: TrainConfig,
    listener: socket.socket,
    log: Path,
    env: Mapping[str, str],
    *,
    gpu_memory: float | None = None,
    max_lora_rank: int | None = None,
    policies: int = 1,
    name: str = "server",
    pulse: Path | None = None,
    watched: bool = False,
) -> Child:
    """A server of the configuration's model that answers on `listener`; it loads the model while it answers `/health`.

    Args:
        gpu_memory: share of the GPU's memory that it may take; None is the configuration's, or that of a server alone.
        max_lora_rank: highest rank of an adapter; None is that of the configuration's.
        policies: that are trained at the same time.
        pulse: what it touches each second while it answers.
        watched: whether somebody asks what its engine does, which has its price.
    """
    command = [sys.executable, "-m", "rollout_server", "--fd", str(listener.fileno())]
    folder = Path(config.model)
    served_name = folder.resolve().name if folder.is_dir() else config.model
    command += ["--model", resolve_model(config), "--served-name", served_name, "--dtype", config.dtype]
    command += ["--trust-remote-code"] if config.trust_remote_code else []
    command += ["--max-lora-rank", str(max_lora_rank or adapter_rank(config)), "--seed", str(config.seed)]
    command += ["--max-loras", str(LORAS_A_POLICY * policies)]
    command += ["--gpu-memory", str(gpu_memory or config.gpu_memory or WHOLE)]
    command += ["--pulse", str(pulse.absolute())] if pulse else []
    command += [] if watched else ["--no-engine-metrics"]
    return Child(name, command, log, env, pass_fds=[listener.fileno()])
