"""`python -m tests.diagnosis.campaign --out DIR`: breaks runs in every way of `cases`, makes healthy ones, and keeps of
each what the rules read.

All runs share one rollout server. A run that makes no step for long is interrupted as a user would: that is the fault.
"""

import argparse
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from rl.core.config import TrainConfig
from rl.core.processes import Children
from rl.core.rundir import RunDir
from rl.evaluate.result import load_sets
from rl.launch.server import check_servers, listen, start_server, url_of
from rl.observe.diagnosis import groups_of
from rl.observe.findings import Groups
from tests.diagnosis.cases import CASES, COMMON, Case, problem_files

LOGS = Path(__file__).parent / "logs"
LIMIT_S = 900.0
"""For one run on a busy machine."""
QUIET_S = 75.0
"""Without a record a run stands still: most of ours make a step a second."""


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.diagnosis.campaign", description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="where the runs go; those that ended are not made again"
    )
    parser.add_argument("--logs", type=Path, default=LOGS, help="where what is kept of them goes")
    parser.add_argument("--only", nargs="*", help="these cases")
    parser.add_argument("--parallel", type=int, default=2, help="runs at a time")
    args = parser.parse_args(argv)
    for folder in (args.out, args.logs):
        folder.mkdir(parents=True, exist_ok=True)
    files = problem_files(args.out)
    wanted = [case for case in CASES if not args.only or case.name in args.only]
    cases = [replace(case, flags=tuple(flag.format(**files) for flag in case.flags)) for case in wanted]
    todo = [case for case in cases if not _ending(args.out, case).exists()]
    Random(0).shuffle(todo)  # kinds in turn, so that half a campaign is one, too
    if todo:
        _make(todo, args.out, args.parallel)
    for case in cases:
        _keep(RunDir(args.out / case.name), args.logs / f"{case.name}.json.gz")
    print(f"{len(cases)} logs in {args.logs}; next: python -m pytest -q tests/diagnosis")


def _make(cases: Sequence[Case], out: Path, parallel: int) -> None:
    with Children() as children, listen(0) as listener, ThreadPoolExecutor(parallel) as threads:
        children.add(start_server(TrainConfig(), listener, out / "server.log", {"OMP_NUM_THREADS": "1"}))
        check_servers([url_of(listener)])
        for case, said in zip(cases, threads.map(lambda case: _run(case, out, url_of(listener)), cases), strict=True):
            print(f"{case.name:28} {case.kind or 'healthy':24} {said}", flush=True)


def _ending(out: Path, case: Case) -> Path:
    """The file that says how a run ended; while there is none, it has not."""
    return out / f"{case.name}.end"


def _run(case: Case, out: Path, url: str) -> str:
    root = out / case.name
    command = [sys.executable, "-m", "rl.train", *COMMON, *case.flags, "--wandb", "off", "--server-url", url]
    command += ["--run-dir", str(root), *(["--overwrite"] if root.exists() else [])]
    start = time.monotonic()
    with (out / f"{case.name}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        ended = _wait(process, RunDir(root).metrics_file)
    said = f"{ended}, {time.monotonic() - start:.0f} s"
    _ending(out, case).write_text(said)
    return said


def _wait(process: "subprocess.Popen[bytes]", metrics: Path) -> str:
    """How the run ended; by an interrupt, and a second one, where it stands still."""
    start = changed = time.monotonic()
    size = 0
    while process.poll() is None:
        time.sleep(0.5)
        now = time.monotonic()
        if metrics.exists() and metrics.stat().st_size > size:
            size, changed = metrics.stat().st_size, now
        if now - start > LIMIT_S or (size and now - changed > QUIET_S):
            for _ in range(2):
                os.kill(process.pid, signal.SIGINT)
                time.sleep(1)
            process.wait(60)
            return "interrupted as it stood still"
    return f"exit code {process.returncode}"


def _keep(run: RunDir, path: Path) -> None:
    """What the rules read: configuration, records, evaluations, and how many groups are in each state."""
    evals = [msgspec.to_builtins(result) for results in load_sets(run.evals).values() for result in results]
    for result in evals:
        for question in result["questions"]:
            for name in ("rules", "compared", "verify_seconds"):
                question[name] = []
    kept: dict[str, Any] = {
        "config": json.loads(run.config_file.read_text()),
        "records": [_rounded(record) for record in run.records() if record["kind"] in ("step", "eval", "publish")],
        "evals": evals,
        "groups": asdict(groups_of(run) or Groups(counts={})),
    }
    path.write_bytes(gzip.compress(json.dumps(kept).encode(), mtime=0))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(of_name) for name, of_name in value.items() if name not in ("sha256", "time", "policy")}
    return float(f"{value:.5g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main(sys.argv[1:])
