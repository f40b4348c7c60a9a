"""A run of the embedded default that faults are injected into, from outside and with real signals."""

import json
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGQUIT, SIGSTOP, Signals
from typing import Any
from urllib.request import urlopen

import psutil
import sqlalchemy as sa

from rl.buffer.database import read_only
from rl.buffer.tables import State, commits, groups
from rl.core.rundir import RunDir
from tests.commands import words_of
from tests.e2e.conftest import Train
from tests.postgres import USER, Server

FLAGS = [
    *("--steps", "100000", "--save-every", "4", "--keep", "3", "--learners", "2"),
    *("--eval-every", "4", "--eval-problems", "8", "--eval-samples", "2", "--wandb", "off"),
]
LIMIT_S = 240.0
"""For what has to happen on a busy machine; how long it took is reported, not asserted."""
LOOK_S = 0.002
RANDOM_S = 4.0
"""A random moment is within so many seconds."""

VICTIMS = ("server", "collector", "verifier", "evaluator", "learner 0", "learner 1", "supervisor")
MODULES = {"server": "rollout_server", "collector": "rl.collect", "evaluator": "rl.evaluate"}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is to be done to which process, and when."""

    victim: str
    moment: str
    """`random`, or a state of the run that is waited for: a method of `Service`."""
    signal: Signals = SIGKILL

    def __str__(self) -> str:
        return f"{self.signal.name} {self.victim} {self.moment}"


KILLS = [
    *(Fault(victim=victim, moment="random") for victim in VICTIMS),
    Fault(victim="nursery", moment="random"),
    Fault(victim="learner 0", moment="publishing"),
    Fault(victim="learner 0", moment="trained"),
    Fault(victim="learner 1", moment="saving"),
    Fault(victim="supervisor", moment="saving"),
    Fault(victim="server", moment="publishing"),
    Fault(victim="supervisor", moment="publishing"),
    *(Fault(victim=victim, moment="training") for victim in ("learner 0", "learner 1", "collector")),
    Fault(victim="supervisor", moment="trained"),
    Fault(victim="learner 0", moment="saving"),
    Fault(victim="evaluator", moment="evaluating"),
]
"""One round. Between the optimizer's step and the commit: publishing, trained. Mid-commit: saving."""
FEW_KILLS = KILLS[:12]
"""Every victim, and the worst moments of the learner and the supervisor."""
DATABASE_KILLS = [
    *(Fault(victim="database", moment=m, signal=SIGQUIT) for m in ("random", "training", "publishing", "saving")),
    *(Fault(victim="backend", moment=moment) for moment in ("random", "trained")),
    Fault(victim="database", moment="random", signal=SIGINT),
]
"""Of a ledger in PostgreSQL: its server crashes ("immediate" mode), or one of its processes is killed, so that it ends
all others and recovers, or its administrator ends it; then it is started again."""
FEW_WITH_DATABASE = [
    *(DATABASE_KILLS[i] for i in (1, 3, 4, 6)),
    Fault(victim="learner 0", moment="publishing"),
    Fault(victim="supervisor", moment="trained"),
    Fault(victim="collector", moment="random"),
]
STOPS = [Fault(victim=v, moment="random", signal=SIGSTOP) for v in VICTIMS if v != "supervisor"]


@dataclass(frozen=True, kw_only=True)
class Recovery:
    fault: Fault
    step: int
    """The newest step when it was injected."""
    back_s: float
    """From the signal until its replacement ran, and a server had loaded its model; what does not end by the signal is
    first noticed by its silence."""
    after_s: float
    """From then until a step was made."""

    def __str__(self) -> str:
        back, after = f"back after {self.back_s:5.1f} s", f"a step {self.after_s:5.1f} s later"
        return f"{self.fault!s:34} at step {self.step:4}: {back}, {after}"


class Service:
    """One run, started again when its supervisor is the one that is killed.

    Args:
        server: which its ledger is in; None for a file.
    """

    def __init__(self, root: Path, seed: int, *flags: str, server: Server | None = None) -> None:
        self.run, self._server = RunDir(root), server
        if server is not None:
            flags = (*flags, "--buffer-url", server.url("postgres"))
        self._random = random.Random(seed)
        self._train = Train("--run-dir", str(root), "--seed", str(seed), *FLAGS, *flags, cwd=root.parent)
        self.launches = [self._train]
        self._wait(lambda: self._newest_step() >= 2, "the second step")

    def inject(self, fault: Fault) -> Recovery:
        """Signals the victim at the moment, and waits until the run goes on."""
        if fault.moment == "random":
            self._wait_until(time.monotonic() + self._random.uniform(0, RANDOM_S))
        else:
            self._wait(getattr(self, fault.moment), f"the moment of {fault}")
        victim = self._find(fault.victim)
        missed, old = fault.victim, victim
        if missed == "nursery":  # its forks end with it
            missed, old = "learner 0", self._find("learner 0")
        step, lines = self._newest_step(), self._steps_logged()
        start = time.monotonic()
        victim.send_signal(fault.signal)
        if fault.victim == "supervisor":
            self._train.finish()
            self._train = Train("--resume", str(self.run.root), cwd=self.run.root.parent)
            self.launches.append(self._train)
        if fault.victim == "database" and self._server is not None:
            self._server.wait()
            self._server.start()
        self._wait(lambda: self._replaced(missed, old), f"a replacement after {fault}")
        if fault.victim in ("server", "supervisor"):
            self._wait(self._ready, f"a server that is ready after {fault}")
        back = time.monotonic()
        if fault.victim not in ("verifier", "evaluator"):  # the steps that are made meanwhile do not need them
            lines = self._steps_logged()
        self._wait(lambda: self._steps_logged() > lines, f"a step after {fault}")
        return Recovery(fault=fault, step=step, back_s=back - start, after_s=time.monotonic() - back)

    def end(self) -> tuple[int, str, str]:
        """Has the run stop as a user would; exit code, stdout and stderr of its last launch."""
        self._train.process.send_signal(SIGINT)
        return self._train.finish()

    def kill(self) -> None:
        for launch in self.launches:
            launch.kill()
        if "_ledger" in vars(self):
            self._ledger.dispose()

    # ---- moments

    def publishing(self) -> bool:
        """A version is on the server and not accepted: its proof is being made."""
        versions = self._ask("/v1/policies")["versions"]
        return any(not version["accepted"] and "eval" not in version["policy"] for version in versions)

    def training(self) -> bool:
        """A batch is leased and its update is not published."""
        return self._scalar(sa.select(sa.func.count()).where(groups.c.state == State.LEASED)) > 0

    def trained(self) -> bool:
        """A step is trained and published that no checkpoint has yet."""
        trained = self._scalar(sa.select(sa.func.max(groups.c.step)).where(groups.c.state == State.TRAINED))
        return trained > self._scalar(sa.select(sa.func.max(commits.c.step)))

    def saving(self) -> bool:
        """A checkpoint is being written."""
        return any(self.run.checkpoints.glob(".step-*"))

    def evaluating(self) -> bool:
        """An evaluation is under way."""
        return any(self.run.evals.glob(".*.draft"))

    # ---- what can be seen from outside

    def _find(self, victim: str) -> psutil.Process:
        found: list[psutil.Process] = []

        def look() -> bool:
            found.extend(self._processes(victim))
            return bool(found)

        self._wait(look, f"the process of the {victim}")
        return self._random.choice(sorted(found, key=lambda process: process.pid))

    def _processes(self, victim: str) -> list[psutil.Process]:
        if victim == "supervisor":
            return [psutil.Process(self._train.process.pid)]
        if self._server is not None and victim in ("database", "backend"):
            database = psutil.Process(self._server.pid)
            return [database] if victim == "database" else [p for p in database.children() if USER in words_of(p)]
        return [process for process in self._train.descendants() if _is(process, victim)]

    def _replaced(self, victim: str, old: psutil.Process) -> bool:
        others = [process for process in self._processes(victim) if process != old]
        return not _runs(old) and any(map(_runs, others))

    def _ready(self) -> bool:
        return bool(self._ask("/health")["status"] == "ready")

    def _ask(self, path: str) -> Any:
        """Of the first server, whose address the collector knows."""
        words = [word for process in self._processes("collector") for word in words_of(process)]
        urls = [word.partition("=")[2] for word in words if word.startswith("--server-url=")]
        if not urls:
            raise OSError("no collector is there to be asked")
        with urlopen(f"{urls[0]}{path}", timeout=10) as answer:
            return json.load(answer)

    @cached_property
    def _ledger(self) -> sa.Engine:
        return read_only(self.run.buffer_url)

    def _scalar(self, query: sa.Select[tuple[int]]) -> int:
        with self._ledger.connect() as db:
            return db.scalar(query) or 0

    def _newest_step(self) -> int:
        return max((r["step"] for r in self.run.records() if r["kind"] == "step"), default=0)

    def _steps_logged(self) -> int:
        """Step records ever written; those that were made again after a resume count again."""
        return self.run.metrics_file.read_text().count('"kind": "step"')

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + LIMIT_S
        while True:
            with suppress(OSError, sa.exc.OperationalError, psutil.NoSuchProcess):  # what is asked may just be away
                if condition():
                    return
            assert self._train.process.poll() is None, f"the run ended before {what}: {self._train.finish()}"
            assert time.monotonic() < end, f"waited {LIMIT_S} s for {what}"
            time.sleep(LOOK_S)

    def _wait_until(self, moment: float) -> None:
        self._wait(lambda: time.monotonic() >= moment, "a random moment")


def _runs(process: psutil.Process) -> bool:
    """Whether it is there, and not only waits to be reaped."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _is(process: psutil.Process, victim: str) -> bool:
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        words = words_of(process)
        if victim.startswith("learner"):
            return "rl.learner" in words and words[-1] == f"{victim.split()[1]})"
        if victim == "nursery":
            return "nursery" in words
        if victim == "verifier":  # its zygote forks it, and has the same words
            zygote = any("rewards.processes.zygote" in word for word in words)
            return zygote and (parent := process.parent()) is not None and words_of(parent) == words
        return MODULES[victim] in words
    return False
