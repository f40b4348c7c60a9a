"""The whole service as a user starts it, and the processes that it leaves behind: none."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rl.core.rundir import RunDir
from tests.commands import Command

SMALL = ["--eval-problems", "8", "--eval-samples", "2"]


class Train(Command):
    def __init__(self, *argv: str, cwd: Path) -> None:
        super().__init__("rl.train", *argv, cwd=cwd)


@pytest.fixture
def train(tmp_path: Path) -> Iterator[Callable[..., Train]]:
    started: list[Train] = []

    def start(*argv: str) -> Train:
        started.append(Train(*argv, cwd=tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def steps_of(run: RunDir) -> list[int]:
    return [record["step"] for record in run.records() if record["kind"] == "step"]
