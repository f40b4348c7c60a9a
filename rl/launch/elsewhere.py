"""The members of a run on other machines (`rl.join`), as its supervisor sees them: who is there, and how they end."""

import shlex
import socket
import time
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Self

from rl.buffer.patience import in_passing
from rl.buffer.roles import Member, Roles
from rl.core.errors import DivergedError, LedgerError, TallyError
from rl.core.processes import REASONS
from rl.core.pulse import Silence
from rl.core.roles import SUPERVISOR, Role
from rl.core.rundir import RunDir
from rl.launch.workers import Accident

LOOK_S = 1.0
JOIN = "python -m rl.join"
MISSING_S = 60.0
SILENCE_LIMIT_S = 60.0
"""Without a beat of a member: longer than a link may be cut, and than a database takes to restart."""
JOIN_LIMIT_S = 1800.0
"""For all learners to take their seats: machines are still being started, or load a model from a hub."""
PEERS_S = 10.0
"""From the first seat that ended by an accident: another one may have ended for the reason of it."""


class Elsewhere:
    """The supervisor's place on the board of a run. Leaving the context stops the run for its members, which wait for a
    supervisor that goes on with it, unless it was dissolved.

    Args:
        roles: that are taken by members, and by no process that the supervisor starts.
        nodes: of the learner, each with a member of its own.
    """

    def __init__(self, run: RunDir, roles: Collection[Role], nodes: int = 1) -> None:
        self.roles = roles
        self._run, self._nodes = run, nodes
        self._board = Roles(run.buffer_url)
        self._launch: int | None = None
        self._member: int | None = None
        self._members: dict[int, Member] = {}
        self._silences: dict[int, Silence] = {}
        self._accidents: deque[Accident] = deque()
        self._looked = self._whole = time.monotonic()

    def __enter__(self) -> Self:
        """What learners elsewhere have begun under an earlier supervisor is over: the ledger may go back."""
        self._board.call_off()
        self._board.remove([member.id for member in self._board.members() if member.exit_code is not None])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        waited_for = isinstance(error, LedgerError)  # long enough
        with closing(self._board), in_passing() if waited_for else nullcontext():
            self._board.call_off()
            self._board.remove([self._member] if self._member is not None else [])

    def describe(self) -> None:
        """Lets machines take part, and those that wait begin."""
        run = self._run
        config, problems = run.config_file.read_text(), run.problems_file.read_text()
        self._member = self._board.join(SUPERVISOR, place_of(run))
        self._board.describe(name=run.root.name, config=config, problems=problems)

    def dissolve(self) -> None:
        """The run is at its end: the members may go."""
        self._board.dissolve()

    def begin_launch(self, policy: str) -> "LearnerElsewhere | None":
        """Tells members of a new policy. The learner, if that is one of them, else None."""
        away = "learner" in self.roles
        self._launch = self._board.launch(policy, self._nodes if away else 0)
        log = self._run.logs / "learner.log"
        return LearnerElsewhere(self._board, self._launch, self._nodes, log) if away else None

    def end_launch(self) -> None:
        """The learner is done: nobody is to sample for it."""
        if self._launch is not None:
            self._board.call_off(self._launch)
            self._launch = None

    def accidents(self) -> Iterator[Accident]:
        """What was mended elsewhere, of what the last looks have found."""
        while self._accidents:
            yield self._accidents.popleft()

    def look(self) -> Iterator[str]:
        """Gives up members that have fallen silent; says who has come and gone since the last look, in sentences.

        Raises:
            TallyError: what a member ran has ended for a reason, which ends the run.
        """
        if (now := time.monotonic()) - self._looked < LOOK_S:
            return
        self._looked = now
        if self._member is not None:
            self._board.beat(self._member)
        self._accidents += (Accident(**accident) for accident in self._board.take_accidents())
        before, members = self._members, {member.id: member for member in self._board.members()}
        for id, member in members.items():
            self._silences.setdefault(id, Silence(member.beats)).hear(member.beats)
            if member.exit_code is not None:
                raise _reason(member)
        silent = [id for id in members if self._silences[id].silent_s > SILENCE_LIMIT_S]
        if silent:
            self._board.remove(silent)
        self._members = {id: member for id, member in members.items() if id not in silent}
        self._silences = {id: self._silences[id] for id in self._members}
        for id in self._members.keys() - before.keys() - {self._member}:
            yield f"{_name(self._members[id])} has joined"
        for id in before.keys() - self._members.keys() - {self._member}:
            how = f"gave no sign of life for {SILENCE_LIMIT_S:.0f} s" if id in silent else "has left"
            yield f"{_name(before[id])} {how}"
        yield from self._missing(now)

    def _missing(self, now: float) -> Iterator[str]:
        """Says which roles nobody has, each time that has been so for a minute."""
        there = {member.role for member in self._members.values()}
        if all(role in there for role in self.roles):
            self._whole = now
        elif now - self._whole > MISSING_S:
            self._whole = now
            yield f"nobody is there as {', '.join(role for role in self.roles if role not in there)}; see {JOIN} --help"

    def __str__(self) -> str:
        """How machines take the roles that are theirs."""
        where = shlex.quote(self._run.buffer_url if self._run.spans_machines else str(self._run.root))
        return "; ".join(f"{JOIN} {role} {where}" for role in self.roles)


class LearnerElsewhere:
    """A launch of the learner on other machines, with the methods of a `Child` that a supervisor needs.

    Args:
        launch: its number.
        nodes: each with a member of its own.
        log: named in messages.
    """

    def __init__(self, board: Roles, launch: int, nodes: int, log: Path) -> None:
        self.name, self.log = "learner", log
        self._board, self._launch, self._nodes = board, launch, nodes
        self._began = time.monotonic()
        self._looked = 0.0
        self._failed_since: float | None = None
        self._exit_code: int | None = None
        self._words = ""

    @property
    def exit_code(self) -> int | None:
        """None while it goes on, or waits for members."""
        now = time.monotonic()
        if self._exit_code is None and now - self._looked >= LOOK_S:
            self._looked = now
            self._look(now)
        return self._exit_code

    def _look(self, now: float) -> None:
        seats = self._board.seats(self._launch)
        ended = [seat for seat in seats if seat.exit_code is not None]
        if len(seats) < self._nodes and now - self._began > JOIN_LIMIT_S:
            self._end(TallyError.exit_code, f"had {len(seats)} of {self._nodes} members in {JOIN_LIMIT_S:.0f} s")
        elif ended and all(seat.exit_code == 0 for seat in ended):
            if len(ended) == self._nodes:
                self._end(0, "")
        elif ended:
            self._failed_since = self._failed_since or now
            reasons = [seat for seat in ended if seat.exit_code in REASONS]
            if reasons or len(ended) == self._nodes or now - self._failed_since > PEERS_S:
                first = (reasons or [seat for seat in ended if seat.exit_code])[0]
                self._end(first.exit_code or 1, first.words or "")

    def _end(self, exit_code: int, words: str) -> None:
        self._exit_code, self._words = exit_code, words

    @property
    def ending(self) -> str:
        """How it ended, as its member says: `ended with exit code 1: rank 0 was killed by SIGKILL`."""
        return self._words.partition("\n")[0].removeprefix("the learner ")

    def last_words(self) -> str:
        """Why it ended, and the fix on a line of its own."""
        return self._words

    def kill(self) -> None:
        """Nobody goes on with it: its members end their ranks."""
        self._board.call_off(self._launch)

    terminate = kill_session = kill


def place_of(run: RunDir) -> str:
    """Where a process is: of a role only one can be there."""
    return f"{socket.gethostname()}:{run.root.absolute()}"


def _name(member: Member) -> str:
    return f"the {member.role} on {member.place}"


def _reason(member: Member) -> TallyError:
    words, _, fix = (member.words or "").partition("\n  fix: ")
    kind = DivergedError if member.exit_code == DivergedError.exit_code else TallyError
    return kind(f"{_name(member)} {words.removeprefix(f'the {member.role} ')}", fix=fix)
