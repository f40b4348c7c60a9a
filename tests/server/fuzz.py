"""python -m tests.server.fuzz: whatever /openapi.json allows, and what it does not, is asked of a real server.

schemathesis makes up requests and sequences of them, and checks that none is answered by a 5xx (but a 503 that is
described), that what breaks the schema is refused, that answers are what the schema says, and that nothing is served
without the key. Deterministic, but for the times. Exit code 1: it found something, which is printed.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from rl.problems.starter import STARTER_MODEL
from rollout_server.engines.scripted import FACTS
from tests.server.hostile import Corpus

KEY = "a-key-for-the-fuzzer"
EXCLUDED = "positive_data_acceptance"
"""A schema cannot say what a model can do: the length of its context, its tokens, the versions that are served."""


def fuzz(folder: Path, *, examples: int, vllm: bool = False) -> dict[str, Any]:
    """schemathesis's report, with what it printed. Args: examples: of each operation, in each of its phases."""
    from rollout_server.engines.vllm_load import Options, _linear_shapes

    shapes = _linear_shapes(Options(model=str(STARTER_MODEL))) if vllm else FACTS.linear_shapes
    layers = {name: shape for name, shape in shapes.items() if "layers" in name}
    (folder / "adapter").write_bytes(Corpus(layers).sound())
    server = ["--model", str(STARTER_MODEL), "--cpu-cache", "0.1"] if vllm else ["--engine", "scripted"]
    environment = os.environ | {"TALLY_API_KEY": KEY}
    with socket.create_server(("127.0.0.1", 0)) as listener, (folder / "server.log").open("w") as log:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = [sys.executable, "-m", "rollout_server", "--fd", str(listener.fileno()), *server]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()], env=environment, stderr=log)
        try:
            while httpx.get(f"{url}/ready", timeout=300).status_code != 200:
                time.sleep(0.1)
            model = STARTER_MODEL.name if vllm else "scripted"
            report = _schemathesis(url, folder, model, examples)
            headers = {"authorization": f"Bearer {KEY}"}
            report["answered"] = _answered(httpx.get(f"{url}/metrics", headers=headers).text)
            report["alive"] = process.poll() is None and httpx.get(f"{url}/ready").status_code == 200
        finally:
            process.terminate()
            process.wait(60)
    return report


def _schemathesis(url: str, folder: Path, model: str, examples: int) -> dict[str, Any]:
    hooks = {"SCHEMATHESIS_HOOKS": "tests.server.fuzz_hooks", "PYTHONPATH": str(Path(__file__).parents[2])}
    hooks |= {"FUZZ_MODEL": model, "FUZZ_ADAPTER": str(folder / "adapter")}
    command = [
        *(Path(sys.executable).parent / "schemathesis", "run", f"{url}/openapi.json"),
        *("--header", f"Authorization: Bearer {KEY}", "--max-examples", str(examples), "--workers", "1"),
        *("--seed", "1", "--checks", "all", "--exclude-checks", EXCLUDED, "--generation-database", "none"),
        *("--report", "json", "--report-json-path", folder / "report.json"),
    ]
    done = subprocess.run(
        command, env=os.environ | hooks, cwd=folder, capture_output=True, text=True, timeout=3600, check=False
    )
    report = json.loads((folder / "report.json").read_text()) if (folder / "report.json").exists() else {}
    return report | {"printed": done.stdout + done.stderr}


def _answered(metrics: str) -> dict[tuple[str, str], int]:
    """Requests by path and status."""
    families = {family.name: family for family in text_string_to_metric_families(metrics)}
    samples = families["tally_server_requests"].samples
    return {
        (sample.labels["path"], sample.labels["status"]): int(sample.value)
        for sample in samples
        if sample.name.endswith("_total")
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.server.fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=200, help="of each operation, in each phase")
    parser.add_argument("--vllm", action="store_true", help="ask real vLLM, with the starter model")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = fuzz(Path(folder), examples=args.examples, vllm=args.vllm)
    print(report["printed"])
    for (path, status), count in sorted(report["answered"].items()):
        print(f"{count:6} {status} {path}")
    sys.exit(0 if report.get("exit_code") == 0 and report["alive"] else 1)


if __name__ == "__main__":
    main()
