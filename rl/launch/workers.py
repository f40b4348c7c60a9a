"""A worker: a process of the run that is replaced when it dies by an accident or freezes, within limits."""

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from rl.core import metrics
from rl.core.errors import DivergedError, TallyError
from rl.core.processes import REASONS, Children, Process
from rl.core.pulse import SILENCE_LIMIT_S, START_LIMIT_S, Listener

RESTARTS, WINDOW_S = 8, 600.0
"""So many within the window; what dies more often would die for ever."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""Before a worker is started again; each further accident within the window doubles it."""


@dataclass(frozen=True, kw_only=True)
class Accident:
    """What happened to a worker that is started again."""

    worker: str
    why: str
    """A predicate: `was killed by SIGKILL`."""
    attempt: int
    """Of the starts within the window, from 1."""

    def __str__(self) -> str:
        return f"the {self.worker} {self.why}; it is started again ({self.attempt} of {RESTARTS})"


class Worker:
    """One process after another under one name.

    Args:
        start: starts the process; called again for each that takes its place.
        pulses: what it touches while it lives, each within `SILENCE_LIMIT_S`.
        children: where its process is one of, so that it is ended with the others.
        resume: the command that goes on with the run.
        may_finish: whether exit code 0 is its work done; else it is an accident.
        reasons_again: exit codes that end the run once it was started again.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], Process],
        pulses: Iterable[Path],
        children: Children,
        *,
        resume: str,
        may_finish: bool = False,
        reasons_again: Collection[int] = REASONS,
    ) -> None:
        self.name = name
        self._start, self._pulses, self._children = start, list(pulses), children
        self._resume, self._may_finish = resume, may_finish
        self._reasons_again = reasons_again
        self._child: Process | None = None
        self._due: float | None = None
        self._accidents: deque[tuple[float, str]] = deque()
        metrics.RESTARTS.labels(name)  # from the start it is 0

    @property
    def finished(self) -> bool:
        return self._may_finish and self._child is not None and self._child.exit_code == 0

    @property
    def runs(self) -> bool:
        """Whether it has a process, and that lives."""
        return self._child is not None and self._child.exit_code is None

    def begin(self) -> None:
        """Starts its process."""
        self._listeners = [Listener(file) for file in self._pulses]
        self._child, self._due = self._children.add(self._start()), None

    def halt(self) -> None:
        """Kills its process, until it is begun again."""
        if self._child is not None:
            self._children.end(self._child)
        self._child, self._due = None, None

    def look(self) -> Accident | None:
        """Starts what is due; says what has just happened, if something has.

        Raises:
            TallyError: it ended for a reason, or too often, or cannot be killed.
        """
        if self._child is None:
            if self._due is not None and time.monotonic() >= self._due:
                self.begin()
            return None
        why = self._why(self._child)
        if why is None:
            return None
        log = self._child.log
        self.halt()
        now = time.monotonic()
        self._accidents.append((now, why))
        while now - self._accidents[0][0] > WINDOW_S:
            self._accidents.popleft()
        attempt = len(self._accidents)
        if attempt > RESTARTS:
            raise self._hopeless(log)
        self._due = now + min(FIRST_WAIT_S * 2 ** (attempt - 1), LONGEST_WAIT_S)
        return Accident(worker=self.name, why=why, attempt=attempt)

    def _why(self, child: Process) -> str | None:
        """Why its process has to be replaced; None where it lives, or is done.

        Raises:
            TallyError: it ended for a reason.
        """
        code = child.exit_code
        if code in (self._reasons_again if self._accidents else REASONS):
            _, _, fix = child.last_words().partition("\n  fix: ")
            then = (
                f"then {self._resume}" if code == TallyError.exit_code else ""
            )  # the other reasons would be met again
            fixes = filter(None, [fix, f"see {child.log}", then])
            kind = DivergedError if code == DivergedError.exit_code else TallyError
            raise kind(f"the {self.name} {child.ending}", fix="; ".join(fixes))
        if code is not None:
            return None if self.finished else child.ending
        for listener in self._listeners:
            listener.look()
            limit_s = SILENCE_LIMIT_S if listener.heard else START_LIMIT_S
            if listener.silent_s > limit_s:
                return f"gave no sign of life for {limit_s:.0f} s"
        return None

    def _hopeless(self, log: Path) -> TallyError:
        since = time.monotonic() - self._accidents[0][0]
        whys = Counter(why for _, why in self._accidents)
        told = "; ".join(f"{count} times it {why}" if count > 1 else f"once it {why}" for why, count in whys.items())
        message = f"the {self.name} had to be replaced {len(self._accidents)} times in {since:.0f} s: {told}"
        return TallyError(message, fix=f"see {log}; then {self._resume}")
