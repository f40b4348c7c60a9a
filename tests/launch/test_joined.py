"""A member of a run follows what the board says, whoever restarts in between."""

from contextlib import closing
from pathlib import Path

from rl.buffer.roles import Roles
from rl.core.processes import Children
from rl.core.roles import Role
from rl.core.rundir import RunDir
from rl.launch.elsewhere import Elsewhere
from rl.launch.joined import Joined
from rl.launch.joining import LOOPBACK, Here
from tests.observe.recorded import new_run


def take_part(role: Role, run: RunDir, board: Roles) -> None:
    """Until the board is dissolved."""
    with Children() as children:
        Joined(role, run, board, Here(address=LOOPBACK), children=children, nursery=None).take_part()


def test_who_complained_begins_anew_under_the_next_supervisor(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", "--model", str(tmp_path / "none"))  # which the evaluator complains of
    complaints: list[str] = []

    class Board(Roles):
        def complain(self, member: int, exit_code: int, words: str) -> None:
            super().complain(member, exit_code, words)
            complaints.append(words)
            if len(complaints) == 2:
                self.dissolve()
            with Elsewhere(run, ["evaluator"]):
                self.join("collector", "elsewhere")

    with closing(Board(run.buffer_url)) as board:
        board.describe(name="run")
        take_part("evaluator", run, board)
    assert len(complaints) == 2
    assert all("there is no folder" in words for words in complaints)


def test_a_learner_that_sat_down_as_a_newer_launch_was_opened_takes_a_seat_in_that(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")

    class Board(Roles):
        def sit(self, number: int, member: int, meeting: str) -> int | None:
            node = super().sit(number, member, meeting)
            if number == 1:
                self.launch("p-2", nodes=1)
            else:
                self.dissolve()
            return node

    with closing(Board(run.buffer_url)) as board:
        board.describe(name="run")
        board.launch("p-1", nodes=1)
        take_part("learner", run, board)
        assert [seat.node for number in (1, 2) for seat in board.seats(number)] == [0, 0]
