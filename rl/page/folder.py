"""Which runs there are below a folder, and that nothing is read from anywhere else.

A run's name on the page is its path below the folder, with slashes: `first`, `sweeps/rates/runs/lr-1e-4-seed0`.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from os.path import isfile, realpath
from pathlib import Path, PurePosixPath

from rl.core.errors import UsageError
from rl.core.rundir import RunDir

DEPTH = 4
"""Folders below the given one in which runs are looked for: a sweep has its own in `sweeps/NAME/runs/`."""
FOLDERS = 5_000
"""Looked into, at most: somebody may name the root of a disk."""


class NotFoundError(UsageError):
    """There is nothing of this name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Something below the folder that is a run, or was one."""

    name: str
    changed: float
    """When its records or its configuration were written, in seconds of the file system's clock."""


@dataclass(frozen=True)
class Folder:
    """A folder with runs below it, or a single run; it exists."""

    root: Path

    @property
    def is_run(self) -> bool:
        return isfile(RunDir(self.root).config_file)

    def found(self) -> list[Found]:
        """The runs, the one that was written last first. Left out are names that are no text: no address can have
        them."""
        places = [self.root] if self.is_run else self._walk()
        runs = [Found(name=self._name(place), changed=_changed(RunDir(place))) for place in places]
        return sorted(runs, key=lambda run: (-run.changed, run.name))

    def run(self, name: str) -> RunDir:
        """The run of this name, once it is sure that what will be read of it lies below the folder.

        Raises:
            NotFoundError: there is none.
            UsageError: it, or a file of it, is a link to a place outside.
        """
        parts = PurePosixPath(name).parts
        if not parts or "\0" in name or name != "/".join(parts) or ".." in parts:
            raise NotFoundError("there is no run of this name", fix="the list of runs has what there is")
        run = RunDir(self.root if self.is_run else self.root.joinpath(*parts))
        if name != self._name(run.root) or not isfile(run.config_file):
            raise NotFoundError(f"there is no run {name} here", fix="the list of runs has what there is")
        home = Path(realpath(self.root))
        for path in (run.root, *_links(run.root), *_links(run.evals), *_links_of_sets(run)):
            if not Path(realpath(path)).is_relative_to(home):
                fix = "start the page on a folder that holds the files themselves"
                raise UsageError(f"{name}: {path.name} is a link to a place outside of the folder", fix=fix)
        return run

    def _name(self, place: Path) -> str:
        return Path(realpath(self.root)).name if place == self.root else place.relative_to(self.root).as_posix()

    def _walk(self) -> Iterator[Path]:
        """Folders with a config.json. A link is followed only to a run itself."""
        level, looked = [self.root], 0
        for _ in range(DEPTH):
            below: list[Path] = []
            for folder in level:
                looked += 1
                if looked > FOLDERS:
                    return
                for entry in _entries(folder):
                    if entry.name.startswith(".") or not _is_text(entry.name):
                        continue
                    place = folder / entry.name
                    if isfile(RunDir(place).config_file):
                        yield place
                    elif entry.is_dir(follow_symlinks=False):
                        below.append(place)
            level = below


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """By name; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _is_text(name: str) -> bool:
    """Python has lone surrogates for the bytes of a name that are no UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _links(folder: Path) -> Iterator[Path]:
    return (folder / entry.name for entry in _entries(folder) if entry.is_symlink())


def _links_of_sets(run: RunDir) -> Iterator[Path]:
    for entry in _entries(run.evals):
        if entry.is_dir(follow_symlinks=False):
            yield from _links(run.evals / entry.name)


def _changed(run: RunDir) -> float:
    """0 where nobody can tell."""
    for file in (run.metrics_file, run.config_file):
        with suppress(OSError):
            return file.stat().st_mtime
    return 0.0
