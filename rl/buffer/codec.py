"""Group ⇄ row of the ledger. The group itself is MessagePack by `msgspec`, which checks the types on the way in, behind
a checksum. Never pickle."""

import zlib
from typing import Any

import msgspec

from rl.buffer.tables import State
from rl.core.errors import LedgerError
from rl.core.types import Group

CHECKSUM = 4
"""Bytes at the beginning of a payload: SQLite itself does not notice a flipped bit."""
_FIX = "python -m rl.audit RUN names the groups; put back a copy of the run's buffer.db"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Group).decode


def row(group: Group) -> dict[str, Any]:
    """What the ledger states of a group that has been sampled and verified, by column."""
    rewards = [s.verdict.reward for s in group.verified if s.verdict.reward is not None]
    return {
        "state": State.UNVERIFIED if len(rewards) < 2 else State.READY if group.has_signal else State.NO_SIGNAL,
        "problem": group.problem.id,
        "policy": group.policy,
        "adapter_sha256": group.adapter_sha256,
        "oldest_version": group.oldest_version,
        "samples": len(group.samples),
        "tokens": sum(len(s.rollout.token_ids) for s in group.samples),
        "mean_reward": sum(rewards) / len(rewards) if rewards else None,
    }


def encode(group: Group) -> bytes:
    body = _encode(group)
    return zlib.crc32(body).to_bytes(CHECKSUM) + body


def decode(payload: bytes) -> Group:
    """Raises:
    LedgerError: these are not the bytes of a group, or not all that were stored.
    """
    try:
        return _decode(checked(payload))
    except msgspec.MsgspecError as error:
        raise LedgerError(f"what is stored of a group is no group: {error}", fix=_FIX) from None


def checked(payload: bytes) -> memoryview:
    """The MessagePack of a payload.

    Raises:
        LedgerError: its checksum is another.
    """
    body = memoryview(payload)[CHECKSUM:]
    if zlib.crc32(body).to_bytes(CHECKSUM) != payload[:CHECKSUM]:
        raise LedgerError("what is stored of a group is damaged: its checksum is another", fix=_FIX)
    return body
