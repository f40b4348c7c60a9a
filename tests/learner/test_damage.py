"""Damage to a checkpoint is found, told, and gone round; a disk that is full leaves nothing half-written."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from rl.buffer.compact import compact
from rl.buffer.ledger import Buffer
from rl.core.config import TrainConfig
from rl.core.errors import TallyError
from rl.core.rundir import RunDir, name_of
from rl.core.types import Group
from rl.learner.checkpoint import (
    ADAPTER,
    ADAPTER_CONFIG,
    MANIFEST,
    OPTIMIZER,
    damage_of,
    go_back,
    load,
    newest_sound,
    read_adapter,
    save,
)
from rl.learner.policy import Policy
from rl.learner.step import Learner
from rl.problems.starter import STARTER_MODEL
from tests.conftest import SHA256
from tests.learner.batch import make_batch
from tests.observe.recorded import new_run

CONFIG = TrainConfig(lora_target="q_proj", lora_rank=2, batch=8)
STEPS = (0, 10, 20)


@pytest.fixture(scope="module")
def learner() -> Learner:
    """With an optimizer that has a state."""
    torch.set_num_threads(1)
    learner = Learner(Policy(str(STARTER_MODEL), CONFIG, torch.device("cpu")), CONFIG)
    learner.step(make_batch(CONFIG, learner.policy), 1)
    return learner


@pytest.fixture
def run(tmp_path: Path, learner: Learner) -> RunDir:
    """With a checkpoint of each step."""
    run = new_run(tmp_path / "run")
    for step in STEPS:
        save(run.checkpoints / name_of(step), step, learner.policy, learner.optimizer)
    return run


@pytest.fixture
def buffer(run: RunDir, make_group: Callable[..., Group]) -> Iterator[Buffer]:
    """With a commit of each step, one trained group between two of them and one after the last."""
    buffer = Buffer(run.buffer_url, capacity=2, group_size=2)
    buffer.proved("p", 0, SHA256)
    for step in STEPS:
        buffer.commit(step, name_of(step), evaluate=["heldout"])
        (id,) = buffer.issue()
        buffer.put(make_group(id))
        buffer.trained([group.id for group in buffer.lease(1, policy_version=step, max_staleness=99)])
    yield buffer
    buffer.close()


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES: list[Callable[[Path], None]] = [lambda path: flip(path, 999), cut, Path.unlink]


@pytest.mark.parametrize("damage", DAMAGES, ids=["flipped", "truncated", "missing"])
@pytest.mark.parametrize("name", [ADAPTER, ADAPTER_CONFIG, OPTIMIZER, MANIFEST])
def test_damage_to_any_file_is_found_and_named(
    run: RunDir, learner: Learner, name: str, damage: Callable[[Path], None]
) -> None:
    checkpoint = run.checkpoints / name_of(20)
    assert damage_of(checkpoint) is None
    damage(checkpoint / name)
    told = damage_of(checkpoint)
    assert told is not None
    assert str(checkpoint / name) in told or name == MANIFEST  # of a hash that is flipped in it the file is named
    if name != ADAPTER_CONFIG:  # a copy for peft: the adapter's bytes have it, too
        with pytest.raises(TallyError, match=name if damage is Path.unlink else "is not what was saved"):
            load(checkpoint, learner.policy, learner.optimizer)


def test_no_bit_of_the_manifest_may_flip(run: RunDir) -> None:
    checkpoint = run.checkpoints / name_of(20)
    whole = (checkpoint / MANIFEST).read_bytes()
    for bit in range(8 * len(whole)):
        flip(checkpoint / MANIFEST, bit)
        assert damage_of(checkpoint) is not None, bit
        (checkpoint / MANIFEST).write_bytes(whole)
    assert damage_of(checkpoint) is None


def test_a_checkpoint_of_another_step_is_none_of_this(run: RunDir) -> None:
    newest = run.checkpoints / name_of(20)
    newest.rename(newest.with_name("aside"))
    (run.checkpoints / name_of(10)).rename(newest)
    assert damage_of(newest) == f"{newest / MANIFEST} is not what was saved"


def test_the_newest_sound_commit_is_taken_and_the_damage_told(run: RunDir, buffer: Buffer) -> None:
    said: list[str] = []
    assert (newest_sound(run, buffer, said.append), said) == (20, [])
    cut(run.checkpoints / name_of(20) / OPTIMIZER)
    assert newest_sound(run, buffer, said.append) == 10
    (line,) = said
    assert f"{name_of(20)}/{OPTIMIZER} is not what was saved: its hash is " in line
    assert line.endswith("; the run goes back to step 10")
    assert buffer.commits() == [0, 10]
    assert buffer.awaited() == [(0, "heldout"), (10, "heldout")], "what is not there cannot be evaluated"


def test_going_back_says_what_is_trained_again(run: RunDir, buffer: Buffer) -> None:
    said: list[str] = []
    cut(run.checkpoints / name_of(20) / ADAPTER)
    assert go_back(run, buffer, said.append) == 10
    assert said[1:] == ["goes on from step 10; 2 steps are trained again from the recorded groups"]
    assert go_back(run, buffer, said.append) == 10
    assert len(said) == 2


def test_without_a_sound_checkpoint_the_run_begins_again_from_its_groups(run: RunDir, buffer: Buffer) -> None:
    for step in STEPS:
        (run.checkpoints / name_of(step) / MANIFEST).unlink()
    said: list[str] = []
    assert go_back(run, buffer, said.append) == 0
    assert said[-1] == "goes on from step 0; 3 steps are trained again from the recorded groups"
    assert buffer.newest_commit() is None
    for step, id in zip(STEPS, (1, 2, 3), strict=True):
        (group,) = buffer.lease(1, policy_version=step, max_staleness=0)
        assert group.id == id


def test_what_was_compacted_away_cannot_be_trained_again(run: RunDir, buffer: Buffer) -> None:
    (run.checkpoints / name_of(20) / ADAPTER).unlink()
    buffer.close()
    compact(run.buffer_url)
    with pytest.raises(TallyError, match="1 groups trained after step 10 were compacted away") as told:
        newest_sound(run, buffer, pytest.fail)
    assert f"restore {run.checkpoints / name_of(20)}" in told.value.fix
    assert buffer.commits() == list(STEPS), "it may be restored"


def test_an_older_checkpoint_that_awaits_an_evaluation_ends_no_resume(run: RunDir, buffer: Buffer) -> None:
    cut(run.checkpoints / name_of(0) / ADAPTER)
    said: list[str] = []
    assert newest_sound(run, buffer, said.append) == 20
    (line,) = said
    assert line.endswith("; its evaluations will be missing")
    assert buffer.awaited() == [(10, "heldout"), (20, "heldout")]


def test_a_damaged_adapter_is_not_evaluated(run: RunDir) -> None:
    flip(run.checkpoints / name_of(20) / ADAPTER, 4000)
    with pytest.raises(TallyError, match="is not what was saved") as told:
        read_adapter(run.checkpoints / name_of(20))
    assert "--resume" in told.value.fix


def test_what_is_loaded_goes_on_to_the_same_bits(run: RunDir, learner: Learner, tmp_path: Path) -> None:
    other = Learner(Policy(str(STARTER_MODEL), replace_seed(CONFIG), torch.device("cpu")), CONFIG)
    load(run.checkpoints / name_of(20), other.policy, other.optimizer)
    save(tmp_path / name_of(20), 20, other.policy, other.optimizer)
    for file in (run.checkpoints / name_of(20)).iterdir():
        assert (tmp_path / name_of(20) / file.name).read_bytes() == file.read_bytes()


def replace_seed(config: TrainConfig) -> TrainConfig:
    return config.model_copy(update={"seed": config.seed + 1})


@contextmanager
def no_room(after: int) -> Iterator[None]:
    """The kernel refuses to make a file longer than so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("after", [0, 2000, 20_000])
def test_what_cannot_be_saved_is_told_and_leaves_nothing(run: RunDir, learner: Learner, after: int) -> None:
    with no_room(after), pytest.raises(TallyError, match=f"cannot save .*{name_of(30)}: File too large") as told:
        save(run.checkpoints / name_of(30), 30, learner.policy, learner.optimizer)
    assert told.value.exit_code == 3
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [name_of(step) for step in STEPS]
