"""A process of a run says JSON into its log and sentences on a terminal; both say why it ended."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rl.core.processes import Child

SAYS = """
import logging, sys, warnings
from pathlib import Path
from rl.core import cli, log
from rl.core.errors import UsageError

def main(argv):
    log.begin(Path("runs/first"), "collector")
    logging.getLogger("rl.collect").info("accepted version %d", 3, extra={"version": 3, "seconds": 0.25})
    logging.getLogger("rl.collect").debug("step 3")
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("beware of \\u2016")
    warnings.warn("this is old")
    with log.waiting("a server"):
        pass
    raise UsageError("no such model", fix="name another")

cli.run(main)
"""
DEFECT = """
from pathlib import Path
from rl.core import cli, log

def main(argv):
    log.begin(Path("runs/first"), "learner-1")
    raise KeyError("oops")

cli.run(main)
"""


def child(script: str, log: Path, until: Callable[..., None], **env: str) -> Child:
    """One that has ended."""
    started = Child("collector", [sys.executable, "-c", script], log, env)
    until(lambda: started.exit_code is not None)
    return started


def entries(child: Child) -> list[dict[str, Any]]:
    return [json.loads(line) for line in child.said().splitlines()]


def test_every_line_of_a_log_is_an_object_that_says_when_who_and_what(
    tmp_path: Path, until: Callable[..., None]
) -> None:
    said = entries(child(SAYS, tmp_path / "log", until))
    assert {(entry["run"], entry["role"]) for entry in said} == {("first", "collector")}
    assert all(entry["time"].endswith("+00:00") for entry in said)
    assert [(entry["level"], entry["message"].partition("\n")[0]) for entry in said[:3]] == [
        ("info", "started"),
        ("info", "accepted version 3"),
        ("warning", "beware of ‖"),
    ]
    assert (said[1]["version"], said[1]["seconds"]) == (3, 0.25)
    assert said[3]["level"] == "warning"
    assert "UserWarning: this is old" in said[3]["message"]
    assert said[4]["waits_for"] == said[5]["waited_for"] == "a server"
    assert said[5]["seconds"] >= 0
    assert (said[-1]["level"], said[-1]["message"], said[-1]["fix"]) == ("critical", "no such model", "name another")
    assert len(said) == 7


def test_debug_has_a_line_more(tmp_path: Path, until: Callable[..., None]) -> None:
    said = entries(child(SAYS, tmp_path / "log", until, TALLY_LOG="debug"))
    assert ("debug", "step 3") in {(entry["level"], entry["message"]) for entry in said}


def test_why_it_ended_is_read_from_the_log(tmp_path: Path, until: Callable[..., None]) -> None:
    ended = child(SAYS, tmp_path / "log", until)
    assert ended.last_words() == "no such model\n  fix: name another"
    assert ended.ending == "ended with exit code 2: no such model"
    defect = child(DEFECT, tmp_path / "defect", until)
    assert defect.ending == "ended with exit code 1: KeyError: 'oops'"
    assert "in main" in entries(defect)[-1]["traceback"]


def test_without_an_error_the_last_words_are_the_last_that_was_said(tmp_path: Path, until: Callable[..., None]) -> None:
    script = (
        "from pathlib import Path\nfrom rl.core import log\nlog.begin(Path('a'), 'tracker')\nlog.say('all is sent')"
    )
    assert child(script, tmp_path / "log", until).last_words() == "all is sent"
    torn = child("""print('{"level": "info", "mess')""", tmp_path / "torn", until)
    assert torn.last_words() == '{"level": "info", "mess'


def test_a_command_says_only_what_it_prints(tmp_path: Path, until: Callable[..., None]) -> None:
    script = "import logging\nfrom rl.core import cli\nlogging.getLogger('rl.collect.servers').warning('it is away')"
    assert child(script, tmp_path / "log", until).said() == ""


def test_on_a_terminal_it_speaks_in_sentences() -> None:
    terminal, stderr = pty.openpty()
    ended = subprocess.run([sys.executable, "-c", SAYS], stderr=stderr, check=False)
    os.close(stderr)
    said = os.read(terminal, 1 << 16).decode().replace("\r\n", "\n")
    os.close(terminal)
    assert ended.returncode == 2
    assert said.startswith("started\naccepted version 3\nwarning: beware of ‖\nwarning: ")
    assert said.endswith("\nerror: no such model\n  fix: name another\n")
