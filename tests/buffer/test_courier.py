"""What goes from machine to machine through a ledger: two run directories, one of them a machine's that has joined."""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from rl.buffer import courier
from rl.buffer.courier import Courier
from rl.core.rundir import RunDir
from tests.observe.recorded import new_run


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
