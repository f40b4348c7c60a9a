"""Starting rollout servers on this machine."""

import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.core.processes import Child
from rl.launch.placement import WHOLE, Placement
from rl.problems.models import resolve_model


def listen(port: int) -> socket.socket:
    """A listening socket on loopback, for a server to inherit: its address is known before it starts, and stays.

    Args:
        port: 0 takes a free one.

    Raises:
        UsageError: the port is taken.
    """
    try:
        return socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        fix = "take another --port, or leave it out for a free one"
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot listen on 127.0.0.1:{port}: {reason}", fix=fix) from None


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


def start_servers(
    config: TrainConfig, listeners: Sequence[socket.socket], logs: Path, env: Mapping[str, str], placement: Placement
) -> Iterator[Child]:
    """A server for each listener, on the devices of the placement; each has a log of its own."""
    for i, listener in enumerate(listeners):
        name = "server" if len(listeners) == 1 else f"server-{i}"
        devices = {**env, **placement.server_env(i)}
        log = logs / f"{name}.log"
        yield start_server(config, listener, log, devices, gpu_memory=placement.memory(i), name=name)


def start_server(
    config: TrainConfig,
    listener: socket.socket,
    log: Path,
    env: Mapping[str, str],
    *,
    gpu_memory: float | None = None,
    name: str = "server",
) -> Child:
    """A server of the configuration's model that answers on `listener`; it loads the model while it answers `/health`.

    Args:
        gpu_memory: share of the GPU's memory that it may take; None is the configuration's, or that of a server alone.
    """
    command = [sys.executable, "-m", "rollout_server", "--fd", str(listener.fileno())]
    folder = Path(config.model)
    served_name = folder.resolve().name if folder.is_dir() else config.model
    command += ["--model", resolve_model(config), "--served-name", served_name, "--dtype", config.dtype]
    command += ["--trust-remote-code"] if config.trust_remote_code else []
    command += ["--max-lora-rank", str(config.lora_rank), "--seed", str(config.seed)]
    command += ["--gpu-memory", str(gpu_memory or config.gpu_memory or WHOLE)]
    return Child(name, command, log, env, pass_fds=[listener.fileno()])
