"""The evaluator's process, while the checkpoint that it is to evaluate is still on its way."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import sqlalchemy as sa

from rl.buffer.courier import Courier
from rl.buffer.ledger import Buffer
from rl.core.pulse import pulse_file
from rl.core.rundir import RunDir, name_of
from rl.learner import checkpoint
from tests.collect.scripted import scripted_servers
from tests.commands import Command
from tests.observe.recorded import new_run
from tests.postgres import Server

LIMIT_S = 30.0
STEP = 2


def test_it_gives_signs_of_life_while_it_fetches_what_it_needs(
    postgres_url: str, postgres: Server, tmp_path: Path
) -> None:
    home, away = (new_run(tmp_path / name, "--buffer-url", postgres_url) for name in ("home", "away"))
    learned, fetched = (run.checkpoints / name_of(STEP) for run in (home, away))
    learned.mkdir()
    for name in (*checkpoint.FILES, checkpoint.MANIFEST):
        (learned / name).write_bytes(b"damaged, so that nothing is evaluated")
    with closing(Courier(home)) as courier, closing(Buffer(postgres_url, capacity=8, group_size=2)) as buffer:
        courier.send(learned)
        buffer.commit(STEP, learned.name, evaluate=["heldout"])
        with (
            scripted_servers(1, tmp_path) as (server,),
            psycopg.connect(postgres_url) as other,
        ):
            other.execute("LOCK TABLE files IN ACCESS EXCLUSIVE MODE")
            evaluator = Command("rl.evaluate", str(away.root), "--server-url", server.url, "--policy", "p")
            try:
                evaluator.wait_for(lambda: waits_for_a_lock(postgres, postgres_url), "the fetch")
                before = beat(away)
                wait_for(lambda: beat(away) != before)
                other.rollback()
                evaluator.wait_for(lambda: not buffer.awaited(), "the end of the fetch")
            finally:
                evaluator.kill()
    assert {path.name for path in fetched.iterdir()} == {checkpoint.ADAPTER, checkpoint.MANIFEST}


def beat(run: RunDir) -> int:
    return pulse_file(run, "evaluator").stat().st_mtime_ns


def waits_for_a_lock(postgres: Server, url: str) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return postgres.ask(waiting, sa.make_url(url).database or "") == [(1,)]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
