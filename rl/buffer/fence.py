"""A learner that was given up writes no more: another one goes on from the newest commit, by another policy name.

It may live on without knowing it, as its machine was cut off; once the link is back, what it writes comes late.
"""

import sqlalchemy as sa

from rl.buffer.roles import CALLED_OFF
from rl.core.errors import LedgerError

# Who gives it up waits for a transaction that has asked.
_CALLED_OFF = CALLED_OFF.with_for_update(read=True)


def check_not_given_up(db: sa.Connection, learner: str | None) -> None:
    """To be asked in the transaction that writes: what holds now holds until that has ended.

    Args:
        learner: its policy; None for who is no learner.

    Raises:
        LedgerError: it was given up.
    """
    if learner is not None and db.scalar(_CALLED_OFF, {"of": learner}):
        raise LedgerError(f"the learner of {learner} was given up by the run's supervisor")
