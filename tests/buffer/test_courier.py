"""What goes from machine to machine through a ledger: two run directories, one of them a machine's that has joined."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from rl.buffer import courier
from rl.buffer.courier import Courier
from rl.buffer.roles import Roles
from rl.core.errors import LedgerError
from rl.core.rundir import RunDir
from tests.observe.recorded import new_run
from tests.postgres import Server

LIMIT_S = 30.0


@pytest.fixture
def machines(postgres_url: str, tmp_path: Path) -> Iterator[tuple[RunDir, RunDir]]:
    """The supervisor's directory, and that of a machine that has joined."""
    home = new_run(tmp_path / "home", "--buffer-url", postgres_url)
    away = RunDir(tmp_path / "away")
    shutil.copytree(home.root, away.root)
    away.copy_mark.touch()
    return home, away


def write(folder: Path, content: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter").write_bytes(content)
    (folder / "manifest").write_bytes(b"of " + content[:8])
    return folder


def test_a_checkpoint_arrives_whole_and_in_place_of_an_older_one(
    machines: tuple[RunDir, RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "PART", 10)
    home, away = machines
    sent = write(away.checkpoints / "step-000002", b"0123456789" * 3 + b"rest")
    received = write(home.checkpoints / "step-000002", b"of another time line")
    with closing(Courier(away)) as sender, closing(Courier(home)) as receiver:
        sender.send(sent)
        receiver.fetch(received)
        assert (received / "adapter").read_bytes() == (sent / "adapter").read_bytes()
        assert sorted(path.name for path in home.checkpoints.iterdir()) == ["step-000002"]
        before = (received / "adapter").stat().st_mtime_ns
        receiver.fetch(received)
        assert (received / "adapter").stat().st_mtime_ns == before
        receiver.forget(received)
        shutil.rmtree(received)
        receiver.fetch(received)
        assert not received.exists()


def test_who_needs_some_files_of_a_checkpoint_gets_those_and_takes_none_away(machines: tuple[RunDir, RunDir]) -> None:
    home, away = machines
    sent, received = (run.checkpoints / "step-000002" for run in (away, home))
    write(sent, b"adapter")
    (sent / "optimizer").write_bytes(b"large")
    names = ("adapter", "manifest")
    with closing(Courier(away)) as sender, closing(Courier(home)) as receiver:
        sender.send(sent)
        receiver.fetch(received, names)
        assert {path.name for path in received.iterdir()} == {*names}
        receiver.fetch(received)
        (sent / "adapter").write_bytes(b"another")
        sender.send(sent)
        receiver.fetch(received, names)
    assert {path.name: path.read_bytes() for path in received.iterdir()} == {
        "adapter": b"another",
        "manifest": b"of adapter",
        "optimizer": b"large",
    }


def test_a_kill_while_it_is_fetched_leaves_nothing_behind(machines: tuple[RunDir, RunDir]) -> None:
    home, away = machines
    received = home.checkpoints / "step-000002"
    with closing(Courier(away)) as sender:
        sender.send(write(away.checkpoints / "step-000002", b"adapter"))

    def fetch_killed() -> None:
        sys.addaudithook(lambda event, _: os.kill(os.getpid(), signal.SIGKILL) if event == "os.rename" else None)
        Courier(home).fetch(received)

    killed = multiprocessing.get_context("fork").Process(target=fetch_killed)
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    with closing(Courier(home)) as receiver:
        receiver.fetch(received)
    assert {path.name for path in home.checkpoints.rglob("*")} == {"step-000002", "adapter", "manifest"}


def test_a_machine_that_joined_keeps_one_checkpoint(machines: tuple[RunDir, RunDir]) -> None:
    home, away = machines
    with closing(Courier(away)) as sender:
        for step in (2, 4):
            sender.send(write(away.checkpoints / f"step-{step:06d}", b"x"))
        assert [path.name for path in away.checkpoints.iterdir()] == ["step-000004"]
    with closing(Courier(home)) as receiver:
        for step in (2, 4):
            receiver.fetch(home.checkpoints / f"step-{step:06d}")
    assert sorted(path.name for path in home.checkpoints.iterdir()) == ["step-000002", "step-000004"]


def test_records_and_evaluations_come_home_once_and_in_order(machines: tuple[RunDir, RunDir]) -> None:
    home, away = machines
    result = away.eval_file("gsm8k@test", 4)
    result.parent.mkdir(parents=True)
    result.write_text("{}")
    with closing(Courier(away)) as sender, closing(Courier(home)) as receiver:
        for step in range(3):
            sender.log(kind="step", step=step)
        sender.send(result)
        sender.log(kind="eval", step=4, set="gsm8k@test")
        for _ in range(2):
            receiver.bring_home()
    logged = [json.loads(line) for line in home.metrics_file.read_text().splitlines()]
    assert [(record["kind"], record["step"]) for record in logged] == [
        ("step", 0),
        ("step", 1),
        ("step", 2),
        ("eval", 4),
    ]
    assert home.eval_file("gsm8k@test", 4).read_text() == "{}"
    assert not away.metrics_file.exists()


def test_where_the_ledger_is_in_the_run_directory_nothing_is_carried(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    with closing(Courier(run)) as alone:
        alone.log(kind="step", step=1)
        alone.send(write(run.checkpoints / "step-000001", b"x"))
        alone.fetch(run.checkpoints / "step-000001")
        alone.bring_home()
    assert [record["step"] for record in run.records()] == [1]
    assert not (run.root / "buffer.db").exists()


BREAK = """
CREATE SEQUENCE breaks;
CREATE FUNCTION break_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('breaks') = 1 THEN  -- no rollback undoes that
        RAISE EXCEPTION 'terminating connection due to administrator command' USING ERRCODE = 'admin_shutdown';
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER break_once BEFORE DELETE ON records FOR EACH ROW EXECUTE FUNCTION break_once();
"""
"""The database goes away once, when records are taken out that are at home already."""


def test_a_record_comes_home_once_though_the_database_goes_away_then(
    machines: tuple[RunDir, RunDir], postgres_url: str
) -> None:
    home, away = machines
    with closing(Courier(away)) as sender, closing(Courier(home)) as receiver:
        sender.log(kind="step", step=1)
        engine = sa.create_engine(postgres_url)
        with engine.begin() as db:
            db.exec_driver_sql(BREAK)
        engine.dispose()
        receiver.bring_home()
        sender.log(kind="step", step=2)
        receiver.bring_home()
    logged = [json.loads(line)["step"] for line in home.metrics_file.read_text().splitlines()]
    assert logged == [1, 2]


def test_a_learner_that_was_given_up_sends_and_logs_nothing(machines: tuple[RunDir, RunDir], postgres_url: str) -> None:
    home, away = machines
    folder = away.checkpoints / "step-000050"
    with (
        closing(Roles(postgres_url)) as roles,
        closing(Courier(away, learner="first")) as cut_off,
        closing(Courier(away, learner="second")) as newest,
        closing(Courier(home)) as receiver,
    ):
        roles.launch("first", nodes=1)
        cut_off.send(write(folder, b"of the first"))
        roles.launch("second", nodes=1)
        shutil.rmtree(folder)
        newest.send(write(folder, b"of the second"))
        newest.log(kind="step", step=50)
        shutil.rmtree(folder)
        write(folder, b"of the first, late")
        for late in (lambda: cut_off.send(folder), lambda: cut_off.log(kind="step", step=50, late=True)):
            with pytest.raises(LedgerError, match="the learner of first was given up"):
                late()
        receiver.fetch(home.checkpoints / folder.name)
        receiver.bring_home()
    assert (home.checkpoints / folder.name / "adapter").read_bytes() == b"of the second"
    assert ["late" in record for record in home.records()] == [False]


def test_what_a_learner_is_sending_as_it_is_given_up_does_not_arrive(
    machines: tuple[RunDir, RunDir], postgres_url: str, postgres: Server
) -> None:
    home, away = machines
    folder = write(away.checkpoints / "step-000050", b"of the first")
    database = sa.make_url(postgres_url).database or ""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with (
        closing(Roles(postgres_url)) as roles,
        closing(Courier(away, learner="first")) as sender,
        closing(Courier(home)) as receiver,
        ThreadPoolExecutor() as threads,
        psycopg.connect(postgres_url) as other,
    ):
        roles.launch("first", nodes=1)
        other.execute("LOCK TABLE files IN EXCLUSIVE MODE")  # it is held in the middle
        sending = threads.submit(sender.send, folder)
        wait_for(lambda: postgres.ask(waiting, database) == [(1,)])
        roles.launch("second", nodes=1)
        other.rollback()
        with pytest.raises(LedgerError, match="the learner of first was given up"):
            sending.result(LIMIT_S)
        receiver.fetch(home.checkpoints / folder.name)
    assert not (home.checkpoints / folder.name).exists()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
