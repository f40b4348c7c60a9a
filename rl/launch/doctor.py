"""Whether a run can start on this machine: one finding for each thing that a run needs, with how to mend it."""

import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from rich.console import Console
from rich.text import Text

from rl.core.config import TrainConfig

NETWORK_S = 3.0
"""For each of connecting, sending and receiving."""
LOOK_UP_S = 60.0
"""For all of it: a name server that is silent has limits of its own, and the probe has to start."""
IMPORT_S = 200.0
CHECK_S = 180.0
"""For reading model and problems, where they may have to be looked up."""
GB = 1e9
FEW_GB_OF_DISK, FEW_GB_OF_MEMORY, FEW_GB_OF_SHARED_MEMORY = 5.0, 4.0, 0.25
OLDEST_PYTHON = (3, 11)


class State(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """A run can start, but something will not be as one may think."""
    WRONG = "wrong"


STYLES = {State.OK: "green", State.WARNING: "yellow", State.WRONG: "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    state: State
    text: str
    fix: str = ""
    exit_code: int = 3
    """Of the doctor, where this is wrong."""


def findings(config: TrainConfig, argv: Sequence[str], folder: Path, port: int) -> Iterator[Finding]:
    """All findings, in a fixed order, as they come; they are looked for at the same time.

    Args:
        argv: the flags that `rl.train` would be given.
        folder: where the run's files would go.
        port: of the server; 0 for a free one.
    """
    looks: list[Callable[[], Finding]] = [
        _python,
        _torch,
        _vllm,
        _memory,
        lambda: _disk(folder),
        _shared_memory,
        lambda: _port(port),
        lambda: _wandb(config),
        _hub,
        lambda: _model_and_problems(argv),
    ]
    with ThreadPoolExecutor(len(looks)) as pool:
        for answer in [pool.submit(look) for look in looks]:
            yield answer.result()


def report(found: Iterable[Finding]) -> int:
    """Prints findings as they come; returns the exit code: 0 where a run can start."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    wrong = []
    for finding in found:
        state = (f"{finding.state.value:8}", STYLES[finding.state])
        console.print(Text.assemble(state, f"{finding.what:12}{finding.text}"))
        if finding.state is not State.OK:
            console.print(Text(f"{'':20}fix: {finding.fix}", style="dim"))
        if finding.state is State.WRONG:
            wrong.append(finding)
    console.print(f"a run cannot start: {', '.join(f.what for f in wrong)}" if wrong else "a run can start")
    return max((finding.exit_code for finding in wrong), default=0)


def _python() -> Finding:
    text = f"{platform.python_version()} on {platform.system()}, {os.cpu_count()} cores"
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Finding("Python", State.WRONG, text, "install Python 3.11 or newer, then ./setup.sh")
    if platform.system() != "Linux":
        return Finding("Python", State.WARNING, text, "Tally is made and tested on Linux")
    return Finding("Python", State.OK, text)


def _torch() -> Finding:
    found, error = _probe("torch")
    if found is None:
        return Finding("torch", State.WRONG, error, "./setup.sh installs the locked versions")
    text = f"{found['version']}"
    there = _nvidia_smi()
    if found["gpus"]:
        gpus = (f"{gpu['name']} ({gpu['free'] / GB:.0f} of {gpu['total'] / GB:.0f} GB free)" for gpu in found["gpus"])
        return Finding("torch", State.OK, f"{text}, CUDA {found['cuda']}: {', '.join(gpus)}")
    if there and found["cuda"] is None:
        return Finding("torch", State.WARNING, f"{text} cannot use {there}", "BACKEND=cuda ./setup.sh")
    if there:
        fix = f"a driver that is new enough for CUDA {found['cuda']}, or CUDA_VISIBLE_DEVICES that names a GPU"
        return Finding("torch", State.WARNING, f"{text} finds no GPU, but there is {there}", fix)
    return Finding("torch", State.OK, f"{text}, no NVIDIA GPU: a run uses the CPU")


def _vllm() -> Finding:
    found, error = _probe("vllm")
    if found is None:
        return Finding("vLLM", State.WRONG, error, "./setup.sh; on a slim image also: apt-get install libnuma1")
    return Finding("vLLM", State.OK, f"{found['version']} for {found['device']}")


def _memory() -> Finding:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return Finding("memory", State.WARNING, "not known here", "a run needs some gigabytes")
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    if limit.exists() and (most := limit.read_text().strip()).isdigit():
        available = min(available, int(most) - int(limit.with_name("memory.current").read_text()))
    fix = "end other programs, or give the container more memory; a run of the embedded default takes about 3 GB"
    return _enough("memory", available, FEW_GB_OF_MEMORY, "available", fix)


def _disk(folder: Path) -> Finding:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    if not os.access(there, os.W_OK):
        return Finding("disk", State.WRONG, f"{there} cannot be written", "take another --run-dir", exit_code=2)
    fix = "make room, or take a --run-dir on another disk"
    return _enough("disk", shutil.disk_usage(there).free, FEW_GB_OF_DISK, f"free at {there}", fix)


def _shared_memory() -> Finding:
    shm = Path("/dev/shm")
    if not shm.is_dir():
        return Finding("/dev/shm", State.WARNING, "missing", "mount it: vLLM and DDP over several GPUs need it")
    fix = "give a container more of it: docker run --shm-size 8g, or shm_size in the compose file"
    return _enough("/dev/shm", shutil.disk_usage(shm).free, FEW_GB_OF_SHARED_MEMORY, "free", fix)


def _enough(what: str, size: float, few_gb: float, where: str, fix: str) -> Finding:
    text = f"{size / GB:.1f} GB {where}"
    return Finding(what, State.OK, text) if size >= few_gb * GB else Finding(what, State.WARNING, text, fix)


def _port(port: int) -> Finding:
    try:
        with socket.create_server(("127.0.0.1", port)) as listener:
            number = listener.getsockname()[1]
    except (OSError, OverflowError) as error:
        fix = "take another --port, or leave it out for a free one"
        return Finding("port", State.WRONG, f"cannot listen on 127.0.0.1:{port}: {error}", fix, exit_code=2)
    return Finding("port", State.OK, f"127.0.0.1:{number} can be listened on")


def _wandb(config: TrainConfig) -> Finding:
    if config.wandb in ("off", "offline"):
        return Finding("W&B", State.OK, f"{config.wandb}, as --wandb says")
    found, error = _probe("wandb")
    if found is None:
        return Finding("W&B", State.WARNING, error, "./setup.sh, or --wandb off")
    if not found["key"]:
        text = f"{found['version']}, no key: runs are kept offline and can be sent later"
        return Finding("W&B", State.WARNING, text, "wandb login, or set WANDB_API_KEY; --wandb off to do without")
    if error := _unreachable(found["url"]):
        text = f"{found['version']} with a key, {error}: runs are kept offline and can be sent later"
        return Finding("W&B", State.WARNING, text, "python -m rl.sync RUN, once there is a network")
    return Finding("W&B", State.OK, f"{found['version']} with a key, {found['url']} is reachable")


def _hub() -> Finding:
    found, error = _probe("hub")
    if found is None:
        return Finding("hub", State.WARNING, error, "./setup.sh")
    cache = f"cache {found['cache']}"
    fix = "models from a folder or the cache, problems from files or --data-dir; the embedded default needs no hub"
    if found["offline"]:
        return Finding("hub", State.WARNING, f"switched off by HF_HUB_OFFLINE; {cache}", fix)
    if error := _unreachable(found["url"]):
        return Finding("hub", State.WARNING, f"{error}; {cache}", fix)
    return Finding("hub", State.OK, f"{found['url']} is reachable; {cache}")


def _model_and_problems(argv: Sequence[str]) -> Finding:
    what = "model, data"
    command = [sys.executable, "-m", "rl.train", "--dry-run", *argv]
    try:
        dry = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_S, check=False)
    except subprocess.TimeoutExpired:
        text = f"not read after {CHECK_S:.0f} s"
        return Finding(what, State.WARNING, text, f"python -m rl.train --dry-run {' '.join(argv)}".strip())
    if dry.returncode == 0:
        return Finding(what, State.OK, dry.stdout.rstrip().rpartition("\n")[2])
    message, _, fix = dry.stderr.rpartition("error: ")[2].strip().partition("\n  fix: ")
    return Finding(what, State.WRONG, message, fix, exit_code=dry.returncode)


def _probe(*arguments: str, limit_s: float = IMPORT_S) -> tuple[dict[str, Any] | None, str]:
    """(what a probe found, why it found nothing), from a process of its own: this one stays light."""
    command = [sys.executable, "-W", "ignore", "-m", "rl.launch.probe", *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return None, f"no answer in {limit_s:.0f} s"
    if answer.returncode != 0:
        return None, (answer.stderr.strip().splitlines() or [f"ended with {answer.returncode}"])[-1]
    return msgspec.json.decode(answer.stdout.strip().rpartition("\n")[2]), ""


def _nvidia_smi() -> str:
    """The GPUs that the driver knows, empty without one."""
    try:
        command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return "; ".join(answer.stdout.split("\n")).strip("; ")


def _unreachable(url: str) -> str:
    """Why a URL does not answer; empty where it does."""
    found, error = _probe("reach", url, str(NETWORK_S), limit_s=LOOK_UP_S)
    reason = error if found is None else found["error"]
    return f"{urlsplit(url).hostname} is not reachable ({reason})" if reason else ""
