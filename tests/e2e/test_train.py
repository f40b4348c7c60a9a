"""The main job from end to end, on real parts: vLLM, DDP, SQLite, math-verify, and real signals."""

import json
import re
import shutil
import signal
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from rl.buffer.ledger import Buffer
from rl.buffer.tables import State
from rl.core.config import TrainConfig
from rl.core.metrics import EVAL, PUBLISH, STEP
from rl.core.processes import Children
from rl.core.rundir import RunDir
from rl.evaluate.result import EvalResult, load_sets
from rl.launch.server import listen, start_server, url_of
from rl.learner.checkpoint import sha256_of
from rl.observe.audit import audit
from rl.problems.sources import load_problems
from rl.problems.starter import STARTER_MODEL
from tests.e2e.conftest import SMALL, Train, steps_of

pytestmark = [pytest.mark.e2e, pytest.mark.vllm]
Start = Callable[..., Train]


def books(run: RunDir) -> dict[State, int]:
    buffer = Buffer(run.buffer_url, capacity=8, group_size=8)
    try:
        return buffer.counts()
    finally:
        buffer.close()


def test_a_run_to_its_end(train: Start, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "runs" / "a")
    code, out, err = train("--run-dir", str(run.root), "--steps", "12", "--eval-every", "6", *SMALL).finish()
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"results in {run.root}; next: python -m rl.eval {run.root}"
    assert len([line for line in out.splitlines() if line.startswith("step ")]) == 12
    (tracked,) = [line for line in out.splitlines() if line.startswith("W&B: offline")]
    assert tracked.endswith(f"wandb sync {run.root / 'wandb'}")

    records = run.records()
    steps = [r for r in records if r["kind"] == "step"]
    assert steps_of(run) == list(range(1, 13))
    assert all(r.keys() - {"kind", "time"} == {m.name for m in STEP} for r in steps)
    assert all(r.keys() - {"kind", "time"} == {m.name for m in EVAL} for r in records if r["kind"] == "eval")
    assert max(r["staleness_max"] for r in steps) <= 7
    assert all(0 <= r["mismatch_kl"] < 1e-6 for r in steps)
    proofs = [r for r in records if r["kind"] == "publish"]
    assert [r["step"] for r in proofs] == list(range(13))
    assert all(r.keys() - {"kind", "time"} == {m.name for m in PUBLISH} for r in proofs)
    assert all(r["logprob_gap"] < 1e-5 for r in proofs)
    assert proofs[-1]["moved"] > proofs[1]["moved"] > proofs[0]["moved"] == 0.0
    assert len({r["sha256"] for r in proofs}) == 13

    audited = audit(run)
    assert audited.balanced
    assert (audited.problems, audited.steps) == (len(load_problems(run.config(), "train")), 12)
    counts = books(run)
    assert counts[State.TRAINED] == 12 * 32 // 8
    assert counts[State.EXPIRED] == counts[State.LEASED] == 0

    results = [EvalResult.load(path) for path in sorted(run.evals.glob("*.json"))]
    assert [r.step for r in results] == [0, 6, 12]
    assert all(len(r.questions) == 8 for r in results)
    last = run.checkpoints / "step-000012"
    assert results[-1].adapter_sha256 == sha256_of(last / "adapter_model.safetensors")
    base = AutoModelForCausalLM.from_pretrained(STARTER_MODEL)
    assert PeftModel.from_pretrained(base, last).peft_config["default"].r == 16

    (provenance,) = json.loads((run.root / "provenance.json").read_text())
    assert provenance["packages"]["torch"].startswith("2.")
    recorded = json.loads(run.config_file.read_text())
    assert (recorded["config"]["steps"], recorded["sources"]["steps"]) == (12, "flag")

    again = train("--run-dir", str(run.root))
    code, _, err = again.finish()
    assert code == 2
    assert f"--resume {run.root}" in err
    assert "--run-dir" in err
    assert "--overwrite" in err


def test_buffer_of_one_batch_is_on_policy_with_two_learners(train: Start, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "on-policy")
    flags = ["--buffer", "64", "--batch", "64", "--learners", "2", "--steps", "4", "--lr", "2e-6", *SMALL]
    code, out, err = train("--run-dir", str(run.root), *flags).finish()
    assert (code, err) == (0, "")
    assert "at most 0 steps stale (on-policy)" in out
    assert "full fine-tuning" in out
    assert [r["staleness_max"] for r in run.records() if r["kind"] == "step"] == [0] * 4


def test_ctrl_c_saves_and_resume_goes_on(train: Start, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "stopped")
    first = train("--run-dir", str(run.root), "--steps", "500", *SMALL)
    first.wait_for(lambda: len(steps_of(run)) >= 3, "three steps")
    first.process.send_signal(signal.SIGINT)
    code, out, err = first.finish()
    assert (code, err) == (130, "")
    assert out.splitlines()[-1] == f"stopped. Go on with: python -m rl.train --resume {run.root}"
    stopped = steps_of(run)[-1]
    trained = books(run)[State.TRAINED]
    assert trained == stopped * 4
    assert books(run)[State.LEASED] == 0

    for argv, what in ((["--steps", "1"], "has made"), (["--lr", "1"], "--lr cannot be changed by --resume")):
        code, _, err = train("--resume", str(run.root), *argv).finish()
        assert code == 2
        assert what in err

    code, _, err = train("--resume", str(run.root), "--steps", str(stopped + 2)).finish()
    assert (code, err) == (0, "")
    assert steps_of(run) == list(range(1, stopped + 3))
    assert books(run)[State.TRAINED] == trained + 8
    assert (run.evals / f"step-{stopped + 2:06d}.json").exists()


def problem_files(folder: Path) -> tuple[Path, Path]:
    """Problems whose held-out part nobody can answer rightly, so that no evaluation is better than the first; and a
    further set."""
    own, further = folder / "own.jsonl", folder / "further.jsonl"
    golds = {f"{a}+{b}": str(a + b) for a in range(10, 30) for b in range(10, 30)}

    def write(path: Path, rows: dict[str, str]) -> None:
        path.write_text("".join(json.dumps({"problem": text, "answer": gold}) + "\n" for text, gold in rows.items()))

    write(own, golds)
    heldout = load_problems(TrainConfig(problems=str(own)), "heldout")
    write(own, golds | {problem.text: "1000003" for problem in heldout})
    write(further, {"31+7": "38", "32+7": "39", "33+7": "40"})
    return own, further


def test_a_run_ends_early_evaluated_on_every_set_and_is_made_longer(train: Start, tmp_path: Path) -> None:
    run, (own, further) = RunDir(tmp_path / "early"), problem_files(tmp_path)
    flags = ["--problems", str(own), "--eval-on", str(further), "--eval-every", "2", "--prompt", "plain"]
    flags += ["--patience", "1", "--save-every", "1", "--keep", "1", *SMALL]
    code, out, err = train("--run-dir", str(run.root), *flags).finish()
    assert (code, err) == (0, "")
    last = steps_of(run)[-1]
    why = r"no held-out pass@1 above 0\.000 in \d+ evaluations? since step 0 \(--patience 1\)"
    assert re.search(f"^ending: {why}; the learner finishes its step and saves$", out, re.MULTILINE)
    assert re.search(f"^ended: {why}. Go on with: .* --resume {run.root} --patience \\d+$", out, re.MULTILINE)

    sets = load_sets(run.evals)
    assert list(sets) == ["heldout", str(further)]
    for name, results in sets.items():
        assert {0, 2, last} <= {result.step for result in results}
        assert len(results[0].questions) == {"heldout": 8, str(further): 3}[name]
        assert f"| {name} | end | {last} |" in out
    assert run.checkpoint_steps() == [0, last], "the best of equals is the first"

    code, out, err = train("--resume", str(run.root)).finish()
    assert (code, err) == (0, "")
    (line,) = out.splitlines()
    assert line.startswith("nothing to do: no held-out pass@1 above 0.000")
    assert steps_of(run)[-1] == last

    budget = 1 + sum(record["tokens"] for record in run.records() if record["kind"] == "step")
    code, out, err = train("--resume", str(run.root), "--patience", "99", "--token-budget", str(budget)).finish()
    assert (code, err) == (0, "")
    assert re.search(rf"^ended: \d+ completion tokens are trained on \(--token-budget {budget}\)", out, re.MULTILINE)
    end = steps_of(run)[-1]
    assert steps_of(run) == list(range(1, end + 1))
    assert end > last
    assert run.checkpoint_steps() == [0, end]
    for argv, why in (
        ([], "completion tokens are trained on"),
        (["--max-minutes", "0.0001"], "minutes of training are over"),
        (["--steps", str(end)], f"all {end} steps are made"),
    ):
        code, out, err = train("--resume", str(run.root), *argv).finish()
        (line,) = out.splitlines()
        assert (code, err, line.startswith("nothing to do: "), why in line) == (0, "", True, True)

    launches = json.loads((run.root / "provenance.json").read_text())
    assert ["--resume" in launch["command"] for launch in launches] == [False, True], "what did nothing is no launch"
    record = next(r for r in run.records() if (r["kind"], r["step"]) == ("step", end))
    n = len(load_problems(run.config(), "train"))
    had_turn = range(1, 1 + round(record["epoch"] * n))
    with closing(Buffer(run.buffer_url, capacity=256, group_size=8)) as buffer:
        seen = {group.problem.id for group in buffer.load(had_turn)}
    assert record["coverage"] == len(seen) / n, "counted over both launches"


def restarts(run: RunDir) -> list[dict[str, Any]]:
    return [record for record in run.records() if record["kind"] == "restart"]


def test_workers_that_are_killed_are_replaced_and_the_run_goes_on(train: Start, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "killed")
    started = train("--run-dir", str(run.root), "--steps", "500", "--save-every", "2", *SMALL)
    started.wait_for(lambda: len(steps_of(run)) >= 3, "three steps")
    names = {"rl.collect": "collector", "rl.evaluate": "evaluator", "rl.learner": "learner", "rollout_server": "server"}
    names |= {"rollout_server.engines.vllm_process": "server"}
    for count, (module, name) in enumerate(names.items(), start=1):
        started.child(module).kill()
        started.wait_for(lambda n=count: len(restarts(run)) == n, f"a restart of the {name}")
        steps = run.metrics_file.read_text().count('"kind": "step"')
        started.wait_for(lambda n=steps: run.metrics_file.read_text().count('"kind": "step"') >= n + 2, "two steps")
    started.process.send_signal(signal.SIGINT)
    code, out, err = started.finish()
    assert (code, err) == (130, "")
    assert [record["worker"] for record in restarts(run)] == list(names.values())
    for record, count in zip(restarts(run), [1, 1, 1, 1, 2], strict=True):
        line = f"the {record['worker']} {record['why']}; it is started again ({count} of 8)"
        assert line in out.splitlines()
        assert "was killed by SIGKILL" in line
    assert books(run)[State.TRAINED] == 4 * steps_of(run)[-1], "each step counts once"


def test_servers_of_somebody_else_are_used_and_left_alone(train: Start, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "elsewhere")
    with Children() as children, listen(0) as listener:
        server = children.add(start_server(TrainConfig(), listener, tmp_path / "server.log", {}))
        url = url_of(listener)
        code, _, err = train("--run-dir", str(run.root), "--steps", "2", "--server-url", url, *SMALL).finish()
        assert (code, err) == (0, "")
        code, _, err = train("--resume", str(run.root), "--steps", "3", "--server-url", url).finish()
        assert (code, err) == (0, "")
        assert steps_of(run) == [1, 2, 3]
        assert server.exit_code is None
    assert not list(run.logs.glob("server*"))


def test_nothing_outlives_a_parent_that_is_killed(train: Start, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "orphaned")
    started = train("--run-dir", str(run.root), "--steps", "500", *SMALL)
    started.wait_for(lambda: len(steps_of(run)) >= 1, "the first step")
    assert len(started.descendants()) >= 5
    started.process.kill()
    code, _, _ = started.finish()
    assert code == -signal.SIGKILL


def test_a_server_that_dies_at_start_is_told_in_seconds(train: Start, tmp_path: Path) -> None:
    unknown = tmp_path / "unknown"  # to vLLM; the learner goes by the model's type
    shutil.copytree(STARTER_MODEL, unknown)
    settings = json.loads((unknown / "config.json").read_text())
    (unknown / "config.json").write_text(json.dumps({**settings, "architectures": ["NoSuchForCausalLM"]}))
    code, _, err = train("--model", str(unknown), "--run-dir", str(tmp_path / "run")).finish()
    assert code == 3
    assert "the server ended with exit code 3: the engine could not load its model" in err
    assert "NoSuchForCausalLM" in err
    assert len(err) < 600
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (["--model", "no/such-model-0b"], "no/such-model-0b is no folder"),
        (["--model", "."], "no config.json"),
        (["--problems", "none.jsonl"], "cannot read the problems none.jsonl"),
        (["--run-dir", "/dev/null/run"], "cannot make the run directory /dev/null/run"),
        (["--resume", "nowhere"], "nowhere is not a run"),
        (["--resume", "nowhere", "--dry-run"], "--dry-run shows what a new run would do"),
        (["--run-dir", "/usr", "--overwrite"], "/usr is not a run"),
        (["--server-url", "http://127.0.0.1:1"], "--server-url http://127.0.0.1:1: "),
        (["--server-url", "127.0.0.1:1"], "--server-url 127.0.0.1:1: "),
        (["--server-url", "http://127.0.0.1:1", "--servers", "2"], "give one of them"),
        (["--port", "70000"], "cannot listen on 127.0.0.1:70000"),
        (["--batch", "30"], "batch 30 is not a multiple"),
        (["--bufer", "256"], "did you mean --buffer"),
    ],
)
def test_bad_input_starts_nothing(train: Start, tmp_path: Path, argv: list[str], what: str) -> None:
    started = train(*argv)
    code, out, err = started.finish()
    assert (code, out) == (2, "")
    assert what in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def test_a_prompt_that_is_too_long_is_told_with_its_length(train: Start, tmp_path: Path) -> None:
    rows = [{"problem": f"{i}+{'1' * (600 if i == 50 else 1)}", "answer": "1"} for i in range(99)]
    (tmp_path / "long.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, _, err = train("--problems", "long.jsonl", *SMALL).finish()
    assert code == 3
    assert "--resume" not in err
    assert "has 604 tokens: with --max-tokens 40 that is over 512" in err
    assert "smaller --max-tokens" in err
    assert err.count("fix: ") == 1


def test_a_port_that_is_taken(train: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = train("--port", str(port)).finish()
    assert code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in err
    assert "--port" in err
    assert not (tmp_path / "runs").exists()


def test_one_run_directory_has_one_supervisor(train: Start, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "busy")
    first = train("--run-dir", str(run.root), "--steps", "500", *SMALL)
    first.wait_for(lambda: (run.root / "run.lock").exists() and len(steps_of(run)) >= 1, "the first step")
    for argv in (["--resume", str(run.root), "--steps", "600"], ["--run-dir", str(run.root), "--overwrite"]):
        code, _, err = train(*argv).finish()
        assert code == 2
        assert "in progress" in err
    assert run.config().steps == 500
    first.process.send_signal(signal.SIGTERM)
    assert first.finish()[0] == 130
