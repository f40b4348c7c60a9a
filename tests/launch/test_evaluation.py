"""What is evaluated is found, and what cannot be compared refused, before anything starts."""

import hashlib
import json
from pathlib import Path

import pytest

from rl.core.errors import UsageError
from rl.core.rundir import RunDir, name_of
from rl.eval import main
from rl.launch.evaluation import read_targets
from rl.learner.checkpoint import ADAPTER, MANIFEST
from tests.observe.recorded import evaluation, log_evaluation, new_run

COIN = "rl.problems.random_weights:coin"


def with_checkpoints(root: Path, *flags: str) -> RunDir:
    """A run with the checkpoints 0 and 5, whose adapters are their names; 0 is the best."""
    run = new_run(root, *flags)
    for step, right in ((0, 4), (5, 1)):
        folder = run.checkpoints / name_of(step)
        folder.mkdir()
        adapter = folder.name.encode()
        (folder / ADAPTER).write_bytes(adapter)
        manifest = {"step": step, "sha256": {ADAPTER: hashlib.sha256(adapter).hexdigest()}}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        log_evaluation(run, evaluation(step, {"1+1": right}))
    return run


@pytest.mark.parametrize(("step", "found"), [(None, 5), (0, 0), ("best", 0)])
def test_the_checkpoint_that_is_named_is_read(tmp_path: Path, step: int | str | None, found: int) -> None:
    run = with_checkpoints(tmp_path / "run")
    (target,) = read_targets([str(run.root)], on=[], step=step, changes={})  # type: ignore[arg-type]
    assert (target.step, target.adapter) == (found, name_of(found).encode())
    assert target.sets == ["heldout"]


def test_a_checkpoint_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    run = with_checkpoints(tmp_path / "run")
    with pytest.raises(UsageError, match="no checkpoint of step 3") as told:
        read_targets([str(run.root)], on=[], step=3, changes={})
    assert told.value.fix == "its checkpoints are of steps: 0, 5"


@pytest.mark.parametrize(
    ("flags", "field"), [(["--reward", COIN], "reward"), (["--temperature", "0.5"], "temperature")]
)
def test_what_was_marked_or_sampled_differently_is_not_compared(tmp_path: Path, flags: list[str], field: str) -> None:
    names = [str(with_checkpoints(tmp_path / "a").root), str(with_checkpoints(tmp_path / "b", *flags).root)]
    with pytest.raises(UsageError, match=f"cannot be compared: {field} differs"):
        read_targets(names, on=[], step=None, changes={})
    if field == "reward":
        assert {t.config.reward for t in read_targets(names, on=[], step=None, changes={"reward": COIN})} == {COIN}


@pytest.mark.parametrize("out", ["no/such/folder.json", "."])
def test_where_the_result_cannot_go_is_told_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    run = with_checkpoints(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="cannot write --out"):
        main([str(run.root), "--out", out])


def test_help_says_what_the_last_line_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert '{set: {target: {"step": N, "summary"' in " ".join(capsys.readouterr().out.split())
