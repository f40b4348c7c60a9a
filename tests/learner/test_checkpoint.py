"""Which checkpoints stay: on real folders, with a real ledger, and killed between any two of its writes."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rl.buffer.ledger import Buffer
from rl.core import cli
from rl.core.rundir import RunDir, name_of
from rl.learner.checkpoint import prune

STEPS = range(0, 60, 10)


class KilledError(BaseException):
    """Stands for SIGKILL: no handler of ours may catch it."""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    parser = cli.Parser()
    cli.add_config_flags(parser)
    run = RunDir(tmp_path / "run")
    run.create(cli.resolve(parser.parse_args([])))
    return run


@pytest.fixture
def buffer(run: RunDir) -> Iterator[Buffer]:
    """With a commit, a checkpoint and an evaluation that was made of each step; step 20 is the best."""
    buffer = Buffer(run.buffer_url, capacity=8, group_size=2)
    for step in STEPS:
        save(run, step)
        buffer.commit(step, name_of(step), evaluate=["heldout"])
        evaluate(run, buffer, step, 0.9 if step in (20, 30) else 0.1)
    yield buffer
    buffer.close()


def save(run: RunDir, step: int) -> None:
    folder = run.checkpoints / name_of(step)
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")


def evaluate(run: RunDir, buffer: Buffer, step: int, value: float) -> None:
    run.log(kind="eval", step=step, set="heldout", summary={"pass@1": {"value": value}})
    buffer.evaluated(step, "heldout")


def test_all_stay_unless_told(run: RunDir, buffer: Buffer) -> None:
    prune(run, buffer, None)
    assert run.checkpoint_steps() == buffer.commits() == list(STEPS)


@pytest.mark.parametrize(("keep", "stay"), [(1, [20, 50]), (2, [20, 40, 50]), (4, [20, 30, 40, 50]), (9, list(STEPS))])
def test_the_newest_and_the_earliest_best_stay(run: RunDir, buffer: Buffer, keep: int, stay: list[int]) -> None:
    prune(run, buffer, keep)
    assert run.checkpoint_steps() == buffer.commits() == stay


def test_what_awaits_an_evaluation_stays_until_it_is_made(run: RunDir, buffer: Buffer) -> None:
    buffer.commit(10, name_of(10), evaluate=["heldout", "gsm8k@test"])
    prune(run, buffer, 1)
    assert run.checkpoint_steps() == [10, 20, 50]
    buffer.evaluated(10, "gsm8k@test")
    prune(run, buffer, 1)
    assert run.checkpoint_steps() == [20, 50]


def test_a_checkpoint_that_is_not_committed_yet_stays(run: RunDir, buffer: Buffer) -> None:
    save(run, 60)
    prune(run, buffer, 1)
    assert run.checkpoint_steps() == [20, 50, 60]
    assert buffer.newest_commit() == (50, name_of(50))


@pytest.mark.parametrize("survived", range(9))
def test_killed_anywhere_the_ledger_names_only_what_is_there(
    run: RunDir, buffer: Buffer, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    """Each run of the test lets one more of its writes happen: 3 commits taken back, 3 renames, 3 removals."""
    left = survived

    def mortal(write: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if left == 0:
                raise KilledError
            left -= 1
            return write(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(Buffer, "forget_commit", mortal(Buffer.forget_commit))
        patch.setattr(Path, "rename", mortal(Path.rename))
        patch.setattr(shutil, "rmtree", mortal(shutil.rmtree))
        with pytest.raises(KilledError):
            prune(run, buffer, 2)
    assert set(buffer.commits()) <= set(run.checkpoint_steps())
    assert buffer.newest_commit() == (50, name_of(50))
    prune(run, buffer, 2)
    assert run.checkpoint_steps() == buffer.commits() == [20, 40, 50]
    assert sorted(os.listdir(run.checkpoints)) == [name_of(step) for step in (20, 40, 50)]
