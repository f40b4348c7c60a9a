"""`python -m rl.sweep` with runs that are made at once (`tests.sweep.fake_train`), and a server without a model."""

import sys
from collections.abc import Mapping
from pathlib import Path
from socket import socket
from typing import Any

from rl import sweep
from rl.core import cli
from rl.core.config import TrainConfig
from rl.core.processes import Child
from rl.launch import going, shared


def start_server(config: TrainConfig, listener: socket, log: Path, env: Mapping[str, str], **kwargs: Any) -> Child:
    log.write_text(f"for {kwargs['policies']} policies\n")
    command = [sys.executable, "-m", "rollout_server", "--engine", "scripted", "--fd", str(listener.fileno())]
    command += ["--pulse", str(kwargs["pulse"].absolute())]
    return Child(kwargs["name"], command, log, env, pass_fds=[listener.fileno()])


if __name__ == "__main__":
    going.TRAIN = (sys.executable, "-m", "tests.sweep.fake_train")
    shared.start_server = start_server
    cli.run(sweep.main)
