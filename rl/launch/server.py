"""Starting a rollout server on this machine."""

import socket
import sys
from pathlib import Path

from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.core.processes import Child
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


def start_server(
    config: TrainConfig, listener: socket.socket, log: Path, env: dict[str, str], *, gpu_memory: float = 0.9
) -> Child:
    """A server of the configuration's model that answers on `listener`; it loads the model while it answers `/health`.

    Args:
        gpu_memory: share of the GPU's memory that it may take.
    """
    command = [sys.executable, "-m", "rollout_server", "--fd", str(listener.fileno())]
    command += ["--model", resolve_model(config), "--dtype", config.dtype]
    command += ["--max-lora-rank", str(config.lora_rank), "--seed", str(config.seed)]
    command += ["--gpu-memory", str(gpu_memory)]
    return Child("server", command, log, env, pass_fds=[listener.fileno()])
