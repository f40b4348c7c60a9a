"""What the tests of the page share: a folder with one run, as a run leaves it, and a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.observe.recorded import evaluation, fill_ledger, log_evaluation, new_run, step_record
from tests.page.service import browser

expect.set_options(timeout=60_000)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("web") / "runs"
    run = new_run(root / "first")
    fill_ledger(run, [(f"right {i}", f"wrong {i}") for i in range(1, 9)])
    for step in range(5):
        run.log(**step_record(step + 1))
    log_evaluation(run, evaluation(0, {"stays": 4, "lost": 3}))
    log_evaluation(run, evaluation(5, {"stays": 4, "lost": 1}))
    run.log(kind="restart", step=5, worker="server", why="was killed by SIGKILL", attempt=1)
    return root


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running
