"""The roles of one run in commands of their own, which share its run directory, as those of compose.yaml do."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rl.core.rundir import RunDir
from tests.commands import Command
from tests.e2e.conftest import SMALL, Train, steps_of

pytestmark = [pytest.mark.e2e, pytest.mark.vllm]
ROLES = ("server", "collector", "evaluator")
ELSEWHERE = ("--elsewhere", ",".join(ROLES))


@pytest.fixture
def members(tmp_path: Path) -> Iterator[list[Command]]:
    """Of the run `shared`."""
    joined = [Command("rl.join", role, "shared", cwd=tmp_path) for role in ROLES]
    yield joined
    for member in joined:
        member.kill()


def test_members_wait_for_who_goes_on_with_a_run_and_leave_at_its_end(
    train: Callable[..., Train], members: list[Command], tmp_path: Path
) -> None:
    run = RunDir(tmp_path / "shared")
    first = train("--run-dir", "shared", "--steps", "500", *ELSEWHERE, *SMALL)
    first.wait_for(lambda: len(steps_of(run)) >= 3, "three steps")
    first.process.send_signal(signal.SIGINT)
    code, out, _ = first.finish()
    assert code == 130
    assert out.splitlines()[-1].endswith(f"python -m rl.train --resume shared {' '.join(ELSEWHERE)}")
    stopped = steps_of(run)[-1]

    code, out, err = train("--resume", "shared", "--steps", str(stopped + 3), *ELSEWHERE).finish()
    assert (code, err) == (0, "")
    assert steps_of(run) == list(range(1, stopped + 4))
    for role, member in zip(ROLES, members, strict=True):
        code, out, _ = member.finish()
        assert code == 0
        joined, *news = out.splitlines()
        assert joined.startswith(f"{role} of the run shared")
        assert news == ["the run was stopped; waits for who goes on with it", "goes on with the run"]
