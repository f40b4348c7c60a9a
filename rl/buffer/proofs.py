"""What servers have proved to serve, as the ledger has it: which bytes are which version of a policy."""

import sqlalchemy as sa

from rl.buffer.tables import proofs
from rl.core.errors import PublishError
from rl.core.types import Group

# That of every group: to build a statement takes longer than to execute it.
_PROVED = sa.select(proofs.c.sha256).where(
    proofs.c.policy == sa.bindparam("of"), proofs.c.version == sa.bindparam("at")
)


def enter_proof(db: sa.Connection, policy: str, version: int, sha256: str) -> None:
    """Raises:
    PublishError: other bytes were proved under this version.
    """
    known = db.scalar(_PROVED, {"of": policy, "at": version})
    if known is None:
        db.execute(proofs.insert().values(policy=policy, version=version, sha256=sha256))
    elif known != sha256:
        raise PublishError(f"version {version} of {policy} was proved with {known[:12]}, not {sha256[:12]}")


def check_proved(db: sa.Connection, group: Group) -> None:
    """Raises:
    PublishError: a sample of the group is of what was not proved.
    """
    for version in {sample.rollout.policy_version for sample in group.samples}:
        proved = db.scalar(_PROVED, {"of": group.policy, "at": version})
        if proved is None or proved != group.adapter_sha256:
            bytes_ = (group.adapter_sha256 or "no adapter")[:12]
            what = f"proved was {proved[:12]}" if proved else "nothing was proved"
            message = f"a group was sampled by version {version} of {group.policy} with {bytes_}, but {what}"
            raise PublishError(message, fix="see the servers' logs in logs/")
