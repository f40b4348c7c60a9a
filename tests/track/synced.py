"""Reads a run's W&B files back, with W&B's own reader, and compares them with the run."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from contextlib import closing
from typing import Any

from rl.buffer.history import History
from rl.core.rundir import RunDir, key_of
from rl.evaluate.result import EvalResult
from rl.track.content import TABLE_GROUPS

LIMIT_S = 200


def environment(run: RunDir, **more: str) -> dict[str, str]:
    """Without a key, wherever one may be."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return clean | {"HOME": str(run.root.parent), "NETRC": str(run.root.parent / "netrc")} | more


def sync(run: RunDir, *flags: str, code: int = 0, **env: str) -> str:
    """What it prints, with this exit code and without a traceback."""
    command = [sys.executable, "-m", "rl.sync", str(run.root), *flags]
    answer = subprocess.run(
        command, env=environment(run, **env), capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert answer.returncode == code, answer.stderr
    assert "Traceback" not in answer.stderr
    return answer.stderr if code else answer.stdout


Found = dict[str, list[dict[str, Any]]]


def found_in_wandb(run: RunDir) -> Found:
    """The records of all files of the run by their type, oldest first, as W&B's reader prints them."""
    found: Found = defaultdict(list)
    for path in sorted(run.wandb.glob("offline-run-*")):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_S).stdout.splitlines()
        for line in map(json.loads, lines):
            found[line["type"]].append(line[line["type"]])
    return found


def assert_holds_everything(run: RunDir) -> Found:
    """Each record that counts is there once, with its numbers, and the tables of evaluations and completions; all under
    one run of W&B."""
    found = found_in_wandb(run)
    rows = [history["item"] for history in found["history"]]
    by_number = {row.get("_step", 0): row for row in rows}
    assert len(by_number) == len(rows), "nothing is there twice"
    assert len(_table(run, by_number[0], "metrics")) > 30
    records = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    newest = {key_of(record): number for number, record in enumerate(records, start=1)}
    assert newest
    with closing(History(run.buffer_url)) as history:
        for number in newest.values():
            _assert_row(run, history, records[number - 1], by_number[number])
    assert len({begun["run_id"] for begun in found["run"]}) == 1
    return found


def _assert_row(run: RunDir, history: History, record: dict[str, Any], row: dict[str, Any]) -> None:
    step = record["step"]
    assert row["step"] == step
    if record["kind"] == "publish":
        assert row["publish/logprob_gap"] == record["logprob_gap"]
    if record["kind"] == "step":
        assert row["train/reward"] == record["reward"]
        assert row["sampler/no_signal"] == record["no_signal"]
        assert row["time/step_s"] == record["step_s"]
        for age, of_age in record["by_age"].items():
            assert {name: row[f"age/{age}/{name}"] for name in of_age} == of_age
    if record["kind"] == "step" and (step == 1 or step % run.config().eval_every == 0):
        samples = [sample for entry in history.trained_in(step)[:TABLE_GROUPS] for sample in entry.group.samples]
        assert samples
        assert [(line[0], line[2], line[5], line[8]) for line in _table(run, row, "completions")] == [
            (step, sample.rollout.text, sample.verdict.mark, sample.rollout.policy_version) for sample in samples
        ]
    if record["kind"] == "eval":
        place = f"eval/{record['set']}"
        for end, key in (("value", ""), ("low", "/low"), ("high", "/high")):
            assert row[f"{place}/pass@1{key}"] == record["summary"]["pass@1"][end]
        questions = EvalResult.load(run.eval_file(record["set"], step)).questions
        shown = [(line[1], line[3], line[6]) for line in _table(run, row, f"{place}/questions")]
        assert shown == [(q.problem, q.marks.count("right"), q.completions[0]) for q in questions]


def _table(run: RunDir, row: dict[str, Any], name: str) -> list[list[Any]]:
    path, *_ = run.wandb.glob(f"offline-run-*/files/{row[f'{name}.path']}")  # one more where its writer was killed
    return list(json.loads(path.read_text())["data"])
