"""A run from end to end: samples a second, what each part waits for, and what each process takes."""

import json
import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from math import fsum
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from rl.buffer.history import History
from rl.buffer.tables import State
from rl.core.config import TrainConfig
from rl.core.errors import TallyError
from rl.core.rundir import RunDir
from rl.launch.rollouts import begin_run
from rl.launch.server import listen
from rl.measure.memory import Watch
from rl.measure.work import Figures, quantiles

WARM_UP = 5
"""Steps that are not counted: the first ones find an empty buffer, and are beside the first evaluation."""
LOOK_S = 0.05
TAIL = 2**14
"""Bytes of the metrics file in which the last step's record is looked for."""


class Runs:
    """Makes runs of one configuration, one after the other.

    Args:
        given: the settings that differ from the defaults.
        name: of the runs in the folder, each with its number.
    """

    def __init__(self, config: TrainConfig, given: Mapping[str, Any], folder: Path, name: str) -> None:
        self._config, self._given, self._folder, self._name = config, given, folder, name
        self._made = 0

    def make(self, **changed: Any) -> tuple[RunDir, Figures]:
        """One with these settings changed. Returns and raises as `run_once`."""
        self._made += 1
        config, given = self._config.model_copy(update=changed), {**self._given, **changed}
        return run_once(config, given, self._folder, f"{self._name}-{self._made}")


def run_once(config: TrainConfig, given: Mapping[str, Any], folder: Path, name: str) -> tuple[RunDir, Figures]:
    """Makes a run of the configuration as a user would, and says what it did after the warm-up.

    Args:
        given: the settings that differ from the defaults.

    Raises:
        TallyError: the run failed; stderr and its log in `folder` say why.
    """
    run, log = RunDir(folder / name), folder / f"{name}.log"
    last = config.steps - 1  # after the last one the samplers stop
    with listen(0) as listener:
        port = listener.getsockname()[1]
    settings = {**given, "steps": config.steps, "save_every": config.steps, "eval_every": config.steps}
    with begin_run(run.root, settings, log, f"--port={port}") as process:
        try:
            with Watch(process.pid) as watch:
                _wait_for(run, WARM_UP, process)
                begin, cpu_begin, sampled_begin = time.monotonic(), watch.cpu_s(), _sampled_s(port)
                _wait_for(run, last, process)
                seconds = time.monotonic() - begin
                cpu, sampled_s, grown = watch.cpu_s(), _sampled_s(port) - sampled_begin, watch.grown_bytes(begin)
                process.wait()
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise TallyError(f"the measured run ended with exit code {process.returncode}", fix=f"see {log}")
    busy = {role: (cpu[role] - cpu_begin.get(role, 0.0)) / seconds for role in cpu}
    figures = _of_records(run, config, last)
    figures["idle"] |= {"sampler": max(0.0, 1 - sampled_s / seconds)}  # the clocks are two processes'
    return run, figures | {"cpu_cores": busy, "peak_memory_bytes": watch.peak_bytes, "grown_bytes": grown}


def _wait_for(run: RunDir, step: int, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None and _steps(run) < step:
        time.sleep(LOOK_S)


def _steps(run: RunDir) -> int:
    """So many are made, at the least: a look at all records would take a share of the cores that are measured."""
    if not run.metrics_file.exists():
        return 0
    with run.metrics_file.open("rb") as file:
        begin = max(0, file.seek(0, os.SEEK_END) - TAIL)
        file.seek(begin)
        lines = file.read().split(b"\n")[bool(begin) : -1]  # whole ones
    records = map(json.loads, lines)
    return max((record["step"] for record in records if record["kind"] == "step"), default=0)


def _sampled_s(port: int) -> float:
    """Seconds in which the server has sampled for the run; 0 once it has ended."""
    try:
        page = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
    except httpx.TransportError:
        return 0.0
    families = {family.name: family for family in text_string_to_metric_families(page)}
    samples = families["tally_server_sampled_seconds"].samples
    return next(sample.value for sample in samples if sample.labels["by"] == "wire")


def _of_records(run: RunDir, config: TrainConfig, last: int) -> Figures:
    """What the run says of its steps after the warm-up. The learner waits for samples; it is idle while it trains
    nothing, be it for want of samples or until its last version is proved.

    A sample counts once it was sampled and verified and had its turn, whether its group had signal and was trained on
    or not: that is what a trainer that knows no such difference counts.
    """
    records = [record for record in run.records() if record["kind"] == "step" and record["step"] <= last]
    seconds = (_time(records[-1]) - _time(records[WARM_UP - 1])).total_seconds()
    with closing(History(run.buffer_url)) as history:
        rows = history.books().rows
    ends = {step: max(row.id for row in rows if row.step == step) for step in (WARM_UP, last)}
    turned = [row for row in rows if ends[WARM_UP] < row.id <= ends[last] and row.state != State.EXPIRED]
    counted = records[WARM_UP:]
    waited, trained, passed = (fsum(record[name] for record in counted) for name in ("wait_s", "train_s", "step_s"))
    return {
        "samples_per_s": sum(row.samples or 0 for row in turned) / seconds,
        "trained_samples_per_s": len(counted) * config.batch / seconds,
        "tokens_per_s": sum(row.tokens or 0 for row in turned) / seconds,
        "steps_per_hour": 3600 * len(counted) / seconds,
        "steps": len(counted),
        "learner_waits": waited / passed,
        "idle": {"learner": 1 - trained / passed},
        "publish": quantiles([record["publish_s"] for record in counted]),
    }


def _time(record: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(record["time"])
