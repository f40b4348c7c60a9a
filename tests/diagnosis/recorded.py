"""The recorded runs of the campaign, as run directories again."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from rl.core.rundir import RunDir
from rl.evaluate.result import EvalResult
from rl.observe.findings import Groups
from rl.study.runs import StudyRun, read_run

LOGS = Path(__file__).parent / "logs"


@dataclass(frozen=True)
class Recorded:
    run: StudyRun
    groups: Groups


def recorded(name: str, folder: Path, logs: Path = LOGS) -> Recorded:
    """A run as it was when it ended.

    Args:
        folder: where its directory is made.
    """
    kept: dict[str, Any] = json.loads(gzip.decompress((logs / f"{name}.json.gz").read_bytes()))
    run = RunDir(folder / name)
    run.root.mkdir()
    run.config_file.write_text(json.dumps(kept["config"]))
    run.metrics_file.write_text("".join(f"{json.dumps(record)}\n" for record in kept["records"]))
    for values in kept["evals"]:
        result = msgspec.convert(values, EvalResult)
        path = run.eval_file(result.set, result.step)
        path.parent.mkdir(parents=True, exist_ok=True)
        result.save(path)
    return Recorded(read_run(run.root, name), Groups(**kept["groups"]))
