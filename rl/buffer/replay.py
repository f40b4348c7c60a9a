"""What a run was trained on, copied into the ledger of a replay."""

from contextlib import closing

import sqlalchemy as sa

from rl.buffer.database import open_ledger
from rl.buffer.history import AT_ONCE, History
from rl.buffer.tables import State, commits, facts, groups, payloads, proofs
from rl.core.errors import UsageError
from rl.core.rundir import RunDir


class Recording(History):
    """A run's ledger as what can be trained on again: the groups of each step, through the newest commit.

    It is only read, and the run may be in progress.
    """

    def __init__(self, run: RunDir) -> None:
        super().__init__(run.buffer_url)
        self._root = run.root

    def steps(self) -> int:
        """How many steps are recorded: 1 up to this one, whole.

        Raises:
            UsageError: there is none, or groups of them were compacted away, or are missing.
        """
        with self._engine.connect() as db:
            last = db.scalar(sa.select(sa.func.max(commits.c.step))) or 0
            trained = (groups.c.state == State.TRAINED) & (groups.c.step <= last)
            found = sa.func.count(groups.c.step.distinct()), sa.func.count(), sa.func.count(payloads.c.id)
            recorded = sa.select(*found).outerjoin_from(groups, payloads, groups.c.id == payloads.c.id)
            steps, n_groups, stored = db.execute(recorded.where(trained)).one()
        if not last:
            fix = "wait for its first checkpoint after step 0, or name another run"
            raise UsageError(f"{self._root} has no step that is trained and saved", fix=fix)
        if stored < n_groups:
            gone = f"{n_groups - stored} of the {n_groups} groups that {self._root} was trained on"
            raise UsageError(f"{gone} were compacted away", fix="name a run that was not compacted")
        if steps < last:
            fix = f"python -m rl.audit {self._root} says which groups are missing"
            raise UsageError(f"{self._root} is trained through step {last}, but holds {steps} steps", fix=fix)
        return int(last)

    def last_step(self) -> int:
        """The last step that has a batch, trained or still to be."""
        with self._engine.connect() as db:
            return db.scalar(sa.select(sa.func.max(groups.c.step))) or 0

    def copy_to(self, url: str, steps: int) -> None:
        """Fills a new ledger, in one transaction: the groups of these steps are ready to be trained again, each in its
        step; of the others whose turn came there is what is stated of them, without their samples."""
        trained = (groups.c.state == State.TRAINED) & (groups.c.step <= steps)
        last = sa.select(sa.func.max(groups.c.id)).where(trained).scalar_subquery()
        state = sa.case((trained, State.READY), else_=groups.c.state).label("state")
        stated = [state if column is groups.c.state else column for column in groups.c]
        samples = sa.select(payloads).join_from(payloads, groups, groups.c.id == payloads.c.id)
        copied = {
            facts: sa.select(facts),
            proofs: sa.select(proofs),
            groups: sa.select(*stated).where(groups.c.id <= last).order_by(groups.c.id),
            payloads: samples.where(trained).order_by(payloads.c.id),
        }
        with closing(open_ledger(url)) as ledger, self._engine.connect() as source, ledger.writes() as target:
            for table, rows in copied.items():
                for part in source.execution_options(yield_per=AT_ONCE).execute(rows).mappings().partitions():
                    target.execute(table.insert(), [dict(row) for row in part])
