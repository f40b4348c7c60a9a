"""The ledger: every group ends in exactly one state, capacity bounds staleness, order is that of issue."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.buffer import codec
from rl.buffer.ledger import Buffer, State
from rl.core.types import Group

MakeGroup = Callable[..., Group]


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[Buffer]:
    buffer = Buffer(f"sqlite:///{tmp_path}/buffer.db", capacity=8, group_size=2)
    yield buffer
    buffer.close()


def test_codec_returns_the_same_group(make_group: MakeGroup) -> None:
    group = make_group(3, "rwe", version=7)
    assert codec.decode(codec.encode(group)) == group


def test_codec_refuses_what_is_no_group() -> None:
    with pytest.raises(msgspec.DecodeError):
        codec.decode(msgspec.msgpack.encode({"id": "three"}))


def test_capacity_counts_issued_stored_and_leased(buffer: Buffer, make_group: MakeGroup) -> None:
    assert buffer.issue() == [1, 2, 3, 4]
    assert buffer.issue() == []
    for i in (1, 2):
        buffer.put(make_group(i))
    assert buffer.issue() == []
    leased = buffer.lease(2, policy_version=0, max_staleness=1)
    assert [g.id for g in leased] == [1, 2]
    assert buffer.issue() == []
    buffer.trained([1, 2])
    assert buffer.issue() == [5, 6]


def test_lease_waits_for_the_first_issued(buffer: Buffer, make_group: MakeGroup) -> None:
    buffer.issue()
    buffer.put(make_group(2))
    buffer.put(make_group(3))
    assert buffer.lease(2, policy_version=0, max_staleness=9) == []
    buffer.put(make_group(1))
    assert [g.id for g in buffer.lease(2, policy_version=0, max_staleness=9)] == [1, 2]


def test_group_without_signal_frees_its_slot_and_is_counted(buffer: Buffer, make_group: MakeGroup) -> None:
    buffer.issue()
    assert buffer.put(make_group(1, "rr")) == State.NO_SIGNAL
    assert buffer.put(make_group(2, "ee")) == State.UNVERIFIED
    assert buffer.put(make_group(3, "re")) == State.UNVERIFIED
    assert buffer.put(make_group(4, "rwe")) == State.READY
    assert buffer.issue() == [5, 6, 7]
    buffer.lease(1, policy_version=0, max_staleness=0)
    turn = buffer.trained([4])
    assert turn.states == {State.NO_SIGNAL: 1, State.UNVERIFIED: 2, State.TRAINED: 1}
    assert turn.reward == pytest.approx((1.0 + 0.5) / 2)
    buffer.put(make_group(5))
    buffer.lease(1, policy_version=1, max_staleness=1)
    assert buffer.trained([5]).states == {State.TRAINED: 1}


def test_too_stale_groups_expire(buffer: Buffer, make_group: MakeGroup) -> None:
    buffer.issue()
    for i, version in ((1, 0), (2, 2), (3, 3), (4, 3)):
        buffer.put(make_group(i, version=version))
    assert [g.id for g in buffer.lease(2, policy_version=3, max_staleness=1)] == [2, 3]
    assert buffer.counts()[State.EXPIRED] == 1


@pytest.mark.parametrize("again", [1, 9])
def test_only_an_issued_group_can_be_put(buffer: Buffer, make_group: MakeGroup, again: int) -> None:
    buffer.issue()
    buffer.put(make_group(1))
    with pytest.raises(LookupError):
        buffer.put(make_group(again))


def test_trained_counts_a_group_once(buffer: Buffer, make_group: MakeGroup) -> None:
    buffer.issue()
    for i in (1, 2):
        buffer.put(make_group(i))
    buffer.lease(2, policy_version=0, max_staleness=0)
    buffer.trained([1, 2])
    with pytest.raises(LookupError):
        buffer.trained([1, 2])
    assert buffer.counts()[State.TRAINED] == 2


def test_rewind_returns_what_was_trained_after_the_commit(buffer: Buffer, make_group: MakeGroup) -> None:
    buffer.issue()
    for i in (1, 2, 3):
        buffer.put(make_group(i))
    for step, i in enumerate((1, 2), start=1):
        buffer.lease(1, policy_version=step - 1, max_staleness=9)
        buffer.trained([i])
        if step == 1:
            buffer.commit(1, "step-000001")
    buffer.lease(1, policy_version=2, max_staleness=9)
    assert buffer.rewind() == 1
    assert buffer.newest_commit() == (1, "step-000001")
    assert buffer.counts()[State.READY] == 2
    assert [g.id for g in buffer.lease(1, policy_version=1, max_staleness=9)] == [2]
    assert buffer.unfinished() == [4]


def test_rewind_without_a_commit_starts_over(buffer: Buffer, make_group: MakeGroup) -> None:
    buffer.issue()
    buffer.put(make_group(1))
    buffer.lease(1, policy_version=0, max_staleness=0)
    assert buffer.rewind() == 0
    assert buffer.newest_commit() is None
    assert buffer.counts()[State.READY] == 1


def test_stop_is_asked_and_taken_back(buffer: Buffer) -> None:
    assert not buffer.stop_asked()
    buffer.ask_stop()
    assert buffer.stop_asked()
    buffer.ask_stop(False)
    assert not buffer.stop_asked()


def test_evaluations_are_asked_once_and_the_first_set_is_made_first(buffer: Buffer) -> None:
    for step in (0, 10, 20, 20):
        buffer.commit(step, f"step-{step}", evaluate=["heldout", "gsm8k@test"] if step != 10 else [])
    assert buffer.awaited() == [(0, "heldout"), (20, "heldout"), (0, "gsm8k@test"), (20, "gsm8k@test")]
    buffer.evaluated(0, "heldout")
    buffer.evaluated(20, "gsm8k@test")
    assert buffer.awaited() == [(20, "heldout"), (0, "gsm8k@test")]
    buffer.commit(20, "step-20", evaluate=["heldout", "gsm8k@test"])
    assert len(buffer.awaited()) == 2, "what is made is not asked again"


def test_a_commit_may_ask_for_evaluations_later(buffer: Buffer) -> None:
    buffer.commit(7, "step-7")
    assert buffer.awaited() == []
    buffer.commit(7, "step-7", evaluate=["heldout"])
    assert buffer.awaited() == [(7, "heldout")]
    assert buffer.commits() == [7]


def test_a_commit_that_is_forgotten_is_gone(buffer: Buffer) -> None:
    for step in (0, 10, 20):
        buffer.commit(step, f"step-{step}")
    buffer.forget_commit(10)
    assert buffer.commits() == [0, 20]
    assert buffer.newest_commit() == (20, "step-20")


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 4),
    slots=st.integers(1, 12),
    seed=st.integers(0, 10**6),
    share_dull=st.floats(0, 0.7),
)
def test_staleness_is_bounded_by_capacity(
    tmp_path_factory: pytest.TempPathFactory,
    make_group: MakeGroup,
    batch: int,
    slots: int,
    seed: int,
    share_dull: float,
) -> None:
    """Random schedules of sampling, verifying and training: no sample is ever staler than ⌈capacity / batch⌉ − 1."""
    slots = max(slots, batch)
    bound = -(-slots // batch) - 1
    buffer = Buffer(f"sqlite:///{tmp_path_factory.mktemp('ledger')}/b.db", capacity=2 * slots, group_size=2)
    rng = random.Random(seed)
    version, in_flight, seen = 0, {}, 0
    for _ in range(150):
        action = rng.random()
        if action < 0.3:
            in_flight |= dict.fromkeys(buffer.issue(), None)
        elif action < 0.7 and in_flight:
            i = rng.choice(list(in_flight))
            if in_flight[i] is None:  # the request reaches the server now: this version samples it
                in_flight[i] = version
            else:
                marks = "rr" if rng.random() < share_dull else "rw"
                buffer.put(make_group(i, marks, version=in_flight.pop(i)))
        elif leased := buffer.lease(batch, policy_version=version, max_staleness=10**6):
            assert max(version - g.oldest_version for g in leased) <= bound
            version += 1
            buffer.trained([g.id for g in leased])
            seen += 1
    counts = buffer.counts()
    assert counts[State.TRAINED] == seen * batch
    assert counts[State.EXPIRED] == 0
    buffer.close()
