"""A few seconds of more guests than there is room for; `python -m tests.load` is the whole of it."""

from pathlib import Path

import pytest

from tests.load.__main__ import put_under_load


@pytest.mark.vllm
@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_guests_are_served_or_told_to_come_later_and_the_run_goes_on(tmp_path: Path) -> None:
    load = put_under_load(tmp_path, clients=24, seconds=8, guests=4, alone_s=0, seed=0)
    assert set(load.statuses) == {"200", "429"}, load
    assert load.untold == 0, load
    assert load.alive
    assert load.steps["with guests"][0] > 0, load
    assert load.audit.returncode == 0, load.audit.stdout + load.audit.stderr
