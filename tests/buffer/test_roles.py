"""The board of a run: who has joined, where learners sit, and that a learner which was given up writes no more."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from rl.buffer.ledger import Buffer
from rl.buffer.roles import Roles
from rl.core.errors import LedgerError
from rl.core.types import Group
from tests.conftest import SHA256


@pytest.fixture
def board(ledger_url: str) -> Iterator[Roles]:
    with closing(Roles(ledger_url)) as board:
        yield board


def test_a_run_is_there_from_its_description_to_its_end(board: Roles) -> None:
    assert board.description() == {}
    assert not board.ended()
    board.describe(name="run", config="{}")
    assert board.description() == {"name": "run", "config": "{}"}
    board.launch("p-1", nodes=1)
    board.dissolve()
    assert board.description() == {}
    assert board.ended()
    assert board.newest_launch().over
    board.describe(name="run", config="{}")
    assert not board.ended()


def test_who_joins_takes_the_place_of_who_was_there(board: Roles) -> None:
    first = board.join("server", "one:/run", "http://one:1")
    other = board.join("server", "two:/run", "http://two:1")
    assert board.server_urls() == ["http://one:1", "http://two:1"]
    again = board.join("server", "one:/run", "http://one:2")
    assert board.server_urls() == ["http://one:2", "http://two:1"]
    same_address = board.join("server", "three:/run", "http://two:1")
    assert [member.id for member in board.members()] == [again, same_address]
    assert not board.beat(first)
    assert not board.beat(other)
    assert board.beat(again)
    assert [member.beats for member in board.members()] == [1, 0]


def test_the_id_of_who_has_gone_is_not_given_again(board: Roles) -> None:
    gone = board.join("server", "one:/run", "http://one:1")
    board.remove([gone])
    board.join("collector", "one:/run")
    assert not board.beat(gone)
    board.remove([gone])
    assert [member.role for member in board.members()] == ["collector"]


def test_a_launch_has_a_seat_for_each_node_and_meets_at_the_first(board: Roles) -> None:
    members = [board.join("learner", f"{place}:/run") for place in ("one", "two", "three")]
    number = board.launch("p-1", nodes=2)
    nodes = [board.sit(number, member, f"{member}:1") for member in members]
    assert nodes == [0, 1, None]
    launch = board.newest_launch()
    assert (launch.policy, launch.meeting, launch.over) == ("p-1", f"{members[0]}:1", False)
    board.stand_up(number, 0, 3, "a reason")
    board.remove([members[1]])
    assert [(seat.exit_code, bool(seat.words)) for seat in board.seats(number)] == [(3, True), (1, True)]


def test_the_next_launch_closes_those_before(board: Roles) -> None:
    member = board.join("learner", "one:/run")
    first, second = board.launch("p-1", nodes=1), board.launch("p-2", nodes=1)
    assert board.sit(first, member, "one:1") is None
    assert board.sit(second, member, "one:1") == 0
    board.call_off()
    assert board.newest_launch().over


def test_what_was_mended_elsewhere_is_told_once(board: Roles) -> None:
    board.report("collector", "was killed by SIGKILL", 1)
    assert board.take_accidents() == [{"worker": "collector", "why": "was killed by SIGKILL", "attempt": 1}]
    assert board.take_accidents() == []


def test_a_learner_that_was_given_up_writes_no_more(
    board: Roles, ledger_url: str, make_group: Callable[..., Group]
) -> None:
    number = board.launch("p", nodes=1)
    with closing(Buffer(ledger_url, capacity=8, group_size=2, learner="p")) as buffer:
        buffer.proved("p", 0, SHA256)
        ids = buffer.issue()
        for i in ids:
            buffer.put(make_group(i))
        leased = buffer.lease(2, policy_version=0, max_staleness=1)
        board.call_off(number)
        for write in (
            lambda: buffer.proved("p", 1, SHA256),
            lambda: buffer.lease(2, policy_version=1, max_staleness=1),
            lambda: buffer.trained([group.id for group in leased]),
            lambda: buffer.commit(1, "step-000001"),
        ):
            with pytest.raises(LedgerError, match="was given up"):
                write()
        assert buffer.commits() == []
        assert buffer.counts()["leased"] == 2
