"""A real run whose tracker and W&B are killed in the middle goes on, and a sync completes what they wrote."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from rl.core.rundir import RunDir
from tests.e2e.conftest import SMALL, Train, steps_of
from tests.track.synced import assert_holds_everything, sync

pytestmark = [pytest.mark.e2e, pytest.mark.vllm]


def test_a_run_goes_on_without_its_trackers_and_a_sync_completes_them(
    train: Callable[..., Train], tmp_path: Path
) -> None:
    run = RunDir(tmp_path / "followed")
    started = train("--run-dir", str(run.root), "--steps", "500", "--eval-every", "2", "--wandb", "offline", *SMALL)
    started.wait_for(lambda: any(run.wandb.glob("*/run-*.wandb")) and len(steps_of(run)) >= 1, "W&B's file")
    tracker = started.child("rl.track")
    for process in [*tracker.children(recursive=True), tracker]:
        process.kill()
    killed_at = steps_of(run)[-1]
    started.wait_for(lambda: steps_of(run)[-1] >= killed_at + 3, "steps without a tracker")
    started.process.send_signal(signal.SIGINT)
    code, out, err = started.finish()
    assert (code, err) == (130, "")
    assert "the tracker ended (SIGKILL); the run goes on without it" in out
    assert f"python -m rl.sync {run.root}" in out

    sync(run)
    assert_holds_everything(run)
