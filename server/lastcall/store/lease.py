"""The seam's second half: the connection by which an instance holds its lease."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol
from uuid import UUID


class LeaseConnection(Protocol):
    """The connection that holds an instance's lease. When it ends, other instances can see that it is gone."""

    async def renew(self) -> bool:
        """Sets the heartbeat.

        Returns:
            False where the instance was declared dead or has stopped.

        Raises:
            StoreUnavailable: The connection is of no more use; open another one.
        """
        ...

    async def closed_among(self, session_ids: Sequence[UUID], stored: Collection[UUID] = ()) -> Sequence[UUID]:
        """Returns those of the sessions whose rows are closed or deleted.

        Args:
            session_ids: The sessions.
            stored: Those of them whose begin is committed. Another one without a row may be about to get it.

        Raises:
            StoreUnavailable: The connection is of no more use; open another one.
        """
        ...

    def closed_by_others(self) -> Sequence[UUID] | None:
        """Returns the instance's sessions that others have closed or deleted since the last call.

        None: there were too many to list; ask `closed_among` about all.
        """
        ...

    async def news(self) -> None:
        """Waits until `closed_by_others` may have something to report, or the connection has ended."""
        ...
