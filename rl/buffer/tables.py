"""The tables of the ledger."""

from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy import event


class State(StrEnum):
    ISSUED = "issued"
    READY = "ready"
    LEASED = "leased"
    TRAINED = "trained"
    EXPIRED = "expired"
    NO_SIGNAL = "no_signal"
    UNVERIFIED = "unverified"


OCCUPYING = (State.ISSUED, State.READY, State.LEASED)

metadata = sa.MetaData()
groups = sa.Table(
    "groups",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("state", sa.String(10), nullable=False, index=True),
    sa.Column("problem", sa.String),  # its id
    sa.Column("policy", sa.String),
    sa.Column("adapter_sha256", sa.String(64)),  # that sampled it
    sa.Column("oldest_version", sa.Integer),
    sa.Column("samples", sa.Integer),
    sa.Column("tokens", sa.Integer),  # of all completions together
    sa.Column("mean_reward", sa.Float),
    sa.Column("step", sa.Integer, index=True),  # leased for, trained in, or to be trained in again
)
payloads = sa.Table(  # beside their groups: SQLite writes a whole row again when its state changes
    "payloads",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("payload", sa.LargeBinary, nullable=False),  # the group itself; gone after `compact`
)
proofs = sa.Table(
    "proofs",
    metadata,
    sa.Column("policy", sa.String, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False),  # of the adapter's bytes
)
commits = sa.Table(
    "commits",
    metadata,
    sa.Column("step", sa.Integer, primary_key=True),  # "trained through this step", with this checkpoint
    sa.Column("checkpoint", sa.String, nullable=False),
)
evaluations = sa.Table(
    "evaluations",
    metadata,
    sa.Column("step", sa.Integer, primary_key=True),
    sa.Column("set", sa.String, primary_key=True),  # of problems
    sa.Column("place", sa.Integer, nullable=False),  # of the set in the run's order: 0 is made first
    sa.Column("done", sa.Boolean, nullable=False, default=False),
)
facts = sa.Table(  # about the run, for its audit
    "facts",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.Integer, nullable=False),
)
PROBLEMS = "problems"
"""The fact: how many problems the run draws from."""
requests = sa.Table("requests", metadata, sa.Column("what", sa.String(10), primary_key=True))


@event.listens_for(payloads, "after_create")
def _uncompressed(_table: sa.Table, db: sa.Connection, **_: object) -> None:
    """PostgreSQL would compress payloads by a quarter, which takes ten times as long as to store them."""
    if db.dialect.name == "postgresql":
        db.exec_driver_sql("ALTER TABLE payloads ALTER COLUMN payload SET STORAGE EXTERNAL")


def groups_in_states(db: sa.Connection) -> dict[State, int]:
    """How many groups are in each state."""
    rows = db.execute(sa.select(groups.c.state, sa.func.count()).group_by(groups.c.state)).all()
    return dict.fromkeys(State, 0) | {State(state): n for state, n in rows}
