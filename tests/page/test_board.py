"""What is kept of runs is bounded, and what is shown of them is as they are now."""

from pathlib import Path

import pytest

from rl.page import board as module
from rl.page.board import Board
from rl.page.folder import Folder
from tests.observe.recorded import evaluation, log_evaluation, new_run, step_record
from tests.page.large import large_run
from tests.page.service import served

GROWTH = 40e6
"""Bytes that a server may grow by while it shows a hundred pages that it has shown before: a leak would be more."""


def test_few_runs_are_known_in_detail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SIGHTS", 3)
    for number in range(5):
        new_run(tmp_path / f"run{number}")
    board = Board(Folder(tmp_path))
    for number in range(5):
        board.sight(f"run{number}")
    assert board.sights == 3
    first = board.sight("run2")
    board.sight("run0")
    assert board.sight("run2") is first  # asked for lately


def test_large_runs_are_forgotten_sooner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SIGHTS_BYTES", 50_000)
    for name in ("a", "b", "c"):
        run = new_run(tmp_path / name)
        for step in range(1, 201):
            run.log(**step_record(step))
    board = Board(Folder(tmp_path))
    for name in ("a", "b", "c"):
        board.sight(name).numbers.read()
    board.sight("a")
    assert board.sights == 1


def test_a_row_is_as_its_run_is_now(tmp_path: Path) -> None:
    run = new_run(tmp_path / "one", "--lr", "1e-3", "--steps", "50", "--wandb-tags", "quiet")
    board = Board(Folder(tmp_path))

    def row() -> dict[str, str]:
        (found,) = board.folder.found()
        return board.row(found, read=True)

    assert row()["standing"] == "not running on this machine; last seen at step 0"
    assert row()["about"] == "group_size 2, buffer 8, steps 50, batch 4, lr 0.001"
    for step in range(1, 31):
        run.log(**step_record(step, reward=step / 100))
    log_evaluation(run, evaluation(30, {"1+1": 3, "2+2": 1}))
    with run.locked():
        now = row()
        assert (now["word"], now["standing"], now["step"]) == ("running", "running", "30 / 50")
        assert now["pass"].startswith("0.500 [")
        assert now["reward"] == "0.205"  # of the last 20 steps
        assert len(now["points"].split()) > 20
    assert row()["word"] == "stopped"


def test_where_there_is_no_time_a_row_is_what_is_known(tmp_path: Path) -> None:
    run = new_run(tmp_path / "one")
    board = Board(Folder(tmp_path))
    (found,) = board.folder.found()
    assert board.row(found, read=False)["standing"] == "not read yet"
    known = board.row(found, read=True)
    run.log(**step_record(1))
    (found,) = board.folder.found()
    assert board.row(found, read=False) == known
    assert board.row(found, read=True)["step"] == "1 / 200"


def test_a_hundred_pages_leave_nothing_behind(tmp_path: Path) -> None:
    large_run(tmp_path / "large", steps=300, samples=4_000)
    paths = ("/", "/run/large", "/live/large", "/completions/large", "/completions/large?verdict=wrong&order=worst")
    paths += ("/completions/large?set=heldout&change=lost", "/config/large", "/audit/large", "/compared?run=large")
    with served(tmp_path) as service:
        for number in range(3 * len(paths)):
            assert service.get(paths[number % len(paths)]).status_code == 200
        before = service.process.memory_info().rss
        for number in range(100):
            service.get(paths[number % len(paths)])
        assert service.process.memory_info().rss - before < GROWTH
