"""The services of compose.yaml, built and under fire; and the settings of the other one, as far as no GPU is needed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rl.train import _parser
from tests.compose.__main__ import check
from tests.compose.composed import ROOT, Composed, engine_runs

ENGINE = Path("../shared/docker/docker_up.sh")


@pytest.fixture(scope="module")
def engine() -> None:
    """A Docker engine; where this project's machines have the script that starts one, that is run."""
    start = ROOT / ENGINE
    if not engine_runs() and start.exists():
        subprocess.run(["bash", str(start)], check=False, capture_output=True, timeout=900)
    if not engine_runs():
        pytest.skip("no Docker engine with compose answers")


@pytest.mark.e2e
@pytest.mark.vllm
@pytest.mark.timeout(2400)
def test_the_services_outlive_what_befalls_them(engine: None) -> None:
    with Composed() as composed:
        for line in check(composed):
            print(line)


def services(*files: str, **settings: str) -> dict[str, Any]:
    """As `docker compose` understands them; no engine is asked."""
    command = ["docker", "compose", *(f"--file={file}" for file in files), "config", "--format=json"]
    try:
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **settings}, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no docker compose")
    assert (done.returncode, done.stderr) == (0, b"")
    return dict(json.loads(done.stdout)["services"])


def test_the_services_for_gpus_are_well_formed() -> None:
    found = services("docker/compose.gpu.yaml")
    resources = {name: service.get("deploy", {}).get("resources", {}) for name, service in found.items()}
    (server,), (learner,) = (resources[name]["reservations"]["devices"] for name in ("server", "learner"))
    assert (server["driver"], server["device_ids"]) == ("nvidia", ["0"])
    assert (learner["driver"], learner["device_ids"]) == ("nvidia", ["1"])
    asked = _parser().parse_args(found["learner"]["command"][3:])
    assert asked.config == Path("configs/qwen2.5-1.5b-gsm8k.toml")
    assert (asked.lr, asked.group_size, asked.lora_rank, asked.steps, asked.seed) == ("5e-5", None, None, None, None)


@pytest.mark.parametrize("file", ["compose.yaml", "docker/compose.gpu.yaml"])
def test_what_is_set_reaches_the_learner(file: str) -> None:
    settings = {"lr": "1e-3", "buffer": "64", "batch": "16", "group_size": "4", "lora_rank": "2", "steps": "7"}
    settings["seed"] = "5"
    learner = services(file, **{name.upper(): value for name, value in settings.items()})["learner"]
    asked = _parser().parse_args(learner["command"][3:])
    assert {name: getattr(asked, name) for name in settings} == settings


@pytest.fixture
def entrypoint() -> list[str]:
    """Of the learner; it is run here as in its container."""
    if shutil.which("tini") is None:
        pytest.skip("there is no tini")
    learner = services("compose.yaml")["learner"]
    assert learner["restart"] == "on-failure"
    return list(learner["entrypoint"])


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ("sys.exit(0)", 0),
        ("sys.exit(1)", 1),
        ("sys.exit(2)", 0),
        ("sys.exit(3)", 3),
        ("sys.exit(4)", 0),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("os.kill(os.getppid(), signal.SIGTERM); signal.sigwait([signal.SIGTERM]); sys.exit(130)", 130),
    ],
)
def test_a_learner_is_started_again_unless_it_would_end_for_the_same_reason(
    entrypoint: list[str], ends: str, code: int
) -> None:
    script = f"import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); {ends}"
    assert subprocess.run([*entrypoint, sys.executable, "-c", script], check=False).returncode == code


def test_a_wrong_setting_ends_the_learner_with_the_reason(entrypoint: list[str]) -> None:
    command = services("compose.yaml", LR="abc")["learner"]["command"]
    assert command.pop(0) == "python"
    ended = subprocess.run(
        [*entrypoint, sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0
    error, fix = ended.stderr.splitlines()[-2:]
    assert error.startswith("error: --lr abc")
    assert fix.startswith("  fix: ")


def test_each_server_is_reached_at_its_own_container(tmp_path: Path) -> None:
    command = [word.replace("$$", "$") for word in services("compose.yaml")["server"]["command"]]
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    env = {"HOSTNAME": "3f2a90c1de44", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    said = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert said.split()[-2:] == ["--url", "http://3f2a90c1de44:8000"]
