"""W&B and TensorBoard hold what metrics.jsonl holds, whatever happened to them; real processes and W&B's own reader."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from rl.core.rundir import RunDir, name_of
from tests.observe.recorded import evaluation, fill_ledger, log_evaluation, new_run, step_record

LIMIT_S = 200
KEY = "0123456789abcdef" * 2 + "01234567"


def record(run: RunDir, steps: range) -> None:
    for step in steps:
        run.log(kind="publish", step=step, policy="p", sha256="ab", modules=28, logprob_gap=1e-7)
        run.log(**step_record(step, reward=step / 10))
        if step % 2 == 0:
            log_evaluation(run, evaluation(step, {"3+4": 2, "1+6": step % 4}))
            log_evaluation(run, evaluation(step, {"2+5": 1}, set="gsm8k@test"))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """Six steps of a run that evaluates every second; its ledger has ten."""
    run = new_run(tmp_path / "run", "--eval-every", "2", "--wandb-group", "pairs", "--wandb-tags", "one, two")
    fill_ledger(run, [(rf"\boxed{{7}} {i}", f"lost {i}") for i in range(20)])
    record(run, range(1, 7))
    return run


def environment(run: RunDir, **more: str) -> dict[str, str]:
    """Without a key, wherever one may be."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return clean | {"HOME": str(run.root.parent), "NETRC": str(run.root.parent / "netrc")} | more


def sync(run: RunDir, *flags: str, **env: str) -> str:
    command = [sys.executable, "-m", "rl.sync", str(run.root), *flags]
    answer = subprocess.run(
        command, env=environment(run, **env), capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def wandb_records(run: RunDir, kind: str) -> list[dict[str, Any]]:
    """Of all files of the run, oldest first, as W&B's reader prints them."""
    found = []
    for path in sorted(run.wandb.glob("offline-run-*")):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_S).stdout.splitlines()
        found += [line[kind] for line in map(json.loads, lines) if line["type"] == kind]
    return found


def table_rows(run: RunDir, row: dict[str, Any], name: str) -> list[list[Any]]:
    path, *_ = run.wandb.glob(f"offline-run-*/files/{row[f'{name}.path']}")  # one more where its writer was killed
    return list(json.loads(path.read_text())["data"])


def assert_holds_everything(run: RunDir) -> None:
    """Each record once, with its numbers, and the tables of evaluations and completions."""
    rows = [history["item"] for history in wandb_records(run, "history")]
    numbers = Counter(row.get("_step", 0) for row in rows)
    lines = run.metrics_file.read_text().splitlines()
    assert numbers == Counter(range(len(lines) + 1))
    by_number = {row.get("_step", 0): row for row in rows}
    assert len(table_rows(run, by_number[0], "metrics")) > 30
    for number, line in enumerate(lines, start=1):
        record, row = json.loads(line), by_number[number]
        assert row["step"] == record["step"]
        if record["kind"] == "step":
            assert row["train/reward"] == record["reward"]
            assert row["sampler/no_signal"] == record["no_signal"]
            assert row["time/step_s"] == record["step_s"]
        if record["kind"] == "step" and (record["step"] == 1 or record["step"] % 2 == 0):
            completions = table_rows(run, row, "completions")
            assert [line[0] for line in completions] == [record["step"]] * 4
            assert {line[5] for line in completions} == {"right", "wrong"}
        if record["kind"] == "publish":
            assert row["publish/logprob_gap"] == record["logprob_gap"]
        if record["kind"] == "eval":
            place = f"eval/{record['set']}"
            for end, key in (("value", ""), ("low", "/low"), ("high", "/high")):
                assert row[f"{place}/pass@1{key}"] == record["summary"]["pass@1"][end]
            assert len(table_rows(run, row, f"{place}/questions")) == row[f"{place}/questions.nrows"]


def test_wandb_offline_holds_what_the_metrics_hold_and_a_second_sync_adds_nothing(run: RunDir) -> None:
    assert f"wandb sync {run.wandb}/offline-run-" in sync(run)
    assert_holds_everything(run)
    (begun,) = wandb_records(run, "run")
    assert begun["run_group"] == "pairs"
    assert begun["tags"] == ["one", "two"]
    assert begun["config"]["update"]["sources"]["wandb_group"] == "flag"
    metrics = {metric["glob_name"]: metric["step_metric"] for metric in wandb_records(run, "metric")[1:]}
    assert metrics["train/*"] == metrics["eval/*"] == "step"

    assert len(sync(run).split("wandb sync")[1].split()) == 1
    assert_holds_everything(run)


def test_the_adapter_is_stored_once_where_that_is_asked_for(run: RunDir) -> None:
    folder = run.checkpoints / name_of(6)
    folder.mkdir()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (folder / name).write_text(name)
    config = json.loads(run.config_file.read_text())
    config["config"]["wandb_adapter"] = True
    run.config_file.write_text(json.dumps(config))
    for _ in range(2):
        sync(run)
    (adapter,) = [artifact for artifact in wandb_records(run, "artifact") if artifact["type"] == "model"]
    assert name_of(6) in adapter["aliases"]
    assert len(adapter["manifest"]["contents"]) == 2


def test_wandb_off_writes_nothing(run: RunDir) -> None:
    assert "no tracker" in sync(run, "--wandb", "off")
    assert not run.wandb.exists()


def test_nothing_is_missing_after_the_tracker_and_wandb_core_were_killed(run: RunDir) -> None:
    tracker = subprocess.Popen([sys.executable, "-m", "rl.observe", str(run.root)], env=environment(run))
    try:
        wait_until(lambda: any(run.wandb.glob("*/run-*.wandb")), tracker)
        record(run, range(7, 9))
        wait_until(lambda: len(wandb_records(run, "history")) > 3, tracker)
        for child in psutil.Process(tracker.pid).children(recursive=True):
            child.kill()
    finally:
        tracker.kill()
    assert tracker.wait() in (-signal.SIGKILL, 1)  # by us, or because W&B's service had gone
    record(run, range(9, 11))
    sync(run)
    assert_holds_everything(run)
    ids = {begun["run_id"] for begun in wandb_records(run, "run")}
    assert len(ids) == 1


def test_an_unreachable_server_leaves_the_run_in_files(run: RunDir) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, and nobody listens
        said = sync(run, WANDB_BASE_URL=f"http://127.0.0.1:{closed.getsockname()[1]}", WANDB_API_KEY=KEY)
    assert "cannot be reached" in said
    assert "wandb sync" in said
    assert_holds_everything(run)


def test_a_wrong_key_leaves_the_run_in_files(run: RunDir, refusing_server: str) -> None:
    said = sync(run, WANDB_BASE_URL=refusing_server, WANDB_API_KEY=KEY)
    assert "not everything is uploaded" in said
    assert_holds_everything(run)


def test_a_tracker_that_is_asked_to_end_writes_the_rest(run: RunDir) -> None:
    tracker = subprocess.Popen(
        [sys.executable, "-m", "rl.observe", str(run.root)],
        env=environment(run),
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: any(run.wandb.glob("*/run-*.wandb")), tracker)
    run.log(**step_record(7))
    tracker.terminate()
    out, _ = tracker.communicate(timeout=LIMIT_S)
    assert tracker.returncode == 0
    assert "wandb sync" in out
    assert_holds_everything(run)


def test_tensorboard_holds_every_step_once(run: RunDir) -> None:
    config = json.loads(run.config_file.read_text())
    config["config"] |= {"tensorboard": True, "wandb": "off"}
    run.config_file.write_text(json.dumps(config))
    for _ in range(2):
        assert "TensorBoard" in sync(run)
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    found: dict[str, list[int]] = {}
    for path in run.tensorboard.iterdir():
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    assert found["train/reward"] == list(range(1, 7))
    assert found["eval/gsm8k@test/pass@1"] == [2, 4, 6]
    assert found["publish/logprob_gap"] == list(range(1, 7))
    assert "config" in found


@pytest.fixture
def refusing_server() -> Iterator[str]:
    """It knows no key: every request is answered with 401."""

    class Refuse(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_HEAD

        def log_message(self, format: str, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Refuse)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def wait_until(condition: Any, tracker: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert tracker.poll() is None, "the tracker ended"
        assert time.monotonic() < end
        time.sleep(0.1)
