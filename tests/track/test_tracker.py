"""W&B and TensorBoard hold what metrics.jsonl holds, whatever happened to them; real processes and W&B's own reader."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from rl.core.rundir import RunDir, name_of
from tests.observe.recorded import evaluation, fill_ledger, log_evaluation, new_run, step_record
from tests.track.synced import LIMIT_S, assert_holds_everything, environment, found_in_wandb, sync
from tests.track.wandb_server import Cloud, cloud

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


def test_wandb_offline_holds_what_the_metrics_hold_and_a_second_sync_adds_nothing(run: RunDir) -> None:
    assert f"wandb sync {run.wandb}\n" in sync(run)
    sync(run)
    found = assert_holds_everything(run)
    (begun,) = found["run"]
    assert begun["run_group"] == "pairs"
    assert begun["tags"] == ["one", "two"]
    assert begun["config"]["update"]["sources"]["wandb_group"] == "flag"
    metrics = {metric["glob_name"]: metric["step_metric"] for metric in found["metric"][1:]}
    assert metrics["train/*"] == metrics["eval/*"] == "step"
    assert len(list(run.wandb.glob("offline-run-*"))) == 1


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
    (adapter,) = [artifact for artifact in found_in_wandb(run)["artifact"] if artifact["type"] == "model"]
    assert name_of(6) in adapter["aliases"]
    assert len(adapter["manifest"]["contents"]) == 2


def test_wandb_off_writes_nothing(run: RunDir) -> None:
    assert "no tracker" in sync(run, "--wandb", "off")
    assert not run.wandb.exists()


def test_nothing_is_missing_after_the_tracker_and_wandb_core_were_killed(run: RunDir) -> None:
    with follow(run) as tracker:
        wait_until(lambda: any(run.wandb.glob("*/run-*.wandb")), tracker)
        begun = size_of(run)
        record(run, range(7, 9))
        wait_until(lambda: size_of(run) > begun, tracker)
        for process in [*psutil.Process(tracker.pid).children(recursive=True), tracker]:
            process.kill()
    assert tracker.returncode in (-signal.SIGKILL, 1)  # by us, or because W&B's service had gone
    record(run, range(9, 11))
    sync(run)
    assert_holds_everything(run)


def test_an_unreachable_server_leaves_the_run_in_files(run: RunDir) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, and nobody listens
        said = sync(run, WANDB_BASE_URL=f"http://127.0.0.1:{closed.getsockname()[1]}", WANDB_API_KEY=KEY)
    assert "cannot be reached" in said
    assert "wandb sync" in said
    assert_holds_everything(run)


def online(server: Cloud) -> dict[str, str]:
    return {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}


def test_a_wrong_key_leaves_the_run_in_files(run: RunDir) -> None:
    with cloud(refuses="graphql") as server:
        assert f"python -m rl.sync {run.root}" in sync(run, code=3, **online(server))
    assert_holds_everything(run)


def test_what_the_server_refused_is_not_taken_for_uploaded(run: RunDir) -> None:
    with cloud(refuses="file_stream") as server:
        assert "did not take everything" in sync(run, code=3, **online(server))
        assert not server.rows
    assert any(run.wandb.glob("logs/debug-sync.*")), "what W&B leaves behind is in the run's directory"
    with cloud() as server:
        assert f"everything is uploaded {server.url}/me/tally/runs/" in sync(run, **online(server))
        assert_uploaded(run, server)


def assert_uploaded(run: RunDir, server: Cloud) -> None:
    """All rows of the files are at the server once, in their order, and all tables."""
    rows = [history["item"] for history in assert_holds_everything(run)["history"]]
    assert [row["_step"] for _, row in sorted(server.rows.items())] == [row.get("_step", 0) for row in rows]
    tables = {value for row in rows for name, value in row.items() if name.endswith(".path")}
    assert tables | {"config.json", "provenance.json", "code.diff"} <= server.files


def test_a_resumed_run_goes_on_in_the_same_run_of_wandb_online(run: RunDir) -> None:
    with cloud() as server:
        for launch, steps in ((1, range(7, 8)), (2, range(7, 9))):  # 7 again, as after a kill
            tracker = follow(run, **online(server))
            record(run, steps)
            n = len(run.metrics_file.read_text().splitlines())
            wait_until(lambda n=n: len(server.rows) == n + 1, tracker)  # while the run goes on
            tracker.terminate()
            _, said = tracker.communicate(timeout=LIMIT_S)
            assert tracker.returncode == 0
            assert "everything is uploaded" in said
            assert server.ended == launch
        assert_uploaded(run, server)


def test_settings_that_wandb_does_not_take_are_said_in_a_sentence(run: RunDir, tmp_path: Path) -> None:
    assert "valid URL" in sync(run, code=2, WANDB_BASE_URL="nonsense")
    slashed = new_run(tmp_path / "slashed", "--wandb-project", "a/b")
    slashed.log(**step_record(1))
    assert "cannot contain characters" in sync(slashed, code=2)


def test_files_that_cannot_be_read_back_are_not_written_again(run: RunDir) -> None:
    sync(run)
    (lost,) = run.wandb.glob("offline-run-*/run-*.wandb")
    lost.rename(run.root / "elsewhere")
    lost.symlink_to(run.root / "nowhere")
    assert "cannot read its own file" in sync(run, code=3)
    assert len(list(run.wandb.glob("offline-run-*"))) == 1


def test_a_tracker_that_is_asked_to_end_writes_the_rest(run: RunDir) -> None:
    tracker = follow(run)
    wait_until(lambda: any(run.wandb.glob("*/run-*.wandb")), tracker)
    run.log(**step_record(7))
    tracker.terminate()
    _, said = tracker.communicate(timeout=LIMIT_S)
    assert tracker.returncode == 0
    assert "wandb sync" in said
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
    assert found["train/reward"] == found["age/3/ess"] == list(range(1, 7))
    assert found["eval/gsm8k@test/pass@1"] == [2, 4, 6]
    assert found["publish/logprob_gap"] == list(range(1, 7))
    assert "config" in found


def size_of(run: RunDir) -> int:
    """Bytes of the run's W&B files."""
    return sum(path.stat().st_size for path in run.wandb.glob("offline-run-*/run-*.wandb"))


def follow(run: RunDir, **env: str) -> "subprocess.Popen[str]":
    """The tracker's process, as a run starts it."""
    command = [sys.executable, "-m", "rl.track", str(run.root)]
    return subprocess.Popen(command, env=environment(run, **env), stderr=subprocess.PIPE, text=True)


def wait_until(condition: Callable[[], bool], tracker: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert tracker.poll() is None, "the tracker ended"
        assert time.monotonic() < end
        time.sleep(0.1)
