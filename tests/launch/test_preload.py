"""CUDA that is started before a fork does not work after it: who forks leaves it alone."""

import subprocess
import sys
from pathlib import Path

from tests.observe.recorded import new_run

SPY = """
import importlib, os, sys
import torch

asked = set()
for name in ("is_available", "device_count", "_lazy_init"):
    setattr(torch.cuda, name, lambda: asked.add(os.environ.get("CUDA_VISIBLE_DEVICES")))
"""
IMPORT = """
from rl.launch.crew import PRELOAD
for module in PRELOAD:
    importlib.import_module(module)
print(asked)
"""
FORK = """
from rl.launch import ranks
print(ranks.main(["1", sys.argv[1], "--policy", "p"]), asked <= {""}, os.environ.get("CUDA_VISIBLE_DEVICES"))
"""


def said(script: str, *argv: str) -> str:
    done = subprocess.run([sys.executable, "-c", SPY + script, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_what_the_nursery_imports_asks_for_no_gpu() -> None:
    assert said(IMPORT) == "set()"


def test_the_ranks_agent_sees_no_gpu_when_torch_asks_for_some(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    run.config_file.unlink()  # its rank is to end at once
    assert said(FORK, str(run.root)) == "2 True None"
