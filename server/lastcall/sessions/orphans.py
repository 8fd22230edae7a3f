"""Closing orphaned sessions for an operator, by the same rule as the reaper."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Protocol
from uuid import UUID

import trio

from ..config import Settings
from ..runtime.host import host_id
from ..store import reports
from ..store.records import Suspect
from .death import Watch

LOOK_SECONDS = 0.1  # between two looks
WATCH_SECONDS_MAX = 60.0  # an owner with a longer lease is left


class OwnersDatabase(reports.Rows, Protocol):
    """The part of `PostgresStore` that this needs."""

    async def suspects(self, instance_id: UUID | None) -> Sequence[Suspect]: ...


async def close_orphans(store: OwnersDatabase) -> list[reports.ClosedReport]:
    """Closes the sessions of servers that are provably dead, and those that no server ever owned."""
    closed = await reports.close_ownerless(store)
    async with aclosing(_dead_owners(store)) as dead:
        async for owner in dead:
            closed += await reports.close_sessions_of(store, owner)
    return closed


async def _dead_owners(store: OwnersDatabase) -> AsyncGenerator[Suspect, None]:
    """Watches the owners of orphaned sessions until each has renewed its lease or is certainly dead."""
    heartbeats: dict[UUID, Any] = {}
    undecided = await reports.orphans_owners(store)
    watch = Watch(host_id(), Settings().gone_seconds)
    until = trio.current_time() + WATCH_SECONDS_MAX
    while undecided and trio.current_time() < until:
        asked = trio.current_time()
        suspects = [each for each in await store.suspects(None) if each.instance_id in undecided]
        first = {each.instance_id: heartbeats.setdefault(each.instance_id, each.heartbeat) for each in suspects}
        silent = [each for each in suspects if each.heartbeat == first[each.instance_id]]
        dead = [owner for owner, _ in watch.look(silent, asked, trio.current_time())]
        undecided = {each.instance_id for each in silent} - {each.instance_id for each in dead}
        for owner in dead:
            yield owner
        await trio.sleep(LOOK_SECONDS)
