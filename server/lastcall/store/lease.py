"""The seam's second half: instances, and the connection by which one holds its lease."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias
from uuid import UUID

from .records import Instance, Suspect

Changed: TypeAlias = Callable[[UUID, Sequence[UUID] | None], object]
"""Called with a session, and the messages that others have stored or deleted; None: too many to list."""


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

    def hear_changes_with(self, changed: Changed) -> None:
        """Sets what is called when another session of its conversation has changed an item; it must not raise."""
        ...

    def hear_webhooks_with(self, changed: Callable[[], object]) -> None:
        """Sets what is called when endpoints of webhooks have changed; it must not raise."""
        ...

    async def news(self) -> None:
        """Waits until `closed_by_others` may have something to report, or the connection has ended."""
        ...


class InstanceStore(Protocol):
    """The part of `Store` about instances and their leases."""

    async def register_instance(self, instance: Instance) -> None:
        """Adds an instance's row; a row that is there already stays as it is."""
        ...

    def open_lease_connection(self, instance_id: UUID) -> AbstractAsyncContextManager[LeaseConnection]:
        """Opens a connection that holds the instance's lock for as long as the block lasts.

        Where an earlier one still has the lock, the first renewal after its end takes it.

        Raises:
            StoreUnavailable: No connection.
        """
        ...

    async def renew_lease(self, instance_id: UUID) -> bool:
        """Sets the heartbeat on any other connection than the lease connection, for as long as that is away.

        Returns:
            False where the instance was declared dead or has stopped.
        """
        ...

    async def closed_among(self, session_ids: Sequence[UUID], stored: Collection[UUID] = ()) -> Sequence[UUID]:
        """Like `LeaseConnection.closed_among`, for as long as the lease connection is away."""
        ...

    async def suspects(self, instance_id: UUID | None) -> Sequence[Suspect]:
        """Returns the other instances that own active sessions; none if the asking one (None: a person) is dead."""
        ...

    async def reap(self, suspect: Suspect, judge: UUID) -> int:
        """Declares an instance dead and ends its sessions, unless it has renewed its lease since `suspects`.

        Args:
            suspect: The instance, as `suspects` returned it.
            judge: The instance that declares it dead.

        Returns:
            The number of sessions that were ended. It is bounded: call again until it is 0.

        Raises:
            InstanceHeld: Its row is locked.
        """
        ...

    async def stop_instance(self, instance_id: UUID) -> None:
        """Marks the instance as shut down in order, behind all writes that it has queued."""
        ...

    async def active_sessions(self, instance_id: UUID) -> Collection[UUID]:
        """Returns the sessions of an instance whose rows are active."""
        ...
