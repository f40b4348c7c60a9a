"""The services of compose.yaml, built and under fire; and the settings of the other one, as far as no GPU is needed."""

import json
import subprocess
from pathlib import Path

import pytest

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


def test_the_services_for_gpus_are_well_formed(engine: None) -> None:
    command = ["docker", "compose", "-f", "docker/compose.gpu.yaml", "config", "--format", "json"]
    services = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)["services"]
    resources = {name: service.get("deploy", {}).get("resources", {}) for name, service in services.items()}
    (server,), (learner,) = (resources[name]["reservations"]["devices"] for name in ("server", "learner"))
    assert (server["driver"], server["device_ids"]) == ("nvidia", ["0"])
    assert (learner["driver"], learner["device_ids"]) == ("nvidia", ["1"])
    assert "configs/qwen2.5-1.5b-gsm8k.toml" in services["learner"]["command"]
