"""A run on a Ray cluster of three nodes, simulated on this machine as Ray's own tests do; one of them is killed."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.launch.cluster import check_room, need, roles
from tests.commands import words_of
from tests.faults.books import check_books

pytestmark = pytest.mark.filterwarnings(  # of Ray's own, in this process
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
FLAGS = [
    *("--steps", "100000", "--save-every", "4", "--keep", "3", "--learners", "2", "--servers", "2", "--wandb", "off"),
    *("--eval-every", "8", "--eval-problems", "8", "--eval-samples", "2"),
]
LIMIT_S = 400.0
NODE_CPUS = 4


@pytest.fixture
def nodes() -> Iterator[object]:
    """Of four CPUs each, so that two have room for the six members of the run."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield cluster
    cluster.shutdown()


def has_learner(node) -> bool:
    """Whether a member on this node has the ranks of a learner."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return any(words_of(process)[3:4] == ["learner"] for process in raylet.children(recursive=True))


@pytest.mark.e2e
@pytest.mark.vllm
@pytest.mark.timeout(1200)
def test_the_roles_of_a_node_that_dies_come_back_elsewhere(nodes, database_url: str, tmp_path: Path) -> None:
    workers = [nodes.add_node(num_cpus=NODE_CPUS) for _ in range(3)]
    run, log = RunDir(tmp_path / "run"), tmp_path / "train.log"
    command = [sys.executable, "-m", "rl.train", "--ray-address", nodes.address, "--buffer-url", database_url]
    with log.open("w") as output:
        train = subprocess.Popen([*command, "--run-dir", str(run.root), *FLAGS], stdout=output, stderr=output)

    def steps() -> int:
        return run.metrics_file.read_text().count('"kind": "step"') if run.metrics_file.exists() else 0

    def wait(condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + LIMIT_S
        while not condition():
            assert train.poll() is None, log.read_text()
            assert time.monotonic() < end, f"waited {LIMIT_S:.0f} s for {what}: {log.read_text()}"
            time.sleep(0.2)

    try:
        wait(lambda: steps() >= 6, "six steps")
        nodes.remove_node(next(node for node in workers if has_learner(node)), allow_graceful=False)
        before = steps()
        wait(lambda: steps() >= before + 10, "ten more steps")
        train.send_signal(signal.SIGINT)
        assert train.wait(120) == 130, log.read_text()
    finally:
        train.kill()
        train.wait()
    assert "it is started again (1 of 8)" in log.read_text()
    for line in check_books(run):
        print(line)


def test_servers_and_ranks_are_members_with_a_gpu_each() -> None:
    members = roles(TrainConfig(servers=8, learners=4))
    assert [members.count(role) for role in ("server", "learner", "collector", "evaluator")] == [8, 4, 1, 1]
    bundles = [need(role, {"CPU": 64.0, "GPU": 12.0}) for role in members]
    assert sum(bundle.get("GPU", 0.0) for bundle in bundles) == 12
    check_room(bundles, {"CPU": 64.0, "GPU": 12.0})
    with pytest.raises(UsageError, match="takes 12 GPUs, and the Ray cluster has 8"):
        check_room(bundles, {"CPU": 64.0, "GPU": 8.0})
