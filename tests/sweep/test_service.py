"""A small sweep on real parts: one vLLM with the adapters of several policies, killed in the middle, and its books."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from rl.buffer.history import History
from rl.core.rundir import RunDir
from rl.observe.audit import audit
from rl.study.runs import Status
from rl.study.sweepdir import SweepDir
from tests.commands import Command
from tests.sweep.conftest import steps_of

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.timeout(600)]  # two whole sweeps

PLAN = """
parallel = 3
[base]
batch = 16
buffer = 32
eval_every = 10
eval_problems = 8
eval_samples = 2
save_every = 4
wandb = "off"
[[run]]
name = "low"
changes = { lr = 1e-4, steps = 10 }
[[run]]
name = "high"
changes = { lr = 1e-3, lora_rank = 8, steps = 8 }
[[run]]
name = "wild"
changes = { lr = 1e30, steps = 8 }
"""


def test_side_by_side_on_one_server_killed_and_gone_on_with(sweep: Callable[..., Command], tmp_path: Path) -> None:
    plan, root = tmp_path / "plan.toml", tmp_path / "s"
    plan.write_text(PLAN)
    low, high = (RunDir(root / "runs" / f"{name}-seed0") for name in ("low", "high"))
    command = (str(plan), "--out", str(root))

    killed = sweep("rl.sweep", *command)
    killed.wait_for(lambda: low.metrics_file.exists() and steps_of(low.root) >= 5, "five steps")
    killed.process.kill()
    killed.assert_nothing_left()

    code, out, err = sweep("rl.sweep", *command).finish()
    assert (code, err) == (0, "")
    assert "low-seed0: goes on;" in out
    entries = {entry.arm: entry for entry in SweepDir(root).entries()}
    assert {arm: entry.status for arm, entry in entries.items()} == {
        "low": Status.DONE,
        "high": Status.DONE,
        "wild": Status.DIVERGED,
    }
    assert "not finite" in entries["wild"].why
    assert sorted(path.name for path in SweepDir(root).logs.glob("server-*")) == ["server-0.log"]
    assert (root / "report" / "report.html").exists()

    proofs = {}
    for run, steps in ((low, 10), (high, 8)):
        assert audit(run).balanced  # each trained group was sampled by a version that this run has proved
        records = run.records()
        assert [r["step"] for r in records if r["kind"] == "step"] == list(range(1, steps + 1))
        assert all(0 <= r["mismatch_kl"] < 1e-6 for r in records if r["kind"] == "step")
        assert all(r["logprob_gap"] < 1e-5 for r in records if r["kind"] == "publish")
        with closing(History(run.buffer_url)) as history:
            proofs[run] = history.books().proofs
    policies = {run: {policy for policy, _ in own} for run, own in proofs.items()}
    assert len(policies[low]) == 2  # one a launch
    assert policies[low].isdisjoint(policies[high])
    trained = {run: {sha256 for (_, version), sha256 in own.items() if version} for run, own in proofs.items()}
    assert trained[low].isdisjoint(trained[high])
