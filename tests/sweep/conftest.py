"""Sweeps in processes of their own, and what they leave behind: none."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rl.core.rundir import RunDir
from tests.commands import Command


@pytest.fixture
def sweep() -> Iterator[Callable[..., Command]]:
    """`sweep(module, *argv)` starts one: of `tests.sweep.fake_sweep`, or of `rl.sweep` for real runs."""
    started: list[Command] = []

    def start(module: str, *argv: str) -> Command:
        started.append(Command(module, *argv))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def steps_of(path: Path) -> int:
    return sum(record["kind"] == "step" for record in RunDir(path).records())
