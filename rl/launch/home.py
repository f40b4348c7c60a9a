"""What a supervisor brings home where a run spans machines, so that its run directory is as whole as any."""

import time

from rl.buffer.courier import Courier
from rl.buffer.ledger import Buffer
from rl.core.rundir import RunDir, name_of
from rl.learner import checkpoint

LOOK_S = 1.0


class Home:
    """Brings records, evaluations and checkpoints home, and gives up what nobody needs."""

    def __init__(self, run: RunDir, buffer: Buffer, keep: int | None) -> None:
        self._run, self._buffer, self._keep = run, buffer, keep
        self._courier = Courier(run)
        self._looked = 0.0
        self._commits: list[int] = []

    def close(self) -> None:
        self._courier.close()

    def look(self) -> None:
        """To be called again and again."""
        if self._run.spans_machines and time.monotonic() - self._looked >= LOOK_S:
            self.bring()
            self._looked = time.monotonic()

    def bring(self) -> None:
        """All that there is now. The ledger keeps the newest checkpoint, and those that are still to be evaluated."""
        if not self._run.spans_machines:
            return
        self._courier.bring_home()
        if (commits := self._buffer.commits()) == self._commits:
            return
        awaited = {step for step, _ in self._buffer.awaited()}
        for step in commits:
            folder = self._run.checkpoints / name_of(step)
            self._courier.fetch(folder)
            if step != commits[-1] and step not in awaited:
                self._courier.forget(folder)
        self._commits = commits
        checkpoint.prune(self._run, self._buffer, self._keep)

    def lend(self, step: int) -> None:
        """Has a checkpoint of the run directory at hand for a learner that starts from it elsewhere."""
        if self._buffer.commits():
            self._courier.send(self._run.checkpoints / name_of(step))
