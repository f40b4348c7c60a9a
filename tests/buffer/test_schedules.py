"""The books and the staleness bound under random schedules; `python -m tests.buffer.schedules` plays thousands."""

from tests.buffer.schedules import COUNTED, play

SCHEDULES = 100


def test_random_schedules_break_nothing() -> None:
    happened = play(SCHEDULES)
    assert happened["schedules"] >= SCHEDULES
    assert all(happened[what] >= SCHEDULES / 10 for what in COUNTED), happened
