"""The ledger: every group ends in exactly one state, only what was proved is stored, order is that of issue."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import msgspec
import pytest

from rl.buffer import codec
from rl.buffer.ledger import Buffer
from rl.buffer.tables import State
from rl.core.errors import LedgerError, PublishError
from rl.core.types import Group
from tests.conftest import SHA256

MakeGroup = Callable[..., Group]


@pytest.fixture
def buffer(ledger_url: str) -> Iterator[Buffer]:
    buffer = Buffer(ledger_url, capacity=8, group_size=2)
    for version in range(4):
        buffer.proved("p", version, SHA256)
    yield buffer
    buffer.close()


def test_codec_returns_the_same_group(make_group: MakeGroup) -> None:
    group = make_group(3, "rwe", version=7)
    assert codec.decode(codec.encode(group)) == group


def test_codec_refuses_what_is_no_group() -> None:
    body = msgspec.msgpack.encode({"id": "three"})
    with pytest.raises(LedgerError, match="no group"):
        codec.decode(zlib.crc32(body).to_bytes(codec.CHECKSUM) + body)


@pytest.mark.parametrize("place", [0, 3, 4, 200])
def test_codec_notices_a_flipped_bit(make_group: MakeGroup, place: int) -> None:
    payload = bytearray(codec.encode(make_group(3)))
    payload[place] ^= 0x10
    with pytest.raises(LedgerError, match="checksum"):
        codec.decode(bytes(payload))


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


def train(buffer: Buffer, step: int, batch: int = 1) -> list[int]:
    """Leases and trains one step; returns the ids of its groups."""
    ids = [group.id for group in buffer.lease(batch, policy_version=step - 1, max_staleness=9)]
    buffer.trained(ids)
    return ids


def test_rewind_returns_what_was_trained_after_the_commit(buffer: Buffer, make_group: MakeGroup) -> None:
    buffer.issue()
    for i in (1, 2, 3):
        buffer.put(make_group(i))
    assert train(buffer, 1) == [1]
    buffer.commit(1, "step-000001")
    assert train(buffer, 2) == [2]
    buffer.lease(1, policy_version=2, max_staleness=9)
    assert buffer.recorded_steps() == [3]
    buffer.rewind(1)
    assert buffer.newest_commit() == (1, "step-000001")
    assert buffer.counts()[State.READY] == 2
    assert buffer.recorded_steps() == [2, 3]
    assert train(buffer, 2) == [2]
    assert buffer.unfinished() == [4]
    assert train(buffer, 3) == [3]
    assert buffer.recorded_steps() == []


def test_a_rewind_forgets_the_commits_after_it(buffer: Buffer, make_group: MakeGroup) -> None:
    buffer.issue()
    for step in (1, 2, 3):
        buffer.put(make_group(step))
        train(buffer, step)
        buffer.commit(step, f"step-{step}")
    buffer.rewind(1)
    assert buffer.commits() == [1]
    buffer.rewind(0)
    assert buffer.newest_commit() is None
    assert buffer.counts()[State.READY] == 3


def test_a_batch_is_trained_again_as_recorded(buffer: Buffer, make_group: MakeGroup) -> None:
    """Whatever else became ready, and however many are asked for."""
    buffer.issue()
    buffer.put(make_group(1, "rr"))
    buffer.put(make_group(2))
    buffer.put(make_group(3, version=1))
    assert buffer.lease(2, policy_version=1, max_staleness=0) == [], "group 2 expires, and 3 is alone"
    buffer.put(make_group(4, version=1))
    assert train(buffer, 2, batch=2) == [3, 4]
    issued = buffer.issue()
    for i in issued:
        buffer.put(make_group(i, "rw" if i % 2 else "rr", version=2))
    buffer.rewind(1)
    assert [g.id for g in buffer.lease(1, policy_version=1, max_staleness=0)] == [3, 4]
    assert buffer.counts()[State.EXPIRED] == 1, "nothing expires in a turn that was had before"


def test_what_was_not_proved_is_not_stored(buffer: Buffer, make_group: MakeGroup) -> None:
    buffer.issue()
    other = "cd" * 32
    with pytest.raises(PublishError, match=r"version 4 of p .* nothing was proved"):
        buffer.put(make_group(1, version=4))
    with pytest.raises(PublishError, match=f"with {other[:12]}, but proved was {SHA256[:12]}"):
        buffer.put(replace(make_group(1), adapter_sha256=other))
    with pytest.raises(PublishError, match="version 0 of q"):
        buffer.put(replace(make_group(1), policy="q"))
    with pytest.raises(PublishError, match="no adapter"):
        buffer.put(replace(make_group(1), adapter_sha256=None))
    assert buffer.unfinished() == [1, 2, 3, 4]
    mixed = replace(make_group(1), samples=[make_group(1).samples[0], make_group(1, version=4).samples[1]])
    with pytest.raises(PublishError, match="version 4"):
        buffer.put(mixed)
    assert buffer.put(make_group(1)) == State.READY


def test_a_version_is_proved_once(buffer: Buffer) -> None:
    buffer.proved("p", 3, SHA256)
    with pytest.raises(PublishError, match="version 3 of p"):
        buffer.proved("p", 3, "cd" * 32)


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
