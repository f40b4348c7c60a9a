"""What the tests share: small groups made by hand, and a server that answers from a script."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rewards.verdict import Mark, Verdict
from rl.core.processes import Child, Children
from rl.core.types import Group, Problem, Rollout, Sample
from rl.launch.server import listen, url_of
from tests.postgres import database_url, ledger_url, postgres, postgres_url  # noqa: F401  fixtures

SHA256 = "ab" * 32
"""Of the adapter that the groups made here were sampled by."""


@pytest.fixture(scope="session")
def make_group() -> Callable[..., Group]:
    """`make_group(id, marks="rw", version=0)`: one sample for each letter: r(ight), w(rong), e(rror)."""
    marks = {"r": Mark.RIGHT, "w": Mark.WRONG, "e": Mark.ERROR}

    def make(id: int, marks_text: str = "rw", version: int = 0) -> Group:
        samples = [
            Sample(
                rollout=Rollout(
                    token_ids=[5 + i, 6, 1],
                    sampler_logprobs=[-0.5, -0.25 * (i + 1), -0.125],
                    policy_version=version,
                    finish_reason="stop",
                    text=f"completion {i}",
                ),
                verdict=Verdict(mark=marks[letter], reason="by hand", answer=str(i), gold="2"),
            )
            for i, letter in enumerate(marks_text)
        ]
        problem = Problem(id=f"problem-{id}", text="1+1", gold="2")
        return Group(id=id, problem=problem, prompt_ids=[3, 4], policy="p", adapter_sha256=SHA256, samples=samples)

    return make


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Of a rollout server with the scripted engine, in a process of its own."""
    with Children() as children:
        with listen(0) as listener:
            command = [sys.executable, "-m", "rollout_server", "--engine", "scripted", "--fd", str(listener.fileno())]
            children.add(Child("server", command, tmp_path / "server.log", {}, pass_fds=[listener.fileno()]))
            address = url_of(listener)
        yield address
