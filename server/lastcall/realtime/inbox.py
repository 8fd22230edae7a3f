"""A client's events that wait to be handled: bounded in number and in bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Self

import trio

from ..protocol.client_events import AnyClientEvent, EventRejected

Event = AnyClientEvent | EventRejected


class Inbox(AsyncIterator[Event]):
    """Taken from by `async for`, one reader at a time. bytes_max: a single event may be larger."""

    def __init__(self, events_max: int, bytes_max: int) -> None:
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._waiting: deque[tuple[Event, int]] = deque()
        self._news = trio.Event()

    def put(self, event: Event, size: int) -> bool:
        """Never waits; False where there is no room. size: of the event's message."""
        waiting = len(self._waiting)
        if waiting >= self._events_max or (waiting and self._bytes + size > self._bytes_max):
            return False
        self._bytes += size
        self._waiting.append((event, size))
        self._news.set()
        return True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        await self._news.wait()
        event, size = self._waiting.popleft()
        if not self._waiting:
            self._news = trio.Event()
        self._bytes -= size
        return event
