"""`python -m rl.export`: what it writes is what was trained and evaluated, and it says so only where it is so."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from rl.core.errors import TallyError
from rl.core.rundir import RunDir, name_of
from rl.export import main
from rl.learner import checkpoint
from rl.learner.merge import merge
from rl.learner.policy import Policy
from rl.learner.step import Learner
from rl.problems.starter import STARTER_MODEL, starter_problems
from tests.learner.batch import make_batch
from tests.observe.recorded import evaluation, fill_ledger, log_evaluation, new_run

PROMPT = torch.tensor([[40, 41, 42, 43, 60, 50, 45]])


@pytest.fixture(scope="module", params=["lora", "full"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Three updates of the starter; of its checkpoints, step 2 is the best on held-out problems."""
    flags = ["--buffer", "32", "--lr", "5e-3", "--tuning", request.param, "--eval-on", "starter-sums"]
    run = new_run(tmp_path_factory.mktemp("export") / "run", *flags)
    config = run.config()
    torch.set_num_threads(1)
    learner = Learner(Policy(str(STARTER_MODEL), config, torch.device("cpu")), config)
    held = starter_problems("heldout")[:4]
    for step in range(4):
        if step:
            learner.step(make_batch(config, learner.policy, seed=step), step)
        folder = run.checkpoints / name_of(step)
        checkpoint.save(folder, step, learner.policy, learner.optimizer)
        for name in config.eval_sets:
            right = 3 if (step == 2) == (name == "heldout") else 1  # the other set would choose another step
            result = evaluation(step, {problem.text: right for problem in held}, set=name)
            questions = [replace(q, problem_id=p.id) for q, p in zip(result.questions, held, strict=True)]
            own = checkpoint.sha256_of(folder / checkpoint.ADAPTER)
            log_evaluation(run, replace(result, questions=questions, adapter_sha256=own))
    fill_ledger(run, [("7", "8")] * 6)
    return run


def logprobs(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=PROMPT).logits.log_softmax(-1)


def test_the_best_checkpoint_is_exported_as_adapter_and_as_merged_model(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()}
    main([str(run.root), "--out", str(tmp_path / "out")])
    assert {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()} == before
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .endswith(f"next: vllm serve {tmp_path / 'out' / 'merged'} --dtype float32")
    )

    saved = run.checkpoints / name_of(2) / checkpoint.ADAPTER
    assert (tmp_path / "out" / "adapter" / checkpoint.ADAPTER).read_bytes() == saved.read_bytes()
    base = AutoModelForCausalLM.from_pretrained(STARTER_MODEL)
    start = logprobs(base)
    policy = logprobs(PeftModel.from_pretrained(base, tmp_path / "out" / "adapter"))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "merged")
    assert merged.dtype == torch.float32
    assert (logprobs(merged) - policy).abs().max() < 1e-4
    assert (policy - start).abs().max() > 0.01
    ours, theirs = (AutoTokenizer.from_pretrained(path) for path in (tmp_path / "out" / "merged", STARTER_MODEL))
    assert ours("52+37")["input_ids"] == theirs("52+37")["input_ids"]
    assert ours.chat_template == theirs.chat_template


def test_the_card_states_what_the_run_states(run: RunDir, tmp_path: Path) -> None:
    main([str(run.root), "--out", str(tmp_path / "out")])
    _, front, text = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    head = yaml.safe_load(front)
    assert (head["base_model"], head["library_name"]) == ("starter", "transformers")
    assert run.config().tuning in head["tags"]
    sha256 = hashlib.sha256((run.checkpoints / name_of(2) / checkpoint.ADAPTER).read_bytes()).hexdigest()
    for stated in (
        f"adapter: sha256 `{sha256}`",
        "chosen on `heldout` as the best of 4: its figure there is optimistic",
        "Nothing was chosen on `starter-sums`",
        "| heldout | step-000002 | 2 |",
        "| starter-sums | step-000002 | 2 |",
        f"commit {json.loads(run.provenance_file.read_text())[-1]['git_commit']}",
        "nats from those of base and adapter",
        "| lr | 0.005 |",
        "6 trained",
    ):
        assert stated in text, stated


def test_a_checkpoint_named_by_hand_was_not_chosen(run: RunDir, tmp_path: Path) -> None:
    main([str(run.root), "--step", "3", "--out", str(tmp_path / "out")])
    text = (tmp_path / "out" / "README.md").read_text()
    assert "chosen on" not in text.replace("named by hand: what it was chosen on is not known here", "")
    assert "the bytes that were evaluated" in text
    assert "| heldout | step-000003 | 3 |" in text


def test_of_a_checkpoint_that_was_not_evaluated_nothing_is_said(run: RunDir, tmp_path: Path) -> None:
    other = RunDir(shutil.copytree(run.root, tmp_path / "other"))
    for name in run.config().eval_sets:
        other.eval_file(name, 3).unlink()
    main([str(other.root), "--step", "3", "--out", str(tmp_path / "out")])
    text = (tmp_path / "out" / "README.md").read_text()
    assert "This checkpoint was not evaluated: no data." in text
    assert "the bytes of the checkpoint" in text


def export(*argv: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rl.export", *map(str, argv)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_what_cannot_be_exported_is_told_and_nothing_is_written(run: RunDir, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    other = RunDir(shutil.copytree(run.root, tmp_path / "other"))  # whose evaluation is of another adapter
    file = other.eval_file("heldout", 2)
    file.write_text(file.read_text().replace('"adapter_sha256":"', '"adapter_sha256":"0'))
    lost = RunDir(shutil.copytree(run.root, tmp_path / "lost"))
    lost.provenance_file.unlink()
    bare = new_run(tmp_path / "bare")
    refusals = [
        (2, "exists, and nothing is overwritten", [run.root, "--out", taken]),
        (2, "has no checkpoint of step 7", [run.root, "--step", 7, "--out", tmp_path / "out"]),
        (2, "no held-out evaluation to choose a checkpoint by", [bare.root, "--out", tmp_path / "out"]),
        (2, "provenance.json cannot be read", [lost.root, "--out", tmp_path / "out"]),
        (2, "is not a run", [tmp_path / "nowhere", "--out", tmp_path / "out"]),
        (3, "is of the adapter 0", [other.root, "--out", tmp_path / "out"]),
    ]
    for code, message, argv in refusals:
        told = export(*argv)
        assert (told.returncode, message in told.stderr) == (code, True), told.stderr
        assert "fix:" in told.stderr
    assert list(taken.iterdir()) == []
    assert not (tmp_path / "out").exists()


def test_a_merge_that_is_not_the_policy_is_refused(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if peft had left the adapter out of the sum."""
    monkeypatch.setattr(PeftModel, "merge_and_unload", lambda self, **_: self.unload(), raising=False)
    adapter = run.checkpoints / name_of(2)
    with pytest.raises(TallyError, match="the merged model is not the policy"):
        merge(str(STARTER_MODEL), adapter, tmp_path / "merged", [([40, 41], [42, 43, 60])], trust_remote_code=False)


@pytest.mark.vllm
@pytest.mark.parametrize("run", ["full"], indirect=True)
def test_stock_vllm_serves_the_merged_model(run: RunDir, tmp_path: Path) -> None:
    main([str(run.root), "--out", str(tmp_path / "out")])
    merged = tmp_path / "out" / "merged"
    command = [sys.executable, "-m", "tests.export.by_vllm", str(merged)]
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    model = AutoModelForCausalLM.from_pretrained(merged)
    for prompt, tokens, by_vllm in json.loads(ran.stdout.splitlines()[-1]):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
        own = logits.log_softmax(-1)[range(len(tokens)), tokens]
        assert (own - torch.tensor(by_vllm)).abs().max() <= 1e-3
