"""A recorded run, replays of it, and their deaths."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from rl.buffer.history import History
from rl.buffer.tables import State
from rl.core.rundir import RunDir
from tests.commands import LIMIT_S, words_of
from tests.e2e.conftest import Train
from tests.exact.recorded import record_run

RANDOM_S = 2.0
"""A random moment is within so many seconds."""
LAUNCHES = 4
"""To be killed at one point; the point may be over before the kill arrives."""


class Replay:
    """A replay that is killed and resumed."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._started: list[Train] = []

    def train(self, *argv: str) -> str:
        """Starts or resumes it, and lets it end; what it said."""
        code, out, err = self._start(*argv).finish()
        assert (code, err) == (0, ""), err
        return out

    def resume(self) -> str:
        return self.train("--resume", str(self.run.root))

    def die_when(self, reached: Callable[[RunDir], bool], *argv: str) -> None:
        """Kills all ranks and the supervisor, at the point that `reached` recognises, also in what they leave."""
        for _ in range(LAUNCHES):
            self._die_when(reached, *argv)
            if reached(self.run):
                return
            argv = ()
        pytest.fail(f"the kill came too late in {LAUNCHES} launches")

    def die_at_random(self, seed: int) -> None:
        moment = time.monotonic() + random.Random(seed).uniform(0, RANDOM_S)
        self._die_when(lambda run: time.monotonic() >= moment)

    def _die_when(self, reached: Callable[[RunDir], bool], *argv: str) -> None:
        before = self._logged()
        started = self._start(*(argv or ("--resume", str(self.run.root))))
        started.wait_for(lambda: self._logged() > before, "a step")
        ranks = [p for p in started.descendants() if p.is_running() and "rl.learner" in _command(p)]
        assert len(ranks) == self.run.config().learners
        end = time.monotonic() + LIMIT_S
        while not reached(self.run):
            assert started.process.poll() is None, started.process.communicate()
            assert time.monotonic() < end, f"waited {LIMIT_S} s to kill it"
        for process in ranks:
            process.kill()
        started.process.kill()
        assert started.finish()[0] == -signal.SIGKILL

    def _logged(self) -> int:
        return self.run.metrics_file.stat().st_size if self.run.metrics_file.exists() else 0

    def _start(self, *argv: str) -> Train:
        self._started.append(Train(*argv, cwd=self.run.root.parent))
        return self._started[-1]

    def end(self) -> None:
        for process in self._started:
            process.kill()


def _command(process: psutil.Process) -> list[str]:
    try:
        return words_of(process)
    except psutil.NoSuchProcess:
        return []


# ---- points at which a run may be killed


def in_a_step(run: RunDir) -> bool:
    """A batch is leased, and not trained yet."""
    return _books(run)[0][State.LEASED] > 0


def before_the_commit(run: RunDir) -> bool:
    """An update is made and published that no commit holds."""
    counts, committed = _books(run)
    config = run.config()
    return counts[State.TRAINED] * config.group_size > committed * config.batch > 0


def while_it_saves(run: RunDir) -> bool:
    """A checkpoint is written, and not whole yet."""
    return any(name.endswith(".part") for name in os.listdir(run.checkpoints))


def after_the_commit(run: RunDir) -> bool:
    """What is trained is committed, and the next step is not."""
    counts, committed = _books(run)
    config = run.config()
    return counts[State.TRAINED] * config.group_size == committed * config.batch > 0


def _books(run: RunDir) -> tuple[dict[State, int], int]:
    """Groups in each state, and the newest committed step."""
    with closing(History(run.buffer_url)) as history:
        return history.counts(), max(history.books().commits, default=0)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return record_run(tmp_path_factory.mktemp("recorded") / "run")


@pytest.fixture(scope="session")
def replayed(recorded: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], RunDir]:
    """`replayed(learners)`: a replay with so many learners that nobody killed, made once."""
    made: dict[int, RunDir] = {}

    def replay(learners: int) -> RunDir:
        if learners not in made:
            run = RunDir(tmp_path_factory.mktemp("replayed") / str(learners))
            Replay(run).train(*replaying(recorded, run), "--learners", str(learners))
            made[learners] = run
        return made[learners]

    return replay


def replaying(recorded: RunDir, run: RunDir) -> list[str]:
    return ["--replay", str(recorded.root), "--run-dir", str(run.root)]


@pytest.fixture
def replay(tmp_path: Path) -> Iterator[Replay]:
    replay = Replay(RunDir(tmp_path / "replay"))
    yield replay
    replay.end()


def checkpoint_bytes(run: RunDir, step: int) -> dict[str, bytes]:
    """Every file of a checkpoint: adapter, optimizer and their hashes."""
    return {path.name: path.read_bytes() for path in (run.checkpoints / f"step-{step:06d}").iterdir()}
