"""Completions are shown as asked, and whatever a model wrote does nothing but be read."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rl.buffer.history import History
from rl.buffer.ledger import Buffer
from rl.buffer.tables import State
from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.observe.show import printable
from rl.show import main
from tests.observe.recorded import evaluation, fill_ledger, log_evaluation, new_run

ROOT = Path(__file__).parents[2]
Show = Callable[..., str]
HOSTILE = "\x1b[2J\x1b]0;a\x07<script>alert(1)</script><b onclick='x()'>\r\u202egnirts\u2066\x00\u2028 &amp; {{ 7*7 }}"


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    """What `python -m rl.show RUN …` prints."""

    def printed(run: RunDir, *arguments: str) -> str:
        main([str(run.root), *arguments])
        return capsys.readouterr().out

    return printed


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Groups 1 to 8, two a step; each has a right and a wrong completion. Two evaluations of two sets."""
    run = new_run(tmp_path_factory.mktemp("show") / "run")
    fill_ledger(run, [(f"right {i}", f"wrong {i}") for i in range(1, 9)])
    for set in ("heldout", "gsm8k@test"):
        log_evaluation(run, evaluation(0, {"stays": 4, "lost": 3, "gained": 1, "halved": 4}, set=set))
        log_evaluation(run, evaluation(5, {"stays": 4, "lost": 1, "gained": 4, "halved": 3}, set=set))
    return run


def test_the_newest_groups_come_first(show: Show, run: RunDir) -> None:
    out = show(run, "--limit", "2")
    assert [line for line in out.splitlines() if line.startswith("group")] == [
        "group 8, trained in step 4, mean reward 0.50",
        "group 7, trained in step 4, mean reward 0.50",
    ]
    assert "3+4 (8)" in out
    assert "right by hand, answer right 8, version 3, 3 tokens" in out
    assert "            right 8" in out.splitlines()


def test_the_groups_of_a_step(show: Show, run: RunDir) -> None:
    out = show(run, "--step", "2")
    assert [line.split(",")[0] for line in out.splitlines() if line.startswith("group")] == ["group 4", "group 3"]


@pytest.mark.parametrize("wanted", ["id-5", "(5)"])
def test_a_problem_is_found_by_its_id_or_its_text(show: Show, run: RunDir, wanted: str) -> None:
    out = show(run, "--problem", wanted)
    assert [line.split(",")[0] for line in out.splitlines() if line.startswith("group")] == ["group 5"]


def test_the_ledger_is_read_while_it_is_written_and_without_a_trace(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    with pytest.raises(UsageError, match="cannot read the ledger"):
        History(run.buffer_url)
    assert not list(run.root.glob("buffer.db*"))

    with closing(Buffer(run.buffer_url, capacity=8, group_size=2)) as buffer:
        buffer.issue()
        with closing(sqlite3.connect(run.root / "buffer.db", isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("UPDATE groups SET state = 'ready'")
            with closing(History(run.buffer_url)) as history:
                assert history.counts()[State.ISSUED] == 4
                assert list(history.entries()) == []
            writer.execute("ROLLBACK")
    assert [path.name for path in run.root.glob("buffer.db*")] == ["buffer.db"]


def test_the_groups_of_a_step_are_those_trained_in_it(run: RunDir) -> None:
    with closing(History(run.buffer_url)) as history:
        assert [entry.group.id for entry in history.trained_in(3)] == [5, 6]
        assert [entry.group.id for entry in history.entries(states=(State.READY,))] == []
        assert [entry.step for entry in history.entries(order="newest")] == [4, 4, 3, 3, 2, 2, 1, 1]


def test_only_completions_with_a_mark(show: Show, run: RunDir) -> None:
    out = show(run, "--mark", "wrong", "--limit", "99")
    assert out.count("wrong by hand") == 8
    assert "right by hand" not in out


def test_an_evaluation_is_shown_best_or_worst_first(show: Show, run: RunDir) -> None:
    best = show(run, "--set", "gsm8k@test", "--best", "--limit", "1")
    assert best.startswith("gsm8k@test at step 5, 4 of 4 right\n")
    worst = show(run, "--set", "heldout", "--step", "0", "--worst", "--limit", "1")
    assert worst.startswith("heldout at step 0, 1 of 4 right\ngained\n")
    assert r"so \boxed{7} at 0" in worst
    assert "wrong ×3  no answer found, no answer" in worst


def test_what_was_right_and_is_wrong_now_and_the_reverse(show: Show, run: RunDir) -> None:
    out = show(run, "--changed")
    titles = [line for line in out.splitlines() if line.startswith("heldout at")]
    assert titles == [
        "heldout at step 0, 3 of 4 right",
        "heldout at step 5, 1 of 4 right",
        "heldout at step 0, 1 of 4 right",
        "heldout at step 5, 4 of 4 right",
    ]
    assert out.index("lost\n") < out.index("gained\n")
    assert "4 questions; right at step 0 and wrong at step 5: 1; the reverse: 1 " in out


def test_long_completions_are_shortened_unless_all_is_asked_for(show: Show, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    lines = "\n".join(f"line {i}" for i in range(100))
    fill_ledger(run, [("x" * 5000, lines)] * 2)
    short, full = show(run, "--limit", "1"), show(run, "--limit", "1", "--full")
    assert "… 4400 characters …" in short
    assert "… 94 lines …" in short
    assert "line 99" in short
    assert short.count("x") < 700 < 5000 <= full.count("x")
    assert "line 50" in full


def test_nothing_that_a_model_wrote_reaches_the_terminal_as_a_command(show: Show, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    fill_ledger(run, [(HOSTILE, HOSTILE)] * 2, problem=HOSTILE)
    out = show(run, "--full")
    assert all(character.isprintable() or character == "\n" for character in out)
    assert r"\x1b[2J" in out
    assert r"\u202egnirts" in out


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_what_a_model_wrote_as_text(show: Show, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    fill_ledger(run, [(HOSTILE, "ok")] * 2, problem=HOSTILE)
    file = tmp_path / "page.html"
    assert show(run, "--html", str(file)) == f"{file}\n"
    source = file.read_text()
    page = Page()
    page.feed(source)
    assert page.tags["section"] == 2
    assert page.tags["article"] == 4
    assert not page.tags.keys() & {"script", "img", "link", "iframe", "a"}
    assert page.attributes <= {"lang", "charset", "name", "content", "http-equiv", "class"}
    assert printable(HOSTILE) in page.text
    assert all(character.isprintable() or character == "\n" for character in source)
    assert "://" not in source


def test_text_without_tricks_is_left_as_it_is() -> None:
    text = "Größe ≤ 3 × π, 東京, العربية\n  \\frac{1}{2}"
    assert printable(text) == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--step", "99"], "no sampled group is as you asked"),
        (["--limit", "0"], "--limit 0 shows nothing"),
        (["--limit", "-1", "--changed"], "--limit -1 shows nothing"),
        (["--set", "heldout", "--step", "3"], "has no evaluation of heldout at step 3"),
        (["--set", "math500"], "has no evaluation of math500"),
        (["--best", "--changed"], "not allowed with"),
        (["--html", "no/such/page.html"], "cannot write"),
    ],
)
def test_what_is_not_there_is_told(run: RunDir, arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as told:
        main([str(run.root), *arguments])
    assert told.value.fix


def test_a_run_that_has_just_begun_has_nothing_to_show(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    with pytest.raises(UsageError, match="cannot read the ledger"):
        main([str(run.root)])
    log_evaluation(run, evaluation(0, {"1+1": 1}))
    with pytest.raises(UsageError, match="only one evaluation"):
        main([str(run.root), "--changed"])


def test_a_directory_that_is_no_run_ends_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rl.show", str(tmp_path)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith(f"error: {tmp_path} is not a run")
