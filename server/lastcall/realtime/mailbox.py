"""A connection's two queues: the client's events that wait to be handled, and the server's on their way out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from typing import Self

import trio

from ..limits.memory import MemoryAccount
from ..protocol import server_events
from ..protocol.client_events import AnyClientEvent, EventRejected
from ..protocol.ids import new_id
from ..transport.frames import text_frame
from ..transport.stream import BufferedStream
from ..transport.websocket import WebSocket

EVENTS_PER_STEP = 16  # of the loop: after so many events that were waiting, other tasks run

Event = AnyClientEvent | EventRejected


class Inbox(AsyncIterator[Event]):
    """The client's events that wait to be handled. Iterated over by one task.

    Args:
        events_max: Events that may wait.
        bytes_max: Bytes of messages that may wait; a single message may be larger.
        memory: Of the session.
    """

    def __init__(self, events_max: int, bytes_max: int, memory: MemoryAccount | None = None) -> None:
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._memory = memory or MemoryAccount()
        self._bytes = 0
        self._handled = 0  # what the event takes in memory that is being handled
        self._waiting: list[tuple[Event, int, int]] = []  # mostly empty, and few: an empty deque takes 600 bytes
        self._news = trio.Event()
        self._in_a_row = 0  # events that nobody had to wait for

    def put(self, event: Event, size: int, held: int = 0) -> bool:
        """Returns False, at once, where there is no room.

        size: bytes of the event's message. held: what the event takes in memory.
        """
        waiting = len(self._waiting)
        if waiting >= self._events_max or (waiting and self._bytes + size > self._bytes_max):
            return False
        self._bytes += size
        self._memory.add(held)
        self._waiting.append((event, size, held))
        self._news.set()
        return True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        handled, self._handled = self._handled, 0
        self._memory.add(-handled)
        if self._waiting and self._in_a_row < EVENTS_PER_STEP:
            self._in_a_row += 1
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            self._in_a_row = 0
            await self._news.wait()
        event, size, self._handled = self._waiting.pop(0)
        if not self._waiting:
            self._news = trio.Event()
        self._bytes -= size
        return event


class Outbox:
    """The events for the client: encodes and numbers them, and hands their frames to the stream."""

    def __init__(self, stream: BufferedStream, ws: WebSocket) -> None:
        self._stream = stream
        self._ws = ws
        self._prefix = f"{new_id('event')[:18]}_"
        self._numbers = count(1)
        self.room = stream.room

    def emit(self, event: server_events.ServerEvent) -> None:
        # No frame may follow a close frame, and the library's own state is the first to know of one.
        if self._ws.closed is None:
            self._stream.put(text_frame(server_events.encode(event, f"{self._prefix}{next(self._numbers)}")))
