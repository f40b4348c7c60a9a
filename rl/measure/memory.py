"""What the processes under this one take: peak memory and CPU time, by what they are."""

import re
import time
from collections import defaultdict
from contextlib import suppress
from statistics import median
from threading import Event, Thread
from types import TracebackType
from typing import Self

import psutil

LOOK_S = 0.2
ROLES = re.compile(r"rollout_server|rl\.(?:train|collect|learner|evaluate)\b|rewards\.processes\.zygote")
"""In the command of a process of a run."""
NAMES = {
    "rollout_server": "server",
    "rl.train": "supervisor",
    "rl.collect": "collector",
    "rl.learner": "learner",
    "rl.evaluate": "evaluator",
    "rewards.processes.zygote": "verifier",
}


class Watch:
    """Looks at the processes under one while it is entered.

    Args:
        pid: of the process at the top.
    """

    def __init__(self, pid: int) -> None:
        self._top = psutil.Process(pid)
        self._end = Event()
        self._thread = Thread(target=self._look_again_and_again, daemon=True)
        self._looks: dict[str, list[tuple[float, int]]] = defaultdict(list)
        """When, and resident bytes of the largest process, by role. Forks share pages, which each of them counts."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    @property
    def peak_bytes(self) -> dict[str, int]:
        """Resident memory of the largest process of each role."""
        return {role: max(resident for _, resident in looks) for role, looks in self._looks.items()}

    def grown_bytes(self, begin: float) -> dict[str, float]:
        """By how much resident memory has grown over the second half of the time since `begin`, by role: in the first a
        server's cache is written to for the first time.

        Args:
            begin: of the monotonic clock.
        """
        grown = {}
        for role, looks in self._looks.items():
            resident = [size for at, size in looks if at >= begin]
            if tenth := len(resident) // 10:
                grown[role] = median(resident[-tenth:]) - median(resident[5 * tenth : 6 * tenth])
        return grown

    def cpu_s(self) -> dict[str, float]:
        """CPU time of the processes that are there now, by role."""
        seconds: dict[str, float] = defaultdict(float)
        for role, process in self._processes():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds[role] += times.user + times.system
        return dict(seconds)

    def _look_again_and_again(self) -> None:
        while not self._end.wait(LOOK_S):
            largest: dict[str, int] = {}
            for role, process in self._processes():
                with suppress(psutil.NoSuchProcess):
                    largest[role] = max(largest.get(role, 0), process.memory_info().rss)
            now = time.monotonic()
            for role, resident in largest.items():
                self._looks[role].append((now, resident))

    def _processes(self) -> list[tuple[str, psutil.Process]]:
        found = []
        with suppress(psutil.NoSuchProcess):
            for process in [self._top, *self._top.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    if role := ROLES.search(" ".join(process.cmdline())):
                        found.append((NAMES[role[0]], process))
        return found
