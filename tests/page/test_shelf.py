"""The ledger by keys: each group once on the pages of any order, few are read for a page; on both databases."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
import sqlalchemy as sa

from rl.buffer.history import Entry, Order
from rl.buffer.ledger import Buffer
from rl.buffer.tables import State
from rl.core.types import Group
from rl.page.shelf import LOOKED_AT, Asked, Shelf
from tests.conftest import SHA256

MARKS = ("rw", "rr", "ww", "rw", "ee", "rrrw")
"""Of groups 1 to 6: two with signal, two without, one that could not be verified, and one that is mostly right."""


@pytest.fixture
def buffer(ledger_url: str) -> Iterator[Buffer]:
    with closing(Buffer(ledger_url, capacity=2_000, group_size=2)) as buffer:
        buffer.proved("p", 0, SHA256)
        yield buffer


@pytest.fixture
def shelf(buffer: Buffer, ledger_url: str, make_group: Callable[..., Group]) -> Iterator[Shelf]:
    buffer.issue()
    for id, marks in enumerate(MARKS, start=1):
        buffer.put(make_group(id, marks))
    leased = buffer.lease(2, policy_version=0, max_staleness=9)
    buffer.trained([group.id for group in leased])
    buffer.enter_problems(42)
    with closing(Shelf(ledger_url)) as shelf:
        yield shelf


def ids(entries: list[Entry]) -> list[int]:
    return [entry.group.id for entry in entries]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("newest", [6, 5, 4, 3, 2, 1]),
        ("oldest", [1, 2, 3, 4, 5, 6]),
        ("best", [2, 6, 4, 1, 3]),
        ("worst", [3, 4, 1, 6, 2]),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_the_pages_of_an_order_have_each_group_once(shelf: Shelf, order: Order, expected: list[int], size: int) -> None:
    found, after, pages = list[int](), None, 0
    while True:
        leaf = shelf.leaf(Asked(order=order, after=after), size)
        found += ids(leaf.entries)
        after, pages = leaf.after, pages + 1
        if after is None:
            break
    assert found == expected
    assert pages <= len(expected) / size + 1


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Asked(step=1), [4, 1]),
        (Asked(step=2), []),
        (Asked(state=State.NO_SIGNAL), [3, 2]),
        (Asked(state=State.UNVERIFIED), [5]),
        (Asked(reward=(0.4, 0.6)), [4, 1]),
        (Asked(problem="problem-3"), [3]),
        (Asked(problem="1+1"), [6, 5, 4, 3, 2, 1]),
        (Asked(problem="100%"), []),
        (Asked(problem="problem_3"), []),
        (Asked(wanted=lambda entry: entry if len(entry.group.samples) == 4 else None), [6]),
    ],
)
def test_groups_are_found(shelf: Shelf, asked: Asked, expected: list[int]) -> None:
    leaf = shelf.leaf(asked, 100)
    assert ids(leaf.entries) == expected
    assert leaf.after is None


def test_what_the_ledger_states_of_the_run(shelf: Shelf, buffer: Buffer) -> None:
    now = shelf.now(4)
    assert now.counts[State.TRAINED] == 2
    assert now.next_batch[:2] == [State.READY, State.ISSUED]
    assert len(now.next_batch) == 4
    assert (now.leased_for, now.committed, now.proved, now.problems) == (None, None, 1, 42)
    buffer.commit(1, "step-000001")
    buffer.lease(1, policy_version=1, max_staleness=9)
    now = shelf.now(4)
    assert (now.leased_for, now.committed) == (2, 1)


def test_a_group_alone(shelf: Shelf) -> None:
    entry = shelf.group(6)
    assert entry is not None
    assert len(entry.group.samples) == 4
    assert shelf.group(7) is None  # still sampled
    assert shelf.group(2**31 - 1) is None


def test_no_more_than_so_many_groups_are_read_for_a_page(
    buffer: Buffer, ledger_url: str, make_group: Callable[..., Group]
) -> None:
    issued = buffer.issue()
    for id in issued[: LOOKED_AT + 50]:
        buffer.put(make_group(id))
    with closing(Shelf(ledger_url)) as shelf:
        nothing = Asked(problem="not there")
        first = shelf.leaf(nothing, 8)
        assert (first.entries, first.looked_at, first.after) == ([], LOOKED_AT, 51)
        second = shelf.leaf(replace(nothing, after=first.after), 8)
        assert (second.entries, second.looked_at, second.after) == ([], 50, None)


def test_damaged_and_dropped_samples_are_told_and_the_others_shown(shelf: Shelf, ledger_url: str) -> None:
    engine = sa.create_engine(ledger_url)
    with engine.begin() as db:
        db.execute(sa.text("UPDATE payloads SET payload = :bytes WHERE id = 2"), {"bytes": b"nonsense"})
        db.execute(sa.text("DELETE FROM payloads WHERE id = 4"))
        db.execute(sa.text("UPDATE groups SET state = 'strange' WHERE id = 6"))
    engine.dispose()
    leaf = shelf.leaf(Asked(), 100)
    assert ids(leaf.entries) == [5, 3, 1]
    assert leaf.gone == 1
    assert ["group 6: 'strange'" in leaf.damaged[0], "group 2: " in leaf.damaged[1]] == [True, True]
