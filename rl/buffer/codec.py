"""Group ⇄ bytes: MessagePack by `msgspec`, which checks the types on the way in. Never pickle."""

import msgspec

from rl.core.types import Group

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Group).decode
"""Raises `msgspec.DecodeError` for bytes that are no group."""
