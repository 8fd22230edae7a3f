"""How the store fails."""

from __future__ import annotations


class StoreError(Exception):
    """The store did not do it."""


class StoreUnavailable(StoreError):
    """Not now: the database is out of reach or too slow. Whether a write happened is unknown; trying again is safe."""


class SessionClosed(StoreError):
    """The session's row is closed, so nothing more is stored for it."""


class InvalidRow(StoreError):
    """The database refused the data itself; trying again will not help."""


class InstanceGone(InvalidRow):
    """The instance was declared dead, or has stopped: it begins no sessions any more."""


class CredentialRevoked(InvalidRow):
    """The key or client secret was revoked: it begins no sessions and makes no secrets any more."""


class ItemExists(InvalidRow):
    """Another item of the conversation has this id."""


class ItemNotFound(InvalidRow):
    """No item of the conversation has this id."""
