"""The errors of the store."""

from __future__ import annotations


def reason_of(error: BaseException) -> str:
    """What went wrong, in one line."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


class StoreError(Exception):
    """An operation of the store failed."""


class StoreUnavailable(StoreError):
    """The database is out of reach or too slow. Whether a write happened is unknown; retrying is safe."""


class CommitRefused(StoreUnavailable):
    """The database answers, but commits nothing; the message is its own reason."""


class InstanceHeld(StoreUnavailable):
    """Somebody has locked the instance's row, so that it cannot renew its lease, nor be declared dead."""


class SessionClosed(StoreError):
    """The session's row is closed, so nothing more is stored for it."""


class InvalidRow(StoreError):
    """The database refused the data itself; retrying will not help."""


class InstanceGone(InvalidRow):
    """The instance was declared dead or has stopped, so it begins no more sessions."""


class CredentialRevoked(InvalidRow):
    """The key or client secret was revoked, so it begins no more sessions and creates no more secrets."""


class ItemExists(InvalidRow):
    """The conversation has another item with this id."""


class ItemNotFound(InvalidRow):
    """The conversation has no item with this id."""


class DatabaseUnusable(Exception):
    """The database cannot be used; the message is one line for the user that includes the fix.

    Args:
        found: What is wrong.
        mend: What to do about it.
    """

    def __init__(self, found: str, mend: str) -> None:
        super().__init__(f"{found} ({mend})")
        self.found = found
        self.mend = mend


class DatabaseNotReady(DatabaseUnusable):
    """The database cannot be used yet: it is starting or restarting, or nothing listens there so far."""
