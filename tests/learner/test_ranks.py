"""Ranks that have nothing more to do, while rank 0 publishes and saves."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rl.core.pulse import pulse_file
from tests.observe.recorded import new_run

LIMIT_S = 120.0


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, f"waited {LIMIT_S} s for {what}"
        time.sleep(0.05)


def test_a_rank_beats_until_rank_0_has_saved(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    pulse = pulse_file(run, "learner-1")
    script = Path(__file__).with_name("idle_rank.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    arguments = [str(run.root), "--policy", "p", "--server-url", "http://127.0.0.1:1"]
    with subprocess.Popen([*command, *arguments], env=environment, stderr=subprocess.PIPE, text=True) as ranks:
        try:
            wait_for((run.root / "trained-1").exists, "rank 1 to be done")
            for _ in range(2):
                last = pulse.stat().st_mtime_ns
                wait_for(lambda last=last: pulse.stat().st_mtime_ns != last, "another beat of rank 1")
            assert ranks.poll() is None
            (run.root / "go").touch()
            _, err = ranks.communicate(timeout=LIMIT_S)
            assert ranks.returncode == 0, err
        finally:
            ranks.kill()
