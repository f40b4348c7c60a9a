"""The books and the staleness bound under random schedules; `python -m tests.buffer.schedules` plays thousands."""

from collections import Counter

from tests.buffer.schedules import COUNTED, LOST, play

SCHEDULES, LOSSY = 100, 8


def test_random_schedules_break_nothing() -> None:
    check(play(SCHEDULES), SCHEDULES)


def test_nor_do_they_where_commits_and_their_answers_are_lost(database_url: str) -> None:
    happened = play(LOSSY, database_url=database_url)
    check(happened, LOSSY)
    assert all(happened[what] > LOSSY for what in LOST), happened


def check(happened: Counter[str], schedules: int) -> None:
    assert happened["schedules"] >= schedules
    assert all(happened[what] >= schedules / 10 for what in COUNTED), happened
