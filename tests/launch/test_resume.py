"""What `rl.train --resume` may change of a run, and what it says of it."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.launch.begin import created, go_on, resolve, resumed
from rl.train import _parser, main
from tests.observe.recorded import new_run


def resume(run: RunDir, *flags: str) -> None:
    with resumed(_parser().parse_args(["--resume", str(run.root), *flags])):
        pass


@pytest.mark.parametrize(("schedule", "said"), [("linear", "decay now ends at step 400"), ("constant", "")])
def test_a_decay_that_is_made_longer_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], schedule: str, said: str
) -> None:
    run = new_run(tmp_path / "run", "--schedule", schedule)
    resume(run, "--steps", "400", "--keep", "3")
    out = capsys.readouterr().out
    assert (said in out, bool(out)) == (True, bool(said))
    config, sources = run.config(), run.sources()
    assert (config.steps, config.keep) == (400, 3)
    assert (sources["steps"], sources["keep"], sources["lr"]) == ("flag", "flag", "default")


@pytest.mark.parametrize("flags", [["--lr", "1"], ["--eval-on", "gsm8k"], ["--overwrite"], ["--group-size", "4"]])
def test_what_a_run_computes_cannot_be_changed(tmp_path: Path, flags: list[str]) -> None:
    run = new_run(tmp_path / "run")
    before = run.config_file.read_text()
    with pytest.raises(UsageError, match=f"{flags[0]} cannot be changed by --resume"):
        resume(run, *flags)
    assert run.config_file.read_text() == before


def test_a_run_does_not_go_on_with_other_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    file = tmp_path / "my.jsonl"
    rows = [f'{{"problem": "{i}+1", "answer": "{i + 1}"}}\n' for i in range(99)]
    file.write_text("".join(rows))
    started = _parser().parse_args(["--problems", str(file), "--run-dir", str(tmp_path / "run")])
    with created(resolve(started), started.run_dir) as (run, _):
        pass
    resume(run)
    file.write_text("".join([*rows[:-1], rows[-1].replace('"99"', '"100"')]))
    with pytest.raises(UsageError, match="not those that it began with"):
        resume(run)


def test_a_reward_that_can_only_raise_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "boom.py").write_text("def reward(completion, gold):\n    raise KeyError('no such key')\n")
    started = _parser().parse_args(["--reward", "boom:reward", "--run-dir", str(tmp_path / "run")])
    with (
        pytest.raises(UsageError, match="verifier raised KeyError: 'no such key'"),
        created(resolve(started), started.run_dir),
    ):
        pass
    assert not (tmp_path / "run").exists()


def test_auto_resume_begins_a_run_and_goes_on_with_it(tmp_path: Path) -> None:
    words = ["--run-dir", str(tmp_path / "run"), "--auto-resume", "--lr", "1e-4", "--steps", "20"]
    first = go_on(_parser().parse_args(words))
    assert first.resume is None
    with created(resolve(first), first.run_dir) as (run, _):
        pass
    again = go_on(_parser().parse_args([*words[:-1], "40"]))
    assert (again.resume, again.run_dir, again.lr, again.steps) == (run.root, None, None, "40")
    with resumed(again) as (_, config):
        assert config.steps == 40


@contextmanager
def begun(words: list[str]) -> Iterator[tuple[RunDir, TrainConfig, bool]]:
    """As `rl.train` does; with whether it went on with a run."""
    args = go_on(_parser().parse_args(words))
    resumes = args.resume is not None
    with resumed(args) if resumes else created(resolve(args), args.run_dir, args.overwrite) as (run, config):
        yield run, config, resumes


def killed_at(moment: int, words: list[str], root: Path) -> bool:
    """Begins a run in a process that is killed as it touches the run's directory for the nth time, in the middle of
    that if it writes a file; whether it came so far."""

    def kill(event: str, touched: tuple[object, ...]) -> None:
        nonlocal moment
        if any(str(root) in str(name) for name in touched):
            moment -= 1
            if moment == 0:
                if event == "open" and "w" in str(touched[1]):
                    Path(str(touched[0])).write_text("")
                os.kill(os.getpid(), signal.SIGKILL)

    def begin() -> None:
        sys.addaudithook(kill)
        with begun(words):
            pass

    process = multiprocessing.get_context("fork").Process(target=begin)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.parametrize("database", [False, True], ids=["file", "postgresql"])
def test_auto_resume_begins_anew_whenever_who_began_was_killed(
    tmp_path: Path, database: bool, request: pytest.FixtureRequest
) -> None:
    flags = ["--buffer-url", str(request.getfixturevalue("database_url"))] if database else []
    for moment in count(1):
        root = tmp_path / f"run-{moment}"
        words = ["--run-dir", str(root), "--auto-resume", *flags]
        if not killed_at(moment, words, root):
            break
        with begun(words) as (run, _, _):
            assert len(run.problems_file.read_text()) > 1
        with begun(words) as (_, _, resumes):
            assert resumes
    assert moment > 5


def test_auto_resume_takes_nothing_for_a_run_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError), begun(["--run-dir", str(tmp_path), "--auto-resume"]):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--auto-resume"], "goes on with the run in --run-dir"),
        (["--auto-resume", "--run-dir", "run", "--lr", "1e-3"], "was begun with --lr 0.0005, not 1e-3"),
    ],
)
def test_auto_resume_says_what_keeps_it_from_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = new_run(tmp_path / "run")
    run.problems_file.touch()
    with pytest.raises(UsageError, match=says):
        go_on(_parser().parse_args(words))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--elsewhere", "collector,teacher"], "teacher is no role"),
        (["--learner-nodes", "2", "--learners", "2"], "--learner-nodes is for learners elsewhere"),
        (["--elsewhere", "learner", "--learners", "3", "--learner-nodes", "2"], "cannot share the ranks equally"),
        (["--elsewhere", "server", "--server-url", "http://127.0.0.1:1"], "--elsewhere server waits for some"),
        (["--ray-address", "auto"], "share a ledger in a database"),
    ],
)
def test_what_is_said_of_other_machines_has_to_fit(words: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        main(words)
