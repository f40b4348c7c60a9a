"""A run directory is read as it is left: by a crash, a full disk, or another version."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from tests.observe.recorded import new_run, step_record

ASK = """
import sys
from pathlib import Path
from rl.core.rundir import RunDir
print(RunDir(Path(sys.argv[1])).in_progress)
"""
HOLD = """
import sys
from pathlib import Path
from rl.core.rundir import RunDir
with RunDir(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""
CONTAINER = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
"""It sees no process of ours."""
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && ! touch "$0/new" 2>&- && exec "$@" "$0"'


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return new_run(tmp_path / "run")


def test_a_record_that_was_cut_short_is_left_out_and_never_continued(run: RunDir) -> None:
    for step in (1, 2):
        run.log(**step_record(step))
    run.metrics_file.write_bytes(run.metrics_file.read_bytes()[:-20])
    assert [record["step"] for record in run.records()] == [1]
    run.cut_unfinished_record()
    run.log(**step_record(2))
    assert [record["step"] for record in run.records()] == [1, 2]


def test_a_record_that_another_process_died_at_is_not_continued_either(run: RunDir) -> None:
    run.log(**step_record(1))
    with run.metrics_file.open("a") as file:
        file.write('{"time": "2026-')
    run.log(**step_record(2))
    assert [record["step"] for record in run.records()] == [1, 2]


def test_of_records_that_were_made_again_the_last_counts(run: RunDir) -> None:
    for step, reward in ((1, 0.1), (2, 0.2), (2, 0.3)):
        run.log(**step_record(step, reward=reward))
    assert [(record["step"], record["reward"]) for record in run.records()] == [(1, 0.1), (2, 0.3)]


@pytest.mark.parametrize("line", ["3", "[]", "{}", '{"kind": "step"', "nan"])
def test_records_that_are_none_are_refused(run: RunDir, line: str) -> None:
    run.metrics_file.write_text(f"{line}\n")
    with pytest.raises(UsageError, match=r"metrics.jsonl cannot be read"):
        run.records()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "config.json cannot be read"),
        ("[]", "is not a run: its config.json is that of something else"),
        ('{"model_type": "qwen2"}', "is not a run: its config.json is that of something else"),
    ],
)
def test_a_configuration_that_is_none_is_told(run: RunDir, content: str, message: str) -> None:
    run.config_file.write_text(content)
    with pytest.raises(UsageError, match=message) as told:
        run.config()
    assert told.value.fix


def test_settings_of_another_version_are_named(run: RunDir) -> None:
    recorded = json.loads(run.config_file.read_text())
    recorded["config"]["shiny"] = 1
    run.config_file.write_text(json.dumps(recorded))
    with pytest.raises(UsageError, match="settings not known here: shiny") as told:
        run.config()
    assert "provenance.json" in told.value.fix


def test_whether_a_run_is_in_progress_is_known_at_once(run: RunDir) -> None:
    assert not run.in_progress
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, run.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        assert run.in_progress
        with pytest.raises(UsageError, match="is in progress"), run.locked():
            pass
        other.kill()
        other.wait()
        assert not run.in_progress
    with run.locked():
        assert run.in_progress
    assert not run.in_progress


@pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("unshare"), reason="containers are made by root, with util-linux"
)
def test_a_run_of_another_container_is_in_progress(run: RunDir) -> None:
    """The page of compose.yaml has a container of its own, and may only read the runs."""
    ask = [*CONTAINER, "sh", "-c", READ_ONLY, run.root, sys.executable, "-c", ASK]
    with run.locked():
        assert subprocess.run(ask, stdout=subprocess.PIPE, text=True, check=True).stdout == "True\n"
    assert subprocess.run(ask, stdout=subprocess.PIPE, text=True, check=True).stdout == "False\n"


def test_who_asks_whether_a_run_is_in_progress_turns_nobody_away(run: RunDir) -> None:
    done = Event()

    def ask() -> None:
        while not done.is_set():
            _ = run.in_progress

    with ThreadPoolExecutor() as pool:
        asking = pool.submit(ask)
        try:
            for _ in range(1_000):
                with run.locked():
                    pass
        finally:
            done.set()
        asking.result()


def test_a_pipe_in_place_of_the_lock_is_not_waited_for(run: RunDir) -> None:
    os.mkfifo(run.root / "run.lock")
    assert not run.in_progress
