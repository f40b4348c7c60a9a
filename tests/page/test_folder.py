"""Runs are found below a folder, and nothing is read from outside of it."""

import os
from pathlib import Path

import pytest

from rl.core.errors import UsageError
from rl.page.folder import Folder, NotFoundError
from tests.observe.recorded import new_run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two runs, one of them in a sweep; and a run outside."""
    new_run(tmp_path / "runs" / "first")
    new_run(tmp_path / "runs" / "sweeps" / "rates" / "runs" / "lr-1e-4")
    new_run(tmp_path / "secret")
    return tmp_path / "runs"


def names(root: Path) -> set[str]:
    return {found.name for found in Folder(root).found()}


def test_runs_are_found_in_sweeps_too(root: Path) -> None:
    assert names(root) == {"first", "sweeps/rates/runs/lr-1e-4"}
    assert Folder(root).run("sweeps/rates/runs/lr-1e-4").config().group_size == 2


def test_the_one_that_was_written_last_comes_first(root: Path) -> None:
    third = new_run(root / "third")
    third.log(kind="restart", step=0)
    os.utime(third.metrics_file, (9e9, 9e9))
    assert next(found.name for found in Folder(root).found()) == "third"


def test_a_single_run_is_a_folder_of_one(root: Path) -> None:
    folder = Folder(root / "first")
    assert [found.name for found in folder.found()] == ["first"]
    assert folder.run("first").root == root / "first"
    with pytest.raises(NotFoundError):
        folder.run("sweeps/rates/runs/lr-1e-4")


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../secret", "first/../../secret", "first/..", "/etc", "first/", "./first", "first\0"),
        *("sweeps", "first/checkpoints", "..\\secret", "%2e%2e/secret", "x" * 5000),
    ],
)
def test_no_other_name_is_a_run(root: Path, name: str) -> None:
    with pytest.raises(NotFoundError):
        Folder(root).run(name)


def test_the_whole_path_is_no_name_either(root: Path) -> None:
    with pytest.raises(NotFoundError):
        Folder(root).run(str(root.parent / "secret"))


@pytest.mark.parametrize(
    "link",
    [
        "",
        "metrics.jsonl",
        "buffer.db",
        "provenance.json",
        "evals",
        "evals/step-000000.json",
        "evals/x/step-000000.json",
    ],
)
def test_a_link_to_the_outside_is_refused(root: Path, link: str) -> None:
    place = root / "first" / link if link else root / "linked"
    place.parent.mkdir(exist_ok=True)
    if place.is_dir():
        place.rmdir()
    place.unlink(missing_ok=True)
    place.symlink_to(root.parent / "secret" / link)
    with pytest.raises(UsageError, match="a link to a place outside"):
        Folder(root).run("first" if link else "linked")


def test_a_link_within_the_folder_is_followed_to_a_run(root: Path) -> None:
    (root / "newest").symlink_to(root / "first")
    (root / "loop").symlink_to(root)
    (root / "itself").symlink_to(root / "itself")
    assert names(root) == {"first", "newest", "sweeps/rates/runs/lr-1e-4"}
    assert Folder(root).run("newest").config().batch == 4


def test_a_name_that_is_no_text_is_left_out(root: Path) -> None:
    os.rename(os.fsencode(root / "first"), os.fsencode(root) + b"/\xff\xfe")
    assert names(root) == {"sweeps/rates/runs/lr-1e-4"}


def test_a_folder_that_cannot_be_read_holds_nothing(tmp_path: Path) -> None:
    assert names(tmp_path / "gone") == set()
