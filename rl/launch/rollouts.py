"""Short runs for what is measured, and rollouts of a base model where no run has recorded any."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rl.core import cli
from rl.core.config import TrainConfig
from rl.core.dburl import URL_VARIABLE
from rl.core.errors import TallyError

STILL = 1e-9
"""A rate at which a policy stays the base, to what float32 can tell."""
BRIEF = {"eval_problems": 8, "eval_samples": 1, "wandb": "off"}


def begin_run(run: Path, settings: Mapping[str, Any], log: Path, *argv: str) -> "subprocess.Popen[bytes]":
    """`rl.train` with brief evaluations, nobody told of it, and a database of its own. Why it failed is on stderr.

    Args:
        settings: that differ from the defaults.
        log: takes its stdout.
        argv: further arguments.
    """
    command = [sys.executable, "-m", "rl.train", "--run-dir", str(run), *argv, *cli.as_flags({**BRIEF, **settings})]
    env = {name: value for name, value in os.environ.items() if name != URL_VARIABLE}
    with log.open("w") as output:
        return subprocess.Popen(command, stdout=output, env=env)


def record_rollouts(config: TrainConfig, given: Mapping[str, Any], groups: int, out: Path) -> Path:
    """Records the batches of the configuration's steps, and at least so many groups more, under `out`.

    Args:
        given: the settings that the user named, as they were written.

    Returns:
        The directory of the run.

    Raises:
        TallyError: the run failed; `out/recording.log` and stderr say why.
    """
    steps = config.steps + -(-groups * config.group_size // config.batch)
    settings = {"eval_every": steps, **given, "lr": STILL, "steps": steps, "save_every": steps}
    log, run = out / "recording.log", out / "rollouts"
    out.mkdir(parents=True)
    with begin_run(run, settings, log) as process:
        pass
    if process.returncode:
        raise TallyError(f"recording rollouts ended with exit code {process.returncode}", fix=f"see {log}")
    return run
