"""What one connection's client is sent."""

from __future__ import annotations

from itertools import count
from uuid import uuid4

from ..protocol import server_events
from ..transport.stream import BufferedStream
from ..transport.websocket import WebSocket, text_frame


class Outbox:
    """Encodes events, numbers them and hands their frames to the stream."""

    def __init__(self, stream: BufferedStream, ws: WebSocket) -> None:
        self._stream = stream
        self._ws = ws
        self._prefix = f"event_{uuid4().hex[:12]}_"
        self._numbers = count(1)
        self.room = stream.room

    def emit(self, event: server_events.ServerEvent) -> None:
        # After a close frame no other may follow, and the library's own state is the first to know of one.
        if self._ws.closed is None:
            self._stream.put(text_frame(server_events.encode(event, f"{self._prefix}{next(self._numbers)}")))
