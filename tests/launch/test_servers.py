"""How a server of this machine is started."""

from pathlib import Path

import psutil

from rl.core.config import TrainConfig
from rl.core.processes import Children
from rl.launch.server import listen, start_server


def test_a_server_started_by_itself_takes_the_configured_memory(tmp_path: Path) -> None:
    config = TrainConfig()
    for configured, share in [(config, "0.9"), (config.model_copy(update={"gpu_memory": 0.3}), "0.3")]:
        with Children() as children, listen(0) as listener:
            child = children.add(start_server(configured, listener, tmp_path / "server.log", {}))
            command = psutil.Process(child.pid).cmdline()
        assert command[command.index("--gpu-memory") + 1] == share
