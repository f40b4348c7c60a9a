"""The doctor finds what is wrong before a run does, and says how to mend it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rl.launch.doctor import Finding, State, report
from rl.launch.probe import probe_reach

ROOT = Path(__file__).parents[2]


def doctor(*arguments: str, **env: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "rl.doctor", *arguments]
    whole = {**os.environ, "COLUMNS": "200", **env}
    answer = subprocess.run(command, cwd=ROOT, env=whole, capture_output=True, text=True, check=False)
    assert "Traceback" not in answer.stderr
    return answer.returncode, answer.stdout + answer.stderr


def finding(out: str, what: str) -> str:
    return next(line for line in out.splitlines() if line[8:].startswith(what))


@pytest.mark.vllm
def test_everything_that_a_run_needs_is_looked_at(tmp_path: Path) -> None:
    code, out = doctor("--run-dir", str(tmp_path / "runs" / "new"), HF_ENDPOINT="http://127.0.0.1:1")
    assert code == 0, out
    assert out.splitlines()[-1] == "a run can start"
    for what in ("Python", "torch", "vLLM", "memory", "disk", "port", "model, data"):
        assert finding(out, what).startswith(("ok", "warning"))
    assert f"free at {tmp_path}" in finding(out, "disk")
    assert finding(out, "hub").startswith("warning hub         127.0.0.1 is not reachable")
    warnings = sum(line.startswith("warning") for line in out.splitlines())
    assert out.count("fix: ") == warnings >= 1


def test_what_is_wrong_ends_with_an_exit_code_and_a_fix(tmp_path: Path) -> None:
    problems = tmp_path / "problems.jsonl"
    problems.write_text("")
    broken = tmp_path / "vllm.py"
    broken.write_text("raise ImportError('libnuma.so.1: cannot open shared object file')")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, out = doctor("--problems", str(problems), "--port", port, "--wandb", "off", PYTHONPATH=str(tmp_path))
    assert code == 3
    assert finding(out, "vLLM") == "wrong   vLLM        ImportError: libnuma.so.1: cannot open shared object file"
    assert finding(out, "port").startswith("wrong")
    assert finding(out, "model, data").startswith("wrong")
    assert finding(out, "W&B") == "ok      W&B         off, as --wandb says"
    assert out.splitlines()[-1] == "a run cannot start: vLLM, port, model, data"


def test_a_server_that_never_answers_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = probe_reach(f"http://127.0.0.1:{silent.getsockname()[1]}", "0.2")
    assert "timed out" in found["error"]


def test_wrong_input_alone_is_a_usage_error() -> None:
    port = Finding("port", State.WRONG, "taken", "take another", exit_code=2)
    assert report([Finding("disk", State.WARNING, "little", "make room")]) == 0
    assert report([port]) == 2
    assert report([port, Finding("torch", State.WRONG, "missing", "./setup.sh")]) == 3


@pytest.mark.parametrize("arguments", [("--lr", "-1"), ("--nonsense", "3")])
def test_flags_are_those_of_a_run(arguments: tuple[str, ...]) -> None:
    code, out = doctor(*arguments)
    assert code == 2
    assert "fix: " in out
