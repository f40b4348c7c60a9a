"""What a replay takes over from the run that was recorded, what may differ, and what cannot be replayed."""

import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from rl.buffer.compact import compact
from rl.buffer.history import History
from rl.buffer.ledger import Buffer
from rl.buffer.tables import State
from rl.core.cli import Resolved
from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.launch.begin import created, resolve, resumed
from rl.train import _parser
from tests.exact.recorded import STEPS
from tests.observe.recorded import new_run


def asked(*flags: object) -> Resolved:
    return resolve(_parser().parse_args([str(flag) for flag in flags]))


@pytest.fixture
def own(recorded: RunDir, tmp_path: Path) -> RunDir:
    """A recorded run that was stopped long before its end; the test may damage it."""
    run = RunDir(shutil.copytree(recorded.root, tmp_path / "own"))
    config = run.config().model_copy(update={"steps": 200, "token_budget": 9999})
    run.write_config(Resolved(config=config, sources=run.sources()))
    return run


def test_a_replay_has_the_settings_of_its_run_but_for_what_is_named(recorded: RunDir, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("loss = 'dapo'\nbatch = 16")
    replay = asked("--replay", recorded.root, "--lr", "1e-3", "--config", tmp_path / "other.toml")
    changed = {"replay": str(recorded.root), "lr": 1e-3, "loss": "dapo", "clip_low": None}
    assert replay.config == recorded.config().model_copy(update=changed)
    assert (replay.sources["lr"], replay.sources["loss"]) == ("flag", str(tmp_path / "other.toml"))
    assert replay.sources["warmup"] == f"replay of {recorded.root}"
    assert replay.config.consequences()[0].startswith(f"replay of {recorded.root}")


def test_it_ends_with_what_is_recorded_and_by_no_limit_of_its_run(own: RunDir) -> None:
    replay = asked("--replay", own.root).config
    assert (replay.steps, replay.token_budget) == (STEPS, None)
    assert asked("--replay", own.root, "--steps", 5, "--token-budget", 7).config.token_budget == 7


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--group-size", "8"], "--group-size of .* cannot be changed by --replay"),
        (["--temperature", "0.5"], "--temperature of .* cannot be changed by --replay"),
        (["--eval-on", "math500"], "--eval-on of .* cannot be changed by --replay"),
        (["--steps", "13"], "--steps 13: only 12 steps are recorded"),
        (["--lr", "fast"], "--lr fast"),
    ],
)
def test_what_was_sampled_cannot_be_changed(recorded: RunDir, flags: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as told:
        asked("--replay", recorded.root, *flags)
    assert told.value.fix


def test_what_cannot_be_replayed_is_told(own: RunDir, tmp_path: Path) -> None:
    def refused(run: Path, message: str) -> None:
        with pytest.raises(UsageError, match=message) as told:
            asked("--replay", run)
        assert told.value.fix

    refused(tmp_path / "nowhere", "is not a run")
    fresh = new_run(tmp_path / "fresh")
    refused(fresh.root, "cannot read the ledger")
    with closing(Buffer(fresh.buffer_url, capacity=8, group_size=2)) as buffer:
        buffer.commit(0, "step-000000")
    refused(fresh.root, "has no step that is trained and saved")
    compact(own.buffer_url)
    refused(own.root, "48 of the 48 groups that .* was trained on were compacted away")


def test_a_replay_has_the_recorded_groups_each_in_its_step(own: RunDir, tmp_path: Path) -> None:
    """Of a run in progress, through its newest commit: what was trained since is not copied."""
    with closing(Buffer(own.buffer_url, capacity=64, group_size=4)) as buffer:
        buffer.forget_commit(STEPS)
        buffer.commit(9, "step-000009")
    before = own.root.joinpath("buffer.db").read_bytes()
    with (
        own.locked(),
        created(asked("--replay", own.root, "--steps", 5), tmp_path / "replay") as (run, config),
        closing(History(own.buffer_url)) as theirs,
        closing(Buffer(run.buffer_url, capacity=64, group_size=4)) as buffer,
    ):
        assert config.steps == 5
        assert buffer.counts() | {State.READY: 36, State.NO_SIGNAL: 9} == buffer.counts()
        for step in range(1, 10):
            leased = buffer.lease(99, policy_version=step - 1, max_staleness=0)
            assert leased == [entry.group for entry in theirs.trained_in(step)]
            turn = buffer.trained([group.id for group in leased])
            assert turn.states == {State.TRAINED: 4, State.NO_SIGNAL: 1}
        assert buffer.lease(4, policy_version=9, max_staleness=0) == []
    assert own.root.joinpath("buffer.db").read_bytes() == before


def test_a_replay_may_be_made_longer_up_to_what_is_recorded(recorded: RunDir, tmp_path: Path) -> None:
    def resume(*flags: object) -> None:
        with resumed(_parser().parse_args(["--resume", str(tmp_path / "replay"), *map(str, flags)])):
            pass

    with created(asked("--replay", recorded.root, "--steps", 5), tmp_path / "replay") as (run, _):
        pass
    resume("--steps", STEPS)
    assert run.config().steps == STEPS
    with pytest.raises(UsageError, match="only 12 steps are recorded"):
        resume("--steps", STEPS + 1)
    with pytest.raises(UsageError, match="--lr cannot be changed by --resume"):
        resume("--lr", 1)


def test_a_decay_that_ends_earlier_than_that_of_the_run_is_told(
    own: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with created(asked("--replay", own.root), tmp_path / "replay"):
        pass
    assert capsys.readouterr().out == f"the cosine decay ends at step 12; that of {own.root} ended at 200\n"


def test_a_replay_never_takes_the_place_of_what_it_reads(own: RunDir) -> None:
    with pytest.raises(UsageError, match="cannot take the place"), created(asked("--replay", own.root), own.root, True):
        pass
    assert own.config().steps == 200


def test_a_run_whose_problems_have_changed_is_not_replayed(own: RunDir, tmp_path: Path) -> None:
    own.problems_file.write_text("other\n")
    with pytest.raises(UsageError, match="not those that it began with"), created(asked("--replay", own.root)):
        pass


def test_its_directory_says_that_it_is_one(recorded: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with created(asked("--replay", recorded.root)) as (run, _):
        assert run.root.name.endswith("-replay")
        assert json.loads(run.config_file.read_text())["config"]["replay"] == str(recorded.root)
