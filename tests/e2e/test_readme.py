"""The README is true: its commands run as written, its transcripts are what they print, its paths exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rl.core.rundir import RunDir

ROOT = Path(__file__).parents[2]
WORD = re.compile(r"\b[A-Z]{3,}_[A-Z_]+\b")
README = (ROOT / "README.md").read_text()
DATABASE = "postgresql://tally@db/tally"
FIRST = "--run-dir runs/first"
QUICK = "--steps 4 --eval-every 4 --eval-problems 8 --eval-samples 2"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The lines of all bash blocks, without set-up and comments."""
    lines = [line for block in blocks("bash") if "<<" not in block for line in block.splitlines()]
    return [line.split("  #")[0].strip().removeprefix("./setup.sh ") for line in lines]


def run(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    python, *rest = shlex.split(command)
    assert python == "python", command
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(cwd)}
    return subprocess.run([sys.executable, *rest], cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    return tmp_path


def test_the_readme_has_the_two_commands_and_ci_runs_the_second() -> None:
    assert f"./setup.sh python -m rl.train {FIRST}" in README
    assert "./setup.sh python -m pytest" in README
    assert "./setup.sh python -m pytest" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.e2e
@pytest.mark.vllm
def test_the_commands_around_a_run_do_what_they_say(folder: Path) -> None:
    """Train, resume, evaluate, compare and report, in the README's order; only the first is shortened."""
    around = [c for c in commands() if "runs/first" in c]
    assert around[0] == f"python -m rl.train {FIRST}"
    assert len(around) >= 5
    for command in around:
        done = run(f"{command} {QUICK}" if FIRST in command else command, folder)
        assert (done.returncode, done.stderr) == (0, ""), command
    assert (folder / "runs" / "first" / "report" / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("command", [c for c in commands() if "rl.train" in c and "runs/first" not in c])
def test_the_other_training_commands_are_understood(folder: Path, command: str) -> None:
    done = run(command.removesuffix("--dry-run") + " --dry-run", folder)
    if "qwen" in command.lower() and done.returncode:  # where there is no network to look the model up
        assert "the hub does not give it" in done.stderr
        return
    assert (done.returncode, done.stderr) == (0, "")
    assert "held out" in done.stdout


def commands_of_a_database() -> list[str]:
    """Training commands of the sh blocks, which want machines that are not here, and a database."""
    lines = [line for block in blocks("sh") for line in block.replace("\\\n", "").splitlines()]
    return [line.rpartition("; ")[2] for line in lines if "rl.train" in line]


@pytest.mark.parametrize("command", commands_of_a_database())
def test_the_commands_for_several_machines_are_understood(folder: Path, database_url: str, command: str) -> None:
    assert DATABASE in command
    done = run(f"{command.replace(DATABASE, database_url)} --dry-run", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "held out" in done.stdout


@pytest.mark.parametrize("command", [c for c in commands() if "rl.sweep" in c])
def test_the_sweeps_are_understood(folder: Path, command: str) -> None:
    done = run(f"{command} --dry-run", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "side by side" in done.stdout


@pytest.mark.e2e
@pytest.mark.vllm
def test_problems_and_a_reward_of_ones_own_train(folder: Path) -> None:
    """The script as it stands, but shorter."""
    (script,) = [block for block in blocks("bash") if "<<" in block]
    assert script.rstrip().endswith("--steps 20")
    shorter = script.rstrip().removesuffix("--steps 20") + f"--run-dir own {QUICK}"
    env = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    done = subprocess.run(["bash", "-ec", shorter], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rewards = {reward for record in RunDir(folder / "own").records() if (reward := record.get("reward_trained"))}
    assert rewards - {0.0, 1.0}, "the tenth that a box pays shows in the means"


@pytest.mark.parametrize("block", blocks("console"))
def test_transcripts_are_what_the_commands_print(folder: Path, block: str) -> None:
    command, *expected = block.splitlines()
    done = run(command.removeprefix("$ "), folder)
    assert re.sub(r"[\d.]+ ms", "0.8 ms", done.stdout).splitlines() == expected


@pytest.mark.parametrize("block", blocks("python"))
def test_python_examples_run_and_print_what_they_say(folder: Path, block: str) -> None:
    done = subprocess.run([sys.executable, "-c", block], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == re.findall(r"print\(.*\)  # (.*)", block)


def test_no_figure_is_left_to_fill_in() -> None:
    """What looks like one is a variable of the environment, which the code knows."""
    texts = [README, *(path.read_text() for path in (ROOT / "configs").glob("*.toml"))]
    known = {
        word
        for path in (ROOT / "rollout_server/access.py", ROOT / "rl/core/dburl.py")
        for word in WORD.findall(path.read_text())
    }
    assert {word for text in texts for word in WORD.findall(text)} <= known


def test_every_path_that_is_named_exists() -> None:
    named = re.findall(r"[`(]((?:rl|rollout_server|rewards|configs|tests|requirements|\.ci)/[\w./-]*)[`)]", README)
    assert len(named) >= 5
    assert [path for path in named if not (ROOT / path).exists()] == []
    tree = re.findall(r"^  (\w+/) ", README, re.MULTILINE)
    assert {"core/", "learner/", "launch/"} <= set(tree)
    run = {"checkpoints/", "evals/", "wandb/", "logs/"}
    assert all((ROOT / "rl" / room).is_dir() for room in tree if room not in run)
