"""A role of a run on this machine, while its supervisor is on another: what `rl.join` does.

It follows what the ledger says: a collector samples for the newest launch of the learner, learners take their seats in
it, a server and an evaluator serve them all. Accidents of what it runs are mended here, within limits; but those of a
learner are told to the supervisor, as the ledger has to go back first.
"""

import socket
import time

import psutil

from rl.buffer.patience import in_passing
from rl.buffer.roles import Launch, Roles
from rl.core.errors import TallyError
from rl.core.nursery import Nursery
from rl.core.processes import REASONS, Child, Children
from rl.core.pulse import Silence, pulse_file
from rl.core.roles import SUPERVISOR, Role
from rl.core.rundir import RunDir
from rl.core.telemetry import NO_PORTS, Ports
from rl.launch.crew import NO_GPU, WRONG_INPUT, environment, start_role
from rl.launch.elsewhere import place_of
from rl.launch.joining import Here, bring_up_to_date
from rl.launch.server import start_server
from rl.launch.workers import Worker

LOOK_S = 0.5
"""Between two looks at the ledger."""
ALONE_LIMIT_S = 1800.0
"""Without a supervisor, which may be started again."""


class Joined:
    """A member of a run, from its joining to the end of the run.

    Args:
        run: a directory of this machine, or one that it shares with the supervisor's.
        nursery: of what it runs, but for a server.
        ports: where that answers who watches it.
    """

    def __init__(
        self,
        role: Role,
        run: RunDir,
        board: Roles,
        here: Here,
        *,
        children: Children,
        nursery: Nursery | None,
        ports: Ports = NO_PORTS,
    ) -> None:
        self._role, self._run, self._board, self._here = role, run, board, here
        self._config = run.config()
        self._nursery, self._ports = nursery, ports
        self._launch: Launch | None = None
        self._described: dict[str, str] = {}
        self._answered: int | None = None
        """The number of the launch that the worker was begun for."""
        self._node: int | None = None
        self._member = self._join()
        self._supervised = True
        self._supervisor = Silence(0)
        self._children = children
        self._worker = self._new_worker([role])

    def take_part(self) -> None:
        """Returns once the run has ended.

        Raises:
            TallyError: its supervisor gave no sign of life for `ALONE_LIMIT_S`.
        """
        while described := self._board.description():
            if described != self._described:
                bring_up_to_date(self._run, described)
                self._described = described
            if not self._board.beat(self._member):  # this machine was cut off, and given up
                self._member = self._join()
                if not self._worker.runs:  # what it complained of may be mended
                    self._answered = None
            self._follow()
            self._mend()
            time.sleep(LOOK_S)

    def leave(self) -> None:
        with in_passing():
            self._board.remove([self._member])

    def _new_worker(self, pulses: list[str]) -> Worker:
        """Args: pulses: the names of what it is heard by."""
        start = {"server": self._start_server, "learner": self._start_ranks}.get(self._role, self._start_role)
        files = [pulse_file(self._run, name) for name in pulses]
        return Worker(
            self._role,
            start,
            files,
            self._children,
            resume=f"start {self._run.root} again where its supervisor is",
            may_finish=self._role == "learner",
            reasons_again=WRONG_INPUT if self._role == "server" else REASONS,
        )

    def _join(self) -> int:
        return self._board.join(self._role, place_of(self._run), self._here.url)

    def _follow(self) -> None:
        """Begins what the newest launch asks for, and ends what was for another."""
        members = self._board.members()
        supervisor = next((member for member in members if member.role == SUPERVISOR), None)
        if bool(supervisor) != self._supervised:
            self._supervised = bool(supervisor)
            print(
                "goes on with the run" if supervisor else "the run was stopped; waits for who goes on with it",
                flush=True,
            )
        self._supervisor.hear(supervisor.beats if supervisor else 0)
        if self._supervisor.silent_s > ALONE_LIMIT_S:
            fix = "start that again with --resume, and this with the same command"
            raise TallyError(f"the run's supervisor gave no sign of life for {ALONE_LIMIT_S:.0f} s", fix=fix)
        call = self._call([member.id for member in members if member.role == self._role])
        if call != self._answered:
            self._worker.halt()
            self._answered = call
            if call is not None and (self._role != "learner" or self._sit(call)):
                self._worker.begin()

    def _call(self, same_role: list[int]) -> int | None:
        """The number of the launch to work for, 0 where it is for all; None where there is nothing to do."""
        if self._role in ("collector", "evaluator") and self._member != min(same_role, default=self._member):
            return None  # another one does it
        if self._role in ("server", "evaluator"):
            return 0
        self._launch = self._board.newest_launch()
        return self._launch.number if self._launch and not self._launch.over else None

    def _sit(self, number: int) -> bool:
        """Takes a seat of a launch; False where there is none for us."""
        self._node = self._board.sit(number, self._member, f"{self._here.address}:{_free_port(self._here.address)}")
        self._launch = launch = self._board.newest_launch()  # which says where to meet
        if launch is None or launch.number != number or self._node is None:
            return False
        self._worker = self._new_worker([f"learner-{rank}" for rank in range(self._config.learners // launch.nodes)])
        return True

    def _mend(self) -> None:
        """Tells what has happened to what runs here, and has it started again where that is ours to do."""
        try:
            accident = self._worker.look()
        except TallyError as error:
            self._worker.halt()
            self._tell(error.exit_code, f"{error}\n  fix: {error.fix}")
            return
        if self._role == "learner" and (accident or self._worker.finished):
            self._worker.halt()
            self._tell(1 if accident else 0, accident.why if accident else "")
        elif accident:
            self._board.report(accident.worker, accident.why, accident.attempt)

    def _tell(self, exit_code: int, words: str) -> None:
        if self._role == "learner" and self._answered is not None and self._node is not None:
            self._board.stand_up(self._answered, self._node, exit_code, words)
        else:
            self._board.complain(self._member, exit_code, words)

    def _start_role(self) -> Child:
        """Of the collector or the evaluator."""
        policy = self._launch.policy if self._launch else f"eval-{self._member}"
        module = {"collector": "rl.collect", "evaluator": "rl.evaluate"}[self._role]
        return start_role(self._role, [module], self._run, policy, NO_GPU, self._nursery, self._ports.flags(self._role))

    def _start_ranks(self) -> Child:
        assert self._launch is not None
        assert self._launch.meeting is not None
        nodes, meeting, address = self._launch.nodes, self._launch.meeting, self._here.address
        words = ["rl.launch.ranks", str(self._config.learners // nodes)]
        flags = self._ports.flags("learner")
        words += [f"--nodes={nodes}", f"--node={self._node}", f"--meeting={meeting}", f"--address={address}"]
        return start_role("learner", words, self._run, self._launch.policy, _interface(address), self._nursery, flags)

    def _start_server(self) -> Child:
        assert self._here.listener
        log, pulse = self._run.logs / "server.log", pulse_file(self._run, "server")
        return start_server(self._config, self._here.listener, log, environment(self._run), pulse=pulse, watched=True)


def _free_port(address: str) -> int:
    with socket.create_server((address, 0)) as listener:
        return int(listener.getsockname()[1])


def _interface(address: str) -> dict[str, str]:
    """Has the ranks talk by the interface of this address: gloo and NCCL would take that of the host's name."""
    names = [
        name for name, addresses in psutil.net_if_addrs().items() if any(address == each.address for each in addresses)
    ]
    return {f"{library}_SOCKET_IFNAME": name for name in names[:1] for library in ("GLOO", "NCCL")}
