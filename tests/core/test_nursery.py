"""Processes that a nursery forks: as those of `python -m`, with what it has imported, and ended with their command."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.commands import words_of
from tests.core.test_processes import session_is_empty

LARGE = "import os\nIMPORTED_BY = os.getpid()\n"
WORKER = """
import json, os, signal, sys, tempfile, time
from rl.core.errors import UsageError

def main(arguments):
    import large
    facts = {"pid": os.getpid(), "imported_by": large.IMPORTED_BY, "arguments": arguments, "own": os.environ.get("OWN")}
    print(json.dumps(facts | {"temporary": tempfile.gettempdir(), "name": __name__}), flush=True)
    print("an aside", file=sys.stderr)
    if arguments == ["wrong"]:
        raise UsageError("this is wrong", fix="give another")
    if arguments == ["wait"]:
        time.sleep(600)
    return int(arguments[0])

if __name__ == "__main__":
    main(sys.argv[1:])
    sys.exit(5)
"""
COMMAND = """
import os, sys, time
from pathlib import Path
from rl.core.nursery import Nursery
from rl.core.processes import Child, Children

def main(arguments):
    work = Path(arguments[0])
    print("said before", end="")
    with Nursery(["large"]) as nursery, Children() as children:
        def start(name, module, *words, **env):
            command = [sys.executable, "-m", module, *words]
            return children.add(Child(name, command, work / f"{name}.log", env, nursery=nursery))
        BODY

if __name__ == "__main__":
    main(sys.argv[1:])
"""


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """A process with a nursery, which does what it is told."""
    (tmp_path / "large.py").write_text(LARGE)
    (tmp_path / "worker.py").write_text(WORKER)
    begun: list[subprocess.Popen[str]] = []

    def begin(body: str) -> subprocess.Popen[str]:
        (tmp_path / "command.py").write_text(COMMAND.replace("BODY", body.replace("\n", "\n        ")))
        begun.append(
            subprocess.Popen(
                [sys.executable, "-m", "command", str(tmp_path)],
                env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def facts(log: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(log.read_text().splitlines()[0])
    return loaded


def said(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    return out.splitlines()


def test_a_fork_is_as_python_m_would_start_it(tmp_path: Path, command: Callable[[str], subprocess.Popen[str]]) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "a.log").write_text("")
    body = 'a = start("a", "worker", "7", OWN="mine", TMPDIR=str(work / "own"))\nb = start("b", "worker", "wrong")\n'
    out = said(command(body + "print(os.getpid(), a.wait(30), a.ending)\nprint(b.wait(30), b.last_words())"))
    supervisor, _, ending = out[0].removeprefix("said before").partition(" ")
    assert ending == "7 ended with exit code 7: an aside", "its output is in its log, and said once"
    assert out[1:] == ["2 this is wrong", "  fix: give another"]
    a, b = facts(tmp_path / "a.log"), facts(tmp_path / "b.log")
    assert a["imported_by"] == b["imported_by"] not in (a["pid"], b["pid"], int(supervisor))
    assert (a["arguments"], a["own"], a["temporary"]) == (["7"], "mine", str(tmp_path / "own"))
    assert (b["arguments"], b["own"]) == (["wrong"], None)


def test_a_fork_has_its_own_name_and_session(
    tmp_path: Path, command: Callable[[str], subprocess.Popen[str]], until: Callable[..., None]
) -> None:
    command('start("a", "worker", "wait")\ntime.sleep(600)')
    until(lambda: (tmp_path / "a.log").exists() and "aside" in (tmp_path / "a.log").read_text())
    process = psutil.Process(facts(tmp_path / "a.log")["pid"])
    assert words_of(process) == ["python", "-m", "worker", "wait"]
    assert os.getsid(process.pid) == process.pid


def test_forks_end_with_the_command_that_is_killed(
    tmp_path: Path, command: Callable[[str], subprocess.Popen[str]], until: Callable[..., None]
) -> None:
    process = command('start("a", "worker", "wait")\ntime.sleep(600)')
    until(lambda: (tmp_path / "a.log").exists() and "aside" in (tmp_path / "a.log").read_text())
    a = facts(tmp_path / "a.log")
    process.kill()
    until(lambda: session_is_empty(a["pid"]) and session_is_empty(a["imported_by"]))


def test_a_nursery_forks_a_command_with_a_nursery_of_its_own(
    tmp_path: Path, command: Callable[[str], subprocess.Popen[str]], until: Callable[..., None]
) -> None:
    """Only the outer one imports; the inner one's forks end with the inner command."""
    (tmp_path / "inner").mkdir()
    body = """if work.name == "inner":
    start("a", "worker", "wait")
    time.sleep(600)
inner = start("inner", "command", str(work / "inner"))
while not (work / "inner/a.log").exists() or "aside" not in (work / "inner/a.log").read_text():
    time.sleep(0.02)
os.kill(inner.pid, 9)
print(inner.wait(30), os.getpid())"""
    code, command_pid = map(int, said(command(body))[0].removeprefix("said before").split())
    a = facts(tmp_path / "inner" / "a.log")
    assert code == -signal.SIGKILL
    assert a["imported_by"] not in (a["pid"], command_pid)
    until(lambda: session_is_empty(a["pid"]))


def test_without_its_nursery_a_command_goes_on(tmp_path: Path, command: Callable[[str], subprocess.Popen[str]]) -> None:
    """Somebody kills it: its forks end, and those that take their place import for themselves."""
    body = """a = start("a", "worker", "wait")
while "aside" not in a.said():
    time.sleep(0.02)
import psutil
psutil.Process(a.pid).parent().kill()
print(a.wait(30), a.ending)
b = start("b", "worker", "5")
print(b.wait(30))"""
    out = said(command(body))
    assert out == ["said before-9 was killed by SIGKILL", "5"]
    b = facts(tmp_path / "b.log")
    assert b["imported_by"] == b["pid"]


def test_leaving_the_nursery_does_not_wait_for_its_imports(
    tmp_path: Path, command: Callable[[str], subprocess.Popen[str]]
) -> None:
    (tmp_path / "large.py").write_text("import time\ntime.sleep(600)\n")
    assert said(command("pass")) == ["said before"]
