"""A run's processes end with it, whatever ends it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rl.core.processes import Child, Children

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("started", flush=True)
time.sleep(600)
"""


def session_is_empty(session: int) -> bool:
    """Whether no process of this session is left (zombies that wait for a parent do not run)."""
    stats = (path.read_text() for path in Path("/proc").glob("[0-9]*/stat") if path.exists())
    fields = (text.rpartition(")")[2].split() for text in stats)
    return not any(int(f[3]) == session and f[0] != "Z" for f in fields)


def test_leaving_the_context_ends_a_stubborn_child_and_its_children(
    tmp_path: Path, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rl.core.processes.STOP_S", 0.2)
    log = tmp_path / "child.log"
    with Children() as children:
        child = children.add(Child("stubborn", [sys.executable, "-c", STUBBORN], log, {}))
        until(lambda: "started" in log.read_text())
        assert child.exit_code is None
    assert child.exit_code == -signal.SIGKILL
    until(lambda: session_is_empty(child.pid))


def test_a_child_dies_with_a_parent_that_is_killed(tmp_path: Path, until: Callable[..., None]) -> None:
    script = f"""
import sys, time
from pathlib import Path
from rl.core.processes import Child
child = Child("c", [sys.executable, "-c", "import time; time.sleep(600)"], Path({str(tmp_path / "log")!r}), {{}})
print(child.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(child, 0)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: session_is_empty(child))


def test_a_process_whose_parent_has_gone_before_it_could_say_so_ends() -> None:
    stranger = f"""
import os
from rl.core.parent import die_with_parent
die_with_parent(os.getppid())
print("with its parent", flush=True)
die_with_parent({os.getpid()} + 1)
print("without", flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", stranger], capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.returncode) == ("with its parent\n", -signal.SIGKILL)


def test_one_child_is_ended_with_what_it_started_and_forgotten(tmp_path: Path, until: Callable[..., None]) -> None:
    with Children() as children:
        child = children.add(Child("stubborn", [sys.executable, "-c", STUBBORN], tmp_path / "log", {}))
        other = children.add(Child("other", ["sleep", "600"], tmp_path / "other", {}))
        until(lambda: "started" in child.said())
        os.kill(child.pid, signal.SIGSTOP)
        children.end(child)
        assert child.ending == "was killed by SIGKILL"
        assert other.exit_code is None
    until(lambda: session_is_empty(child.pid))
    assert other.ending == "was killed by SIGTERM"


def test_last_words_are_the_error_and_its_fix(tmp_path: Path, until: Callable[..., None]) -> None:
    text = "chatter\\nerror: no such model\\n  fix: name another\\nmore chatter"
    child = Child("c", [sys.executable, "-c", f"print('{text}')"], tmp_path / "log", {})
    until(lambda: child.exit_code == 0)
    assert child.last_words() == "no such model\n  fix: name another"
    again = Child("c", [sys.executable, "-c", "print('all well')"], tmp_path / "log", {})
    until(lambda: again.exit_code == 0)
    assert again.last_words() == "all well"
    plain = Child("c", [sys.executable, "-c", "import sys; sys.exit('went away')"], tmp_path / "plain", {})
    until(lambda: plain.exit_code is not None)
    assert plain.last_words() == "went away"
    assert plain.ending == "ended with exit code 1: went away"
