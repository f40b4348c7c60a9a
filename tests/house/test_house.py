"""The house checks itself: layers, file length, light commands, configs, and no word of the old."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rl.__main__ import commands
from rl.core import cli

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for room in ("rl", "rollout_server", "rewards") for path in (ROOT / room).rglob("*.py"))
COMMANDS = [f"rl.{name}" for name in commands()] + ["rewards", "rewards.bench", "rollout_server"]

# Each room and the rooms of ours that it may know, in the order in which data visits them.
MAY_KNOW = {
    "rewards": "",
    "rollout_server": "",
    "rl.core": "rewards rollout_server.schema rollout_server.access rollout_server.connections",
    "rl.problems": "rewards rollout_server.schema rl.core",
    "rl.buffer": "rl.core",
    "rl.collect": "rewards rollout_server.schema rollout_server.access rl.core rl.problems rl.buffer",
    "rl.learner": "rollout_server.schema rl.core rl.problems rl.buffer rl.collect",
    "rl.evaluate": "rewards rollout_server.schema rl.core rl.problems rl.buffer rl.collect rl.learner.checkpoint",
    "rl.study": "rl.core rl.evaluate",
    "rl.observe": "rewards rl.core rl.problems rl.buffer rl.evaluate rl.learner.checkpoint rl.study",
    "rl.present": "rewards rl.core rl.learner.rates rl.evaluate rl.study rl.observe",
    "rl.page": "rewards rollout_server.access rollout_server.connections rl.core rl.problems.prompt rl.buffer "
    "rl.evaluate rl.study rl.observe rl.present",
    "rl.track": "rewards rl.core rl.buffer rl.evaluate rl.learner.checkpoint rl.study rl.observe",
    "rl.launch": "rewards rollout_server.access rl.core rl.problems rl.buffer rl.collect rl.learner.checkpoint "
    "rl.evaluate rl.study rl.observe rl.present rl.track",
    "rl.measure": "rewards rollout_server rl.core rl.problems rl.buffer rl.collect rl.learner rl.launch",
}


def room_of(module: str) -> str | None:
    """`rl.core.cli` is in `rl.core`; `rl.train` is a command, in no room."""
    top, _, rest = module.partition(".")
    if top != "rl":
        return top
    room = rest.partition(".")[0]
    return f"rl.{room}" if (ROOT / "rl" / room).is_dir() and room else None


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_know_only_what_lies_before_them(path: Path) -> None:
    room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    known = [name for name in imports(path) if name.split(".")[0] in ("rl", "rollout_server", "rewards")]
    if room is None:  # a command knows all rooms; nobody knows the commands
        assert all(room_of(name) for name in known if name != "rl"), known
        return
    allowed = {*MAY_KNOW[room].split(), room}
    strangers = [name for name in known if not any(f"{name}.".startswith(f"{a}.") for a in allowed)]
    assert strangers == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_small_and_say_what_they_are(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 320
    assert text == "" or ast.get_docstring(ast.parse(text))
    assert not any(word in text for word in ("TODO", "FIXME", "XXX"))


@pytest.mark.parametrize("path", [p for p in SOURCES if p.is_relative_to(ROOT / "rl")], ids=lambda p: p.stem)
def test_no_duration_is_read_off_a_clock_that_may_be_set(path: Path) -> None:
    """`datetime` says when something was; how long it took or may take is for `monotonic`."""
    assert "time.time(" not in path.read_text()
    assert "time.time" not in imports(path)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_without_torch(command: str) -> None:
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['x', '--help']\n"
        "try:\n"
        f"    runpy.run_module({command!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'vllm', 'fastapi', 'sympy', 'sqlalchemy', 'numpy', 'datasets', 'wandb'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "usage:" in answer.stdout


def test_python_m_rl_lists_every_command() -> None:
    answer = subprocess.run([sys.executable, "-m", "rl"], capture_output=True, text=True, cwd=ROOT, check=True)
    assert {"train", "eval", "report", "pretrain"} <= commands().keys()
    for name, purpose in commands().items():
        assert purpose
        assert f"python -m rl.{name}" in answer.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.name)
def test_every_config_parses_and_says_what_to_expect(path: Path) -> None:
    parser = cli.Parser()
    cli.add_config_flags(parser)
    cli.resolve(parser.parse_args(["--config", str(path)]))
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("purpose:", "hardware:", "minutes:", "expect:"):
        assert any(word in line for line in head), f"{path} does not state its {word}"


def test_the_lock_names_no_address() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        lines = path.read_text().splitlines()
        assert lines
        assert all("==" in line and "://" not in line and not line.startswith("-") for line in lines)
