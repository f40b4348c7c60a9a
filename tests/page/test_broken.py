"""A run is shown as far as it can be read, whatever has become of its files: what cannot be read is told."""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from rl.buffer.schema import new_schema
from rl.core.rundir import RunDir
from tests.observe.recorded import fill_ledger, new_run, step_record
from tests.page.service import Service, served

VIEWS = ("run", "live", "completions", "config", "audit")
BREAKS = {
    "no metrics": lambda run: run.metrics_file.unlink(),
    "half a line": lambda run: _append(run.metrics_file, '{"kind": "st'),
    "metrics that are none": lambda run: run.metrics_file.write_bytes(b"\x00\xff\n[]\n{}\nnull\n"),
    "metrics that are a folder": lambda run: (run.metrics_file.unlink(), run.metrics_file.mkdir()),
    "no ledger": lambda run: run.root.joinpath("buffer.db").unlink(),
    "a ledger that is none": lambda run: run.root.joinpath("buffer.db").write_bytes(b"nonsense" * 1000),
    "half a ledger": lambda run: os.truncate(run.root / "buffer.db", 5000),
    "no configuration to be read": lambda run: run.config_file.write_text("{"),
    "another version's setting": lambda run: _configured(run, temperature_2=3),
    "a value out of its range": lambda run: _configured(run, lr=-1),
    "a configuration of something else": lambda run: run.config_file.write_text('{"config": [], "sources": 1}'),
    "a database that is away": lambda run: _configured(run, buffer_url="postgresql://me@127.0.0.1:1/x?options=-cx%3Dy"),
    "another version's ledger": lambda run: _emptied(run),
    "no provenance": lambda run: run.provenance_file.unlink(),
    "a provenance of something else": lambda run: run.provenance_file.write_text('[1, {"packages": [], "gpus": 3}]'),
    "no evaluations": lambda run: shutil.rmtree(run.evals),
    "half an evaluation": lambda run: os.truncate(run.eval_file("heldout", 5), 100),
    "an evaluation that is no text": lambda run: run.eval_file("heldout", 5).write_bytes(b'{"set": "\xff"}'),
    "an evaluation with another name": lambda run: run.evals.joinpath("step-x.json").write_text("{}"),
    "an evaluation of something else": lambda run: run.eval_file("heldout", 0).write_text("[]"),
    "a log of numbers that are none": lambda run: run.log(**step_record(6, reward=float("nan"), step_s=float("inf"))),
    "a log of strange numbers": lambda run: run.log(**step_record(6, grad_norm=1e308, reward=-1e308, wait_s=1e-320)),
    "an endless step": lambda run: (_configured(run, max_minutes=1), run.log(**step_record(6, step_s=float("inf")))),
    "words for numbers": lambda run: run.log(**step_record(6, reward="much", tokens=None, step_s=True)),
    "a step without numbers": lambda run: run.log(kind="step", step=6),
    "restarts without reasons": lambda run: run.log(kind="restart", step=6),
}


def _configured(run: RunDir, **values: object) -> None:
    recorded = json.loads(run.config_file.read_text())
    recorded["config"] |= values
    run.config_file.write_text(json.dumps(recorded))


def _append(file: Path, text: str) -> None:
    with file.open("a") as out:
        out.write(text)


def _emptied(run: RunDir) -> None:
    with sqlite3.connect(run.root / "buffer.db") as db:
        db.execute("DROP TABLE payloads")
        db.execute("ALTER TABLE groups DROP COLUMN mean_reward")


@pytest.fixture(scope="module")
def broken(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A copy of the run for each thing that may have become of it."""
    root = tmp_path_factory.mktemp("broken")
    for name, break_it in BREAKS.items():
        run = RunDir(root / name)
        shutil.copytree(runs / "first", run.root)
        break_it(run)
    with served(root) as service:
        yield service


@pytest.mark.parametrize("name", BREAKS)
def test_it_is_shown_as_far_as_it_can_be_read(broken: Service, name: str) -> None:
    paths = [f"/{view}/{name}" for view in VIEWS]
    paths += [f"/completions/{name}?set=heldout&change=lost", f"/completions/{name}?set=heldout&step=0"]
    paths += [f"/compare?run={name}&run=no provenance", f"/compared?run={name}"]
    for path in paths:
        answer = broken.get(path)
        assert answer.status_code == 200, path
        assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("metrics that are none", "4 lines of metrics.jsonl cannot be read"),
        ("no ledger", "cannot read the ledger"),
        ("a ledger that is none", "no database of SQLite"),
        ("a database that is away", "cannot read the ledger"),
        ("another version's ledger", "another version of Tally"),
        ("another version's setting", "settings not known here: temperature_2"),
        ("no configuration to be read", "config.json cannot be read"),
        ("half an evaluation", "is not an evaluation"),
        ("no evaluations", "there is no evaluation of heldout"),
    ],
)
def test_what_cannot_be_read_is_told(broken: Service, name: str, said: str) -> None:
    assert said in " ".join(notice["text"] for notice in broken.get(f"/live/{name}").json()["notices"])


def test_a_ledger_in_postgresql(tmp_path: Path, database_url: str) -> None:
    run = RunDir(tmp_path / "runs" / "far")
    with new_schema(database_url, run, overwrite=False) as url:
        new_run(run.root, "--buffer-url", url)
    fill_ledger(run, [(f"right {i}", f"wrong {i}") for i in range(1, 9)])
    with served(tmp_path / "runs") as service:
        now = service.get("/live/far").json()
        assert now["notices"] == []
        assert ["trained", "8"] in [row[:2] for row in now["groups"]]
        assert "wrong 8" in service.get("/completions/far").text
        assert "books balance" in service.get("/audit/far").text


def test_all_of_them_are_in_the_list(broken: Service) -> None:
    rows = broken.get("/live").json()["runs"]
    assert {row["key"] for row in rows} == BREAKS.keys()
