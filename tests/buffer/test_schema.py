"""A run's ledger in PostgreSQL: a schema of its own, made and moved aside with the directory; no secret is kept."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from rl.buffer.compact import compact
from rl.buffer.database import read_only
from rl.buffer.history import History
from rl.buffer.ledger import Buffer
from rl.buffer.tables import groups
from rl.core.config import TrainConfig
from rl.core.dburl import URL_VARIABLE
from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.launch import begin
from rl.train import _parser
from tests.conftest import SHA256
from tests.observe.recorded import fill_ledger
from tests.postgres import GUARDED, PASSWORD, Server


@contextmanager
def begun(*flags: object) -> Iterator[tuple[RunDir, TrainConfig]]:
    """A new run, as `rl.train` makes it."""
    args = _parser().parse_args([str(flag) for flag in flags])
    with begin.created(begin.resolve(args), args.run_dir, args.overwrite) as (run, config):
        yield run, config


def made(*flags: object) -> RunDir:
    with begun(*flags) as (run, _):
        return run


def refused(*flags: object) -> UsageError:
    with pytest.raises(UsageError) as told, begun(*flags):
        pass
    return told.value


@pytest.fixture
def guarded_url(database_url: str) -> str:
    """Of the same database, for the user who needs a password."""
    return database_url.replace("tally@", f"{GUARDED}@")


@pytest.fixture
def secret_url(guarded_url: str) -> str:
    return guarded_url.replace("@", f":{quote(PASSWORD, safe='')}@")


def test_a_run_has_a_schema_of_its_own(database_url: str, tmp_path: Path, postgres: Server) -> None:
    first = made("--run-dir", tmp_path / "First.run-1", "--buffer-url", database_url)
    other = made("--run-dir", tmp_path / "other", "--buffer-url", database_url)
    assert first.buffer_url == first.config().buffer_url == f"{database_url}?options=-csearch_path%3Dfirst.run-1"
    assert not list(first.root.glob("*.db*"))
    with closing(Buffer(first.buffer_url, capacity=4, group_size=2)) as buffer:
        assert buffer.issue() == [1, 2]
    with closing(History(other.buffer_url)) as history:
        assert not sum(history.counts().values())
    with closing(History(first.buffer_url)) as history:
        assert history.books().problems
        assert sum(history.counts().values()) == 2


def test_a_schema_that_exists_is_left_alone(database_url: str, tmp_path: Path) -> None:
    made("--run-dir", tmp_path / "here/run", "--buffer-url", database_url)
    error = refused("--run-dir", tmp_path / "there/run", "--buffer-url", database_url)
    assert "the schema run exists" in str(error)
    assert all(way in error.fix for way in ("--resume", "--run-dir", "--overwrite"))
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("again", [True, False], ids=["postgresql", "file"])
def test_overwrite_moves_directory_and_schema_aside(database_url: str, tmp_path: Path, again: bool) -> None:
    """Whatever the new run keeps its own ledger in."""
    directory, database = ("--run-dir", tmp_path / "run"), ("--buffer-url", database_url)
    with closing(Buffer(made(*directory, *database).buffer_url, capacity=4, group_size=2)) as buffer:
        buffer.issue()
    new = made(*directory, "--overwrite", *(database if again else ()))
    (old,) = (RunDir(path) for path in tmp_path.glob("run.*.old"))
    for run, issued in ((old, 2), (new, 0)):
        with closing(History(run.buffer_url)) as history:
            assert sum(history.counts().values()) == issued
    assert new.root.joinpath("buffer.db").exists() != again


def test_a_schema_whose_directory_is_elsewhere_is_moved_aside_unless_it_is_open(
    database_url: str, tmp_path: Path, postgres: Server
) -> None:
    elsewhere = made("--run-dir", tmp_path / "elsewhere" / ("n" * 63), "--buffer-url", database_url)
    here = ("--run-dir", tmp_path / "here" / ("n" * 63), "--buffer-url", database_url, "--overwrite")
    with closing(Buffer(elsewhere.buffer_url, capacity=4, group_size=2)):
        assert "is in progress" in str(refused(*here))
    made(*here)
    database = database_url.rpartition("/")[2]
    names = postgres.ask("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'nnn%' ORDER BY nspname", database)
    assert len(names) == 2
    assert str(names[0][0]).endswith(".old")


@pytest.mark.parametrize("name", ["pg_run", "läufe", "n" * 64, "a b"])
def test_a_name_that_no_schema_can_have(database_url: str, tmp_path: Path, name: str) -> None:
    error = refused("--run-dir", tmp_path / name, "--buffer-url", database_url)
    assert name in str(error)
    assert "--run-dir" in error.fix
    assert not (tmp_path / name).exists()


def test_what_is_wrong_with_a_database_is_said_at_the_start(
    database_url: str, guarded_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(url: str, message: str, fix: str) -> None:
        error = refused("--run-dir", tmp_path / "run", "--buffer-url", url)
        assert message in str(error)
        assert fix in error.fix
        assert not (tmp_path / "run").exists()

    said("postgresql://tally@127.0.0.1:1/db", "refused", "does it run there")
    said(f"{database_url}x", "does not exist", "createdb")
    said("mysql://tally@127.0.0.1/db", "postgresql://USER@HOST/DATABASE", "")
    said("no url", "postgresql://USER@HOST/DATABASE", "")
    said(f"{database_url}?options=-csearch_path%3Dpublic", "has options", "leave them out")
    said(guarded_url, "no password", "PGPASSWORD")
    monkeypatch.setenv("PGPASSWORD", "wrong")
    said(guarded_url, "password authentication failed", "PGPASSWORD")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    said(guarded_url, "permission denied", "GRANT CREATE ON DATABASE")


def test_a_password_is_refused_where_others_see_it(secret_url: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(f'buffer_url = "{secret_url}"')
    in_query = secret_url.replace(f":{quote(PASSWORD, safe='')}@", "@") + f"?password={quote(PASSWORD)}"
    for flags in (["--buffer-url", secret_url], ["--buffer-url", in_query], ["--config", tmp_path / "run.toml"]):
        error = refused("--run-dir", tmp_path / "run", *flags)
        assert "has a password" in str(error)
        assert all(word not in f"{error} {error.fix}" for word in (PASSWORD, quote(PASSWORD, safe="")))


def test_a_password_in_the_environment_is_used_and_kept_nowhere(
    secret_url: str, guarded_url: str, postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.ask(f"GRANT CREATE ON DATABASE {guarded_url.rpartition('/')[2]} TO {GUARDED}")
    monkeypatch.setenv(URL_VARIABLE, secret_url)
    run = made("--run-dir", tmp_path / "run")
    assert run.buffer_url == f"{guarded_url}?options=-csearch_path%3Drun"
    assert run.sources()["buffer_url"] == URL_VARIABLE
    with closing(Buffer(run.buffer_url, capacity=4, group_size=2)) as buffer:
        assert buffer.issue() == [1, 2]
    resume = _parser().parse_args(["--resume", str(run.root)])
    with begin.resumed(resume) as (_, config):
        assert config.buffer_url == run.buffer_url
    for file in filter(Path.is_file, tmp_path.rglob("*")):
        assert not any(word.encode() in file.read_bytes() for word in (PASSWORD, quote(PASSWORD, safe="")))
    monkeypatch.setenv(URL_VARIABLE, "postgres://tally:secret@host/db")
    error = refused("--run-dir", tmp_path / "other")
    assert str(error).startswith(f"{URL_VARIABLE}: ")
    assert "secret" not in f"{error} {error.fix}"
    monkeypatch.delenv(URL_VARIABLE)
    with pytest.raises(UsageError, match="no password"), begin.resumed(resume):
        pass


@pytest.mark.parametrize(
    ("wrong", "why"), [("options=-csearch_path%3Delsewhere", "not there"), ("port=1", "cannot be reached")]
)
def test_a_ledger_that_is_not_there_cannot_be_read(postgres_url: str, wrong: str, why: str) -> None:
    with pytest.raises(UsageError, match=f"cannot read the ledger .* in postgresql://tally@.*{why}") as told:
        History(f"{postgres_url.partition('?')[0]}?{wrong}")
    assert told.value.fix


def test_a_look_sees_one_moment_and_changes_nothing(ledger_url: str) -> None:
    looks = read_only(ledger_url)
    with closing(Buffer(ledger_url, capacity=8, group_size=2)) as buffer, looks.connect() as look:
        assert look.scalar(sa.select(sa.func.count(groups.c.id))) == 0
        assert buffer.issue()
        assert look.scalar(sa.select(sa.func.count(groups.c.id))) == 0
        with pytest.raises(sa.exc.DBAPIError, match=r"read-?only"):
            look.execute(groups.delete())
    looks.dispose()


@pytest.mark.parametrize(("recorded_in", "copied_to"), [("file", "database"), ("database", "file"), ("database",) * 2])
def test_a_replay_copies_from_any_ledger_into_any(
    database_url: str, tmp_path: Path, recorded_in: str, copied_to: str
) -> None:
    place = {"file": [], "database": ["--buffer-url", database_url]}
    small = ("--group-size", 2, "--batch", 4, "--buffer", 8)
    run = made("--run-dir", tmp_path / "run", *small, *place[recorded_in])
    fill_ledger(run, [("right", "wrong")] * 40)
    with closing(Buffer(run.buffer_url, capacity=8, group_size=2)) as buffer:
        buffer.commit(20, "step-000020")
    replay = made("--replay", run.root, "--run-dir", tmp_path / "replay", *place[copied_to])
    assert replay.spans_machines == (copied_to == "database")
    with (
        closing(History(run.buffer_url)) as recorded,
        closing(Buffer(replay.buffer_url, capacity=8, group_size=2)) as buffer,
    ):
        for step in range(1, 21):
            leased = buffer.lease(2, policy_version=step - 1, max_staleness=0)
            assert leased == [entry.group for entry in recorded.trained_in(step)]


def test_compaction_frees_the_database_s_disk(postgres_url: str) -> None:
    with closing(Buffer(postgres_url, capacity=8, group_size=2)) as buffer:
        buffer.proved("p", 0, SHA256)
    compaction = compact(postgres_url)
    assert compaction.groups == 0
    assert 0 < compaction.bytes_after <= compaction.bytes_before
    assert compaction.ledger.startswith("run in postgresql://")
