"""What the nursery imports for the workers."""

import subprocess
import sys

SCRIPT = """
import importlib
import torch

asked = []
for name in ("is_available", "device_count", "_lazy_init"):
    setattr(torch.cuda, name, lambda name=name: asked.append(name))
from rl.launch.crew import PRELOAD
for module in PRELOAD:
    importlib.import_module(module)
print(asked)
"""


def test_it_leaves_cuda_to_the_forks() -> None:
    """CUDA that is started before a fork does not work after it."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
