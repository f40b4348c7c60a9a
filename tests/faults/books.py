"""What has to hold of a run after whatever was done to it."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rl.core.rundir import RunDir

ADAPTER = "adapter_model.safetensors"


def check_books(run: RunDir, enter: Sequence[str] = ()) -> Iterator[str]:
    """Audits the run, trains it again from its ledger, and compares the last adapters bit by bit.

    Args:
        enter: what precedes a command where the ledger can be reached.

    Raises:
        AssertionError: the books do not balance, or the adapters differ.
    """
    audit = _command(enter, "rl.audit", str(run.root))
    assert audit.returncode == 0, audit.stdout + audit.stderr
    yield from audit.stdout.splitlines()
    replay = RunDir(run.root.with_name(f"{run.root.name}-replay"))
    flags = ["--replay", str(run.root), "--run-dir", str(replay.root), "--wandb", "off"]
    done = _command(enter, "rl.train", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    last = run.checkpoint_steps()[-1]
    assert replay.checkpoint_steps()[-1] == last
    adapters = [(each.checkpoints / f"step-{last:06d}" / ADAPTER).read_bytes() for each in (run, replay)]
    assert adapters[0] == adapters[1], f"the adapter of step {last} is another one when its groups are trained again"
    yield f"trained again from its ledger: the adapter of step {last} is the same to the bit"


def _command(enter: Sequence[str], module: str, *argv: str) -> "subprocess.CompletedProcess[str]":
    repository = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    command = [*enter, sys.executable, "-m", module, *argv]
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=600, check=False)
