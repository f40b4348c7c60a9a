"""Rollouts of a base model where no run has recorded any: a short `rl.train` that stays where it is."""

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
    brief = {"eval_every": steps, "eval_problems": 1, "eval_samples": 1, "wandb": "off"}
    settings = {**brief, **given, "lr": STILL, "steps": steps, "save_every": steps}
    log, run = out / "recording.log", out / "rollouts"
    out.mkdir(parents=True)
    with log.open("w") as file:
        command = [sys.executable, "-m", "rl.train", "--run-dir", str(run), *cli.as_flags(settings)]
        here = {name: value for name, value in os.environ.items() if name != URL_VARIABLE}
        ended = subprocess.run(command, stdout=file, env=here, check=False)
    if ended.returncode:
        raise TallyError(f"recording rollouts ended with exit code {ended.returncode}", fix=f"see {log}")
    return run
