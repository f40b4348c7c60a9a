"""`python -m rl.find_lr` on a recorded run: what it tells, what it leaves, and what it refuses."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rl.buffer.compact import compact
from rl.buffer.ledger import Buffer
from rl.core import cli
from rl.core.rundir import RunDir, name_of
from rl.find_lr import next_command
from rl.learner.gain import Gain
from rl.learner.policy import Policy
from rl.learner.rates import Trial, judge
from rl.problems.sources import fingerprint
from rl.problems.starter import STARTER_MODEL
from rl.sweep import main as sweep
from tests.conftest import SHA256
from tests.exact.recorded import sampled_by
from tests.learner.batch import make_batch
from tests.observe.recorded import new_run

STEPS = 14


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Random completions of the base, each group of a problem of its own."""
    run = new_run(tmp_path_factory.mktemp("find_lr") / "run", "--group-size", "4", "--batch", "8", "--buffer", "16")
    config = run.config()
    run.problems_file.write_text(fingerprint(config) + "\n")
    torch.set_num_threads(1)
    policy = Policy(str(STARTER_MODEL), config, torch.device("cpu"))
    with closing(Buffer(run.buffer_url, capacity=config.buffer, group_size=config.group_size)) as buffer:
        buffer.commit(0, name_of(0))
        for step in range(1, STEPS + 1):
            buffer.proved("p", step - 1, SHA256)
            batch = make_batch(config, policy, seed=step)
            buffer.issue()
            for id, group in zip(buffer.unfinished(), batch, strict=False):
                own = replace(group.problem, id=f"problem-{id}")
                buffer.put(sampled_by(step - 1, replace(group, id=id, problem=own)))
            leased = buffer.lease(len(batch), policy_version=step - 1, max_staleness=config.staleness_bound)
            buffer.trained([group.id for group in leased])
        buffer.commit(STEPS, name_of(STEPS))
    return run


@pytest.fixture
def find(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def call(*argv: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rl.find_lr", *map(str, argv)]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=env)

    return call


def test_rates_are_tried_on_the_groups_of_a_run(
    recorded: RunDir, find: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in recorded.root.rglob("*") if path.is_file()}
    out = tmp_path / "found"
    told = find(recorded.root, "--rates", "1e-5,10,1e-3", "--steps", "4", "--lora-rank", "4", "--out", out)
    assert told.returncode == 0, told.stderr
    facts = json.loads((out / "find_lr.json").read_text())
    small, middle, huge = facts["trials"]
    assert [t["lr"] for t in facts["trials"]] == [1e-5, 1e-3, 10]
    assert 0 < small["moved"] < middle["moved"]
    assert small["ess"] > middle["ess"]
    assert small["gain"]["low"] <= small["gain"]["value"] <= small["gain"]["high"]
    assert huge["verdict"] == "too large"
    assert huge["gain"] is None
    assert facts["config"]["lora_rank"] == 4
    assert facts["conclusion"] in told.stdout
    assert (out / "find_lr.png").read_bytes().startswith(b"\x89PNG")
    assert {path: path.read_bytes() for path in recorded.root.rglob("*") if path.is_file()} == before

    again = find(recorded.root, "--out", out)
    assert again.returncode == 2
    assert "exists" in again.stderr


def test_the_next_command_is_a_sweep_as_it_stands(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given = {"model": "Qwen/Qwen2.5-0.5B", "max_tokens": 40, "lora_rank": 4, "seed": 1, "servers": 2, "eval_every": 7}
    config = cli.completed(given, dict.fromkeys(given, "flag")).config
    trials = [trial(1e-5, 0.01), trial(1e-4, 0.1), trial(1e-3, -0.2)]
    python, dash_m, module, *argv = shlex.split(next_command(judge(trials), config))
    assert (python, dash_m, module) == ("python", "-m", "rl.sweep")
    sweep([*argv, "--out", str(tmp_path / "sweep"), "--dry-run"])
    assert "lr0.0001-seed1" in capsys.readouterr().out
    assert {"--model=Qwen/Qwen2.5-0.5B", "--max-tokens=40", "--lora-rank=4"} < set(argv)


def trial(lr: float, gain: float) -> Trial:
    near = Gain(value=gain, low=gain - 0.005, high=gain + 0.005)
    return Trial(lr=lr, moved=0.1, ess=0.9, gain=near, clipped=0.0, grad_norm=1.0)


def test_what_cannot_be_searched_is_told_before_anything_is_loaded(
    recorded: RunDir, find: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    compacted = RunDir(shutil.copytree(recorded.root, tmp_path / "compacted"))
    compact(compacted.buffer_url)
    refusals = {
        "is not a run": [tmp_path / "nowhere"],
        "--model of": [recorded.root, "--model", "Qwen/Qwen2.5-0.5B"],
        "were compacted away": [compacted.root],
        "only 14 steps are recorded": [recorded.root, "--steps", "15"],
        "to measure on: 16 problems are needed": [recorded.root, "--steps", "10"],
        "--rates fast are no learning rates": [recorded.root, "--rates", "fast"],
        "--lr says nothing here": [recorded.root, "--lr", "1e-4"],
    }
    for message, argv in refusals.items():
        told = find(*argv, "--out", tmp_path / "out")
        assert (told.returncode, message in told.stderr) == (2, True), told.stderr
        assert "fix:" in told.stderr
        assert "Traceback" not in told.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.vllm
@pytest.mark.e2e
def test_without_a_run_rollouts_of_the_base_are_recorded_first(
    find: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    out = tmp_path / "found"
    told = find(
        "--rates", "1e-4,1", "--steps", "2", "--group-size", "4", "--batch", "32", "--buffer", "32", "--out", out
    )
    assert told.returncode == 0, told.stderr
    facts = json.loads((out / "find_lr.json").read_text())
    assert facts["run"] == str(out / "rollouts")
    assert facts["start_ess"] == pytest.approx(1.0, abs=1e-6), "the base itself has sampled them"
    assert facts["trials"][1]["verdict"] == "too large"
    assert RunDir(out / "rollouts").config().steps == 2 + 16, "the steps to try, and the groups to measure with"
    assert "recording rollouts of the base" in told.stdout
