"""A client's events that wait to be handled: bounded in number and in bytes."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Self

import trio

from .client_events import AnyClientEvent, Rejected

Event = AnyClientEvent | Rejected


class Inbox(AsyncIterator[Event]):
    """Taken from by `async for`, one reader at a time. bytes_max: a single event may be larger."""

    def __init__(self, events_max: int, bytes_max: int) -> None:
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._bytes = 0
        # The channel itself needs no bound: `put` is the only way in.
        self._put, self._taken = trio.open_memory_channel[tuple[Event, int]](math.inf)

    def put(self, event: Event, size: int) -> bool:
        """Never waits; False where there is no room. size: of the event's message."""
        waiting = self._put.statistics().current_buffer_used
        if waiting >= self._events_max or (waiting and self._bytes + size > self._bytes_max):
            return False
        self._bytes += size
        self._put.send_nowait((event, size))
        return True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        event, size = await self._taken.receive()
        self._bytes -= size
        return event
