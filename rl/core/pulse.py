"""Signs of life: a process touches a file each second, and who watches it adds up how long the file stayed the same.

No clock is compared with another, so that one that is set anew matters to nobody, and touching a file takes no room on
a full disk.
"""

import asyncio
import time
from pathlib import Path
from threading import Thread
from typing import NoReturn

from rl.core.rundir import RunDir

BEAT_S = 1.0
SILENCE_LIMIT_S = 20.0
"""What lives and is not stuck gives a sign of life within this time."""
START_LIMIT_S = 300.0
"""Until the first one, which comes once all is imported and the problems are read."""
LONGEST_LOOK_S = 1.0
"""What passes between two looks counts as this much at the most: where the watcher stood still, because it was stopped
or the machine slept, the watched may have stood still with it."""


def pulse_file(run: RunDir, name: str) -> Path:
    """What the process of this name touches."""
    return run.scratch / "pulse" / name


async def beat(file: Path) -> NoReturn:
    """Touches the file while the event loop turns; ends by being cancelled."""
    file.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file.touch()
        await asyncio.sleep(BEAT_S)


def beat_in_thread(file: Path) -> None:
    """Touches the file while the process runs, however long its event loop computes or waits for other ranks."""
    file.parent.mkdir(parents=True, exist_ok=True)

    def beat() -> NoReturn:
        while True:
            file.touch()
            time.sleep(BEAT_S)

    Thread(target=beat, name="pulse", daemon=True).start()


class Silence:
    """Adds up for how long a sign of life has stayed the same.

    Args:
        sign: as it is now.
    """

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self._looked = time.monotonic()
        self.heard = False
        """Whether the sign has changed since."""
        self.silent_s = 0.0
        """Seconds since its last change, or since the beginning, as of the last look."""

    def hear(self, sign: int) -> None:
        """The sign as it is now."""
        now = time.monotonic()
        self.silent_s += min(now - self._looked, LONGEST_LOOK_S)
        self._looked = now
        if sign != self._sign:
            self._sign, self.heard, self.silent_s = sign, True, 0.0


class Listener(Silence):
    """Listens to one pulse.

    Args:
        file: is made here, so that a process can touch it when the disk is full.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        super().__init__(file.stat().st_mtime_ns)
        self._file = file

    def look(self) -> None:
        self.hear(self._file.stat().st_mtime_ns)
