"""Ids of everything that clients see."""

from __future__ import annotations

import os
from uuid import UUID, SafeUUID

POOL_BYTES = 4_096  # of randomness, fetched from the kernel in one go
_ID_BYTES = 16
_VERSION_4 = 4 << 76 | 2 << 62  # and the variant of RFC 9562
_RANDOM_BITS = (1 << 128) - 1 ^ (15 << 76 | 3 << 62)


def public_id(kind: str, identifier: UUID) -> str:
    """The id that clients see: `conv_` or `sess_`, then 32 hex digits."""
    return f"{kind}_{identifier.hex}"


def parse_public_id(kind: str, text: str) -> UUID:
    """Parses a public id or a plain UUID. Raises `ValueError`."""
    return UUID(text.removeprefix(f"{kind}_"))


def new_id(kind: str) -> str:
    """A random id: the kind, then 32 hex digits. A turn needs several, and `uuid4` takes ten times as long."""
    return f"{kind}_{_pool.take().hex()}"


def new_uuid() -> UUID:
    """What `uuid4` returns, in a fraction of the time: `UUID` itself looks at all six ways to give its value first."""
    uuid = UUID.__new__(UUID)
    object.__setattr__(uuid, "int", int.from_bytes(_pool.take(), "big") & _RANDOM_BITS | _VERSION_4)
    object.__setattr__(uuid, "is_safe", SafeUUID.unknown)
    return uuid


class _RandomPool:
    """The kernel's randomness, each byte of it used once. Not for secrets: it stays in memory. Not to be forked."""

    def __init__(self) -> None:
        self._bytes = b""
        self._used = 0

    def take(self) -> bytes:
        if self._used == len(self._bytes):
            self._bytes, self._used = os.urandom(POOL_BYTES), 0
        self._used += _ID_BYTES
        return self._bytes[self._used - _ID_BYTES : self._used]


_pool = _RandomPool()
