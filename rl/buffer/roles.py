"""What the processes of a run that are on several machines tell each other, through its ledger.

A *member* is a process that has taken a role of the run on some machine (`rl.join`): server, learner, collector or
evaluator. It beats every second, as its machine may vanish without a word. Servers say where they are reached. There
may be any number of servers; of collectors and evaluators the first works, and others take its place when it has gone.

A *launch* is one start of the learner from the newest commit, under a policy name of its own. It has a seat for each
node; the ranks of all nodes meet at the address of the one who sat down first. A launch ends with its first seat that
ends; then the supervisor puts the ledger back and opens another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from rl.buffer.database import open_ledger
from rl.buffer.patience import patiently
from rl.buffer.tables import metadata
from rl.core.roles import Role

ENDED = "ended"
descriptions = sa.Table(  # what a machine has to know that has no run directory
    "descriptions",
    metadata,
    sa.Column("name", sa.String(20), primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
)
members = sa.Table(
    "members",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("role", sa.String(10), nullable=False),
    sa.Column("place", sa.String, nullable=False),  # HOST:FOLDER, where only one of a role can be
    sa.Column("url", sa.String),  # of a server
    sa.Column("beats", sa.Integer, nullable=False, default=0),
    sa.Column("exit_code", sa.Integer),  # of what it ran, where that ended for a reason
    sa.Column("words", sa.Text),  # the reason
    sqlite_autoincrement=True,  # who has gone must not be taken for who came after
)
launches = sa.Table(
    "launches",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("policy", sa.String, nullable=False),
    sa.Column("nodes", sa.Integer, nullable=False),
    sa.Column("meeting", sa.String),  # HOST:PORT
    sa.Column("over", sa.Boolean, nullable=False, default=False),
)
seats = sa.Table(
    "seats",
    metadata,
    sa.Column("launch", sa.Integer, primary_key=True),
    sa.Column("node", sa.Integer, primary_key=True),  # 0, 1, …
    sa.Column("member", sa.Integer, nullable=False),
    sa.Column("exit_code", sa.Integer),
    sa.Column("words", sa.Text),
)
CALLED_OFF = sa.select(launches.c.over).where(launches.c.policy == sa.bindparam("of"))
"""Whether the launch of a policy is over; nothing where there is none."""
accidents = sa.Table(  # that were mended where they happened, until the supervisor has logged them
    "accidents",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("worker", sa.String, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    id: int
    role: Role
    place: str
    url: str | None
    beats: int
    exit_code: int | None
    """Of what it ran, where that ended for a reason and would do so again."""
    words: str | None
    """The reason, and the fix on a line of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    number: int
    policy: str
    nodes: int
    meeting: str | None
    """HOST:PORT, once somebody sits."""
    over: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Seat:
    launch: int
    node: int
    member: int
    exit_code: int | None
    words: str | None


@patiently
class Roles:
    """The board of a run where its members are on several machines. Methods raise `LedgerError` as `Buffer` does.

    Args:
        url: of the run's ledger.
    """

    def __init__(self, url: str) -> None:
        self._db = open_ledger(url)

    def close(self) -> None:
        self._db.close()

    # ---- the run itself

    def describe(self, **texts: str) -> None:
        """Enters what a machine has to know to take part; from now on there is work."""
        with self._db.writes() as db:
            db.execute(descriptions.delete())
            db.execute(descriptions.insert(), [{"name": name, "text": text} for name, text in texts.items()])

    def description(self) -> dict[str, str]:
        """What was described; empty where nobody trains: before the run is begun, and once it has ended."""
        with self._db.reads() as db:
            return {row.name: row.text for row in db.execute(sa.select(descriptions)) if row.name != ENDED}

    def ended(self) -> bool:
        """Whether it was dissolved, and not described again."""
        with self._db.reads() as db:
            return db.scalar(sa.select(descriptions.c.name).where(descriptions.c.name == ENDED)) is not None

    def dissolve(self) -> None:
        """The run is at its end: members may go, and no launch goes on."""
        with self._db.writes() as db:
            db.execute(descriptions.delete())
            db.execute(descriptions.insert().values(name=ENDED, text=""))
            db.execute(launches.update().values(over=True))

    # ---- members

    def join(self, role: Role, place: str, url: str | None = None) -> int:
        """Returns the new member's id. Who had its place, or its address, has gone: it would not be free else."""
        with self._db.writes() as db:
            before = (members.c.role == role) & (members.c.place == place)
            if url is not None:
                before |= members.c.url == url
            _remove(db, db.scalars(sa.select(members.c.id).where(before)).all())
            added = db.execute(members.insert().values(role=role, place=place, url=url))
            assert added.inserted_primary_key
            return int(added.inserted_primary_key[0])

    def beat(self, member: int) -> bool:
        """Says that the member is there. False where it was given up as lost, and has to join again."""
        beats = members.update().where(members.c.id == member).values(beats=members.c.beats + 1)
        with self._db.writes(alone=False) as db:
            return db.execute(beats).rowcount == 1

    def complain(self, member: int, exit_code: int, words: str) -> None:
        """What the member ran has ended for a reason, and would do so again."""
        with self._db.writes() as db:
            db.execute(members.update().where(members.c.id == member).values(exit_code=exit_code, words=words))

    def remove(self, gone: Sequence[int]) -> None:
        """These members are there no longer; what they sat in has ended by an accident."""
        with self._db.writes() as db:
            _remove(db, gone)

    def members(self) -> list[Member]:
        with self._db.reads() as db:
            return [Member(**row) for row in db.execute(sa.select(members).order_by(members.c.id)).mappings()]

    def server_urls(self) -> list[str]:
        """Where the rollout servers are reached that have joined."""
        with self._db.reads() as db:
            return list(db.scalars(sa.select(members.c.url).where(members.c.role == "server").order_by(members.c.url)))

    def report(self, worker: str, why: str, attempt: int) -> None:
        """Something was started again where it ran."""
        with self._db.writes() as db:
            db.execute(accidents.insert().values(worker=worker, why=why, attempt=attempt))

    def take_accidents(self) -> list[dict[str, Any]]:
        """`worker`, `why` and `attempt` of what was reported since the last call."""
        with self._db.reads() as db:
            if not db.scalar(sa.select(sa.func.count()).select_from(accidents)):
                return []
        with self._db.writes() as db:
            taken = db.execute(sa.select(accidents).order_by(accidents.c.id)).mappings().all()
            db.execute(accidents.delete().where(accidents.c.id.in_([row["id"] for row in taken])))
        return [{name: row[name] for name in ("worker", "why", "attempt")} for row in taken]

    # ---- launches of the learner

    def launch(self, policy: str, nodes: int) -> int:
        """Opens a launch, and closes those before it; returns its number."""
        with self._db.writes() as db:
            db.execute(launches.update().values(over=True))
            number = (db.scalar(sa.select(sa.func.max(launches.c.number))) or 0) + 1
            db.execute(launches.insert().values(number=number, policy=policy, nodes=nodes))
        return number

    def newest_launch(self) -> Launch | None:
        with self._db.reads() as db:
            row = db.execute(sa.select(launches).order_by(launches.c.number.desc()).limit(1)).mappings().first()
        return Launch(**row) if row else None

    def call_off(self, number: int | None = None) -> None:
        """Nobody is to go on with a launch, or with any."""
        which = sa.true() if number is None else launches.c.number == number
        with self._db.writes() as db:
            db.execute(launches.update().where(which).values(over=True))

    def sit(self, number: int, member: int, meeting: str) -> int | None:
        """Takes a seat of a launch; returns the node's number, or None where all are taken.

        Args:
            meeting: HOST:PORT where the ranks of the other nodes reach this one; that of node 0 counts.
        """
        with self._db.writes() as db:
            launch = db.execute(sa.select(launches).where(launches.c.number == number)).one()
            node = db.scalar(sa.select(sa.func.count()).where(seats.c.launch == number)) or 0
            if launch.over or node >= launch.nodes:
                return None
            db.execute(seats.insert().values(launch=number, node=node, member=member))
            if node == 0:
                db.execute(launches.update().where(launches.c.number == number).values(meeting=meeting))
            return node

    def stand_up(self, number: int, node: int, exit_code: int, words: str) -> None:
        """The ranks of a node have ended."""
        seat = (seats.c.launch == number) & (seats.c.node == node)
        with self._db.writes() as db:
            db.execute(seats.update().where(seat).values(exit_code=exit_code, words=words))

    def seats(self, number: int) -> list[Seat]:
        """The seats of a launch that are taken, by node."""
        with self._db.reads() as db:
            taken = sa.select(seats).where(seats.c.launch == number).order_by(seats.c.node)
            return [Seat(**row) for row in db.execute(taken).mappings()]


def _remove(db: sa.Connection, gone: Sequence[int]) -> None:
    db.execute(members.delete().where(members.c.id.in_(gone)))
    left = seats.c.member.in_(gone) & seats.c.exit_code.is_(None)
    db.execute(seats.update().where(left).values(exit_code=1, words="its machine or its process has gone"))
