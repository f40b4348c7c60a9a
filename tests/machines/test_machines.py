"""A run on three machines that share no folder: it trains, and outlives a link that is cut, and a machine that dies."""

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from rl.core.rundir import RunDir
from tests.faults.books import check_books
from tests.machines.network import POSSIBLE, Machine, Network
from tests.postgres import BINARIES, Server

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.vllm,
    pytest.mark.skipif(not POSSIBLE, reason="machines are made by root, with iproute2 and util-linux"),
    pytest.mark.skipif(BINARIES is None, reason="there is no PostgreSQL: apt-get install postgresql"),
]
KEY = {"TALLY_API_KEY": "that-of-the-network-of-this-test"}
LIMIT_S = 240.0
CUT_S = 20.0
FLAGS = [
    *("--steps", "100000", "--save-every", "4", "--eval-every", "8", "--eval-problems", "8", "--eval-samples", "2"),
    *("--learners", "2", "--learner-nodes", "2", "--elsewhere", "server,learner,collector,evaluator"),
    *("--keep", "3", "--wandb", "off"),
]


@dataclass
class Service:
    network: Network
    run: RunDir
    supervisor: "subprocess.Popen[bytes]"
    log: Path
    url: str

    def steps(self) -> int:
        """Step records ever written."""
        return self.run.metrics_file.read_text().count('"kind": "step"') if self.run.metrics_file.exists() else 0

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + LIMIT_S
        while not condition():
            assert self.supervisor.poll() is None, self.log.read_text()
            assert time.monotonic() < end, f"waited {LIMIT_S:.0f} s for {what}: {self.log.read_text()}"
            time.sleep(0.1)

    def join(self, machine: Machine, role: str) -> None:
        machine.python("rl.join", role, self.url, log=f"{role}.log", env=KEY)

    def end(self) -> None:
        """As a user would; then the books have to balance, and give the same bits again."""
        psutil.Process(self.supervisor.pid).children()[0].send_signal(signal.SIGINT)
        assert self.supervisor.wait(LIMIT_S) == 130, self.log.read_text()
        for line in check_books(self.run, self.network.machines[0].enter):
            print(line)

    def wait_for_steps(self, more: int) -> None:
        before = self.steps()
        self.wait(lambda: self.steps() >= before + more, f"{more} steps more than {before}")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Server, supervisor and database are on `one`, the learner on `two` and `three`, the collector on `three`."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))  # where the user postgres may go
    with Network(tmp_path) as network:
        one, two, three = map(network.add, ("one", "two", "three"))
        postgres = Server(folder, address=one.address, enter=one.enter)
        postgres.ask("CREATE DATABASE tally")
        command = ["rl.train", "--run-dir", "run", "--buffer-url", postgres.url("tally"), *FLAGS]
        supervisor = one.python(*command, log="train.log", env=KEY)
        url = f"{postgres.url('tally')}?options={quote('-csearch_path=run')}"
        service = Service(network, RunDir(one.folder / "run"), supervisor, one.folder / "train.log", url)
        service.wait(service.run.problems_file.exists, "the beginning of the run")
        for machine, role in ((one, "server"), (one, "evaluator"), (two, "learner"), (three, "learner")):
            service.join(machine, role)
        service.join(three, "collector")
        service.wait_for_steps(6)
        yield service
    postgres.wait()
    shutil.rmtree(folder)


def test_a_run_outlives_a_cut_link(service: Service) -> None:
    with service.network.cut(service.network.machines[2]):
        time.sleep(CUT_S)
    service.wait_for_steps(6)
    service.end()


def test_a_run_outlives_a_machine(service: Service) -> None:
    """With a rank of the learner and the collector: another machine takes their roles."""
    service.network.machines[2].power_off()
    four = service.network.add("four")
    service.join(four, "learner")
    service.join(four, "collector")
    service.wait_for_steps(6)
    service.end()
