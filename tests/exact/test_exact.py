"""What was recorded is trained again to the same bits, whatever kills it and whatever damages its checkpoints."""

import shutil
from collections.abc import Callable

import pytest

from rl.core.rundir import RunDir
from rl.learner.checkpoint import ADAPTER, OPTIMIZER
from tests.exact.conftest import (
    Replay,
    after_the_commit,
    before_the_commit,
    checkpoint_bytes,
    in_a_step,
    replaying,
    while_it_saves,
)
from tests.exact.recorded import STEPS

pytestmark = pytest.mark.e2e
Replayed = Callable[[int], RunDir]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("learners", "points", "seeds"),
    [
        (1, [in_a_step, while_it_saves, before_the_commit, after_the_commit], [0]),
        (2, [before_the_commit, while_it_saves, after_the_commit], []),
    ],
)
def test_a_replay_that_is_killed_again_and_again_ends_with_the_same_bits(
    recorded: RunDir, replayed: Replayed, replay: Replay, learners: int, points: list, seeds: list[int]
) -> None:
    replay.die_when(points[0], *replaying(recorded, replay.run), "--learners", str(learners))
    for point in points[1:]:
        replay.die_when(point)
    for seed in seeds:
        replay.die_at_random(seed)
    replay.resume()
    assert checkpoint_bytes(replay.run, STEPS) == checkpoint_bytes(replayed(learners), STEPS)
    kept = [record for record in replay.run.records() if record["kind"] == "step"]
    assert [record["step"] for record in kept] == list(range(1, STEPS + 1))


def flip(content: bytes, byte: int = 40) -> bytes:
    return content[:byte] + bytes([content[byte] ^ 1]) + content[byte + 1 :]


@pytest.mark.parametrize("learners", [1, 3])
def test_damaged_checkpoints_are_told_and_an_older_sound_one_is_taken(
    replayed: Replayed, replay: Replay, learners: int
) -> None:
    """With three ranks, whose sums depend on the order of adding, a resumed step has to add as all others do."""
    sound = replayed(learners)
    shutil.copytree(sound.root, replay.run.root)
    newest, older = replay.run.checkpoints / "step-000012" / ADAPTER, replay.run.checkpoints / "step-000009" / OPTIMIZER
    newest.write_bytes(flip(newest.read_bytes()))
    older.write_bytes(older.read_bytes()[:-1])
    out = replay.resume()
    assert f"{newest} is not what was saved" in out
    assert f"{older} is not what was saved" in out
    assert "goes on from step 6; 6 steps are trained again from the recorded groups" in out
    for step in (9, 12):
        assert checkpoint_bytes(replay.run, step) == checkpoint_bytes(sound, step)


def test_another_rate_and_loss_on_the_same_groups_of_a_replay(replayed: Replayed, replay: Replay) -> None:
    first = replayed(1)
    out = replay.train(*replaying(first, replay.run), "--lr", "1e-3", "--loss", "dapo", "--steps", "4")
    assert out.splitlines()[-1] == f"results in {replay.run.root}; next: python -m rl.eval {replay.run.root}"
    assert "mismatch" not in out
    assert (replay.run.config().steps, replay.run.config().group_size) == (4, 4)
    assert replay.run.checkpoint_steps() == [0, 3, 4], "the last step is saved in any case"
    assert replay.run.sources()["batch"] == f"replay of {first.root}"
    theirs, ours = ([r for r in run.records() if r["kind"] == "step"][:4] for run in (first, replay.run))
    assert all(r["mismatch_kl"] is None and r["publish_s"] is None for r in ours)
    same = ("reward", "reward_trained", "no_signal", "unverified", "errors", "length", "tokens", "staleness_mean")
    assert [[r[name] for name in same] for r in ours] == [[r[name] for name in same] for r in theirs]
    assert [r["lr"] for r in ours] != [r["lr"] for r in theirs]
    adapters = {step: [checkpoint_bytes(run, step)[ADAPTER] for run in (first, replay.run)] for step in (0, 3)}
    assert adapters[0][0] == adapters[0][1]
    assert adapters[3][0] != adapters[3][1]


@pytest.mark.vllm
def test_a_run_and_its_replay_end_with_the_same_bits(replay: Replay) -> None:
    live = RunDir(replay.run.root.with_name("live"))
    flags = ["--steps", "12", "--save-every", "5", "--eval-problems", "4", "--eval-samples", "1", "--wandb", "off"]
    Replay(live).train("--run-dir", str(live.root), *flags)
    replay.train(*replaying(live, replay.run))
    assert live.checkpoint_steps() == replay.run.checkpoint_steps() == [0, 5, 10, 12]
    for step in live.checkpoint_steps():
        assert checkpoint_bytes(replay.run, step) == checkpoint_bytes(live, step)
