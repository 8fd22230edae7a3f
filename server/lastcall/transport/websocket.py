"""trio-websocket's connection, where the library's own way would let one client cost others, or hide why it ended.

The only module that overrides it. What is overridden is private to it; `tests/unit/realtime/test_any_bytes.py` and
`tests/unit/transport/test_websocket.py` hold what comes of it.
"""

from __future__ import annotations

from collections.abc import Callable

import trio
from trio_websocket import WebSocketConnection, WebSocketRequest
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from ..limits.limit import TokenBucket

QUEUE_MESSAGES = 16  # pongs wait behind unread messages, so our reader never waits
RECEIVE_BYTES = 4_096
FRAMES_AT_A_STRETCH = 32  # before others run: frames that nobody is told of, such as pongs, wait for nothing else


class WebSocket(WebSocketConnection):
    """The server's side of a connection.

    malformed: the peer sent what is no WebSocket. The library sends no close frame then: the peer is still owed one.
    too_big: the peer's message was larger than `message_bytes_max`. Its close frame is on its way.

    pace: a token for each of the peer's frames; without one, no further frame is read for a while.
    held_back: called each time that happens.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        message_bytes_max: int,
        pace: TokenBucket | None = None,
        held_back: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(
            stream,
            WSConnection(ConnectionType.SERVER),
            message_queue_size=QUEUE_MESSAGES,
            max_message_size=message_bytes_max,
            receive_buffer_size=RECEIVE_BYTES,
        )
        self.malformed = False
        self.too_big = False
        self._pace = pace
        self._frames = 0
        self._held_back = held_back

    async def request(self, tasks: trio.Nursery) -> WebSocketRequest:
        """The peer's handshake; accepting it opens this connection. The reader runs in `tasks`."""
        tasks.start_soon(self._reader_task)
        return await self._get_request()

    async def _keep_pace(self) -> None:
        """Waiting is all that a flood of pings, pongs or fragments is met with: it fills its own sender's buffers."""
        self._frames += 1
        if self._frames % FRAMES_AT_A_STRETCH == 0:
            await trio.lowlevel.checkpoint()
        if self._pace is not None and not self._pace.take():
            self._held_back()
            await trio.sleep(self._pace.seconds_until(1.0))
            self._pace.take()

    async def _handle_message_event(self, event: BytesMessage | TextMessage) -> None:
        await self._keep_pace()
        if self.too_big or not (event.data or event.message_finished):
            return  # an empty fragment adds nothing, and the library would keep any number of them
        size = len(event.data.encode()) if isinstance(event, TextMessage) else len(event.data)
        self._message_size += size - len(event.data)  # the library counts a text's characters
        self.too_big = self._message_size + len(event.data) > self._max_message_size
        await super()._handle_message_event(event)

    async def _handle_ping_event(self, event: Ping) -> None:
        await self._keep_pace()
        if self._wsproto.state is ConnectionState.OPEN:  # after our close frame, the library would raise
            await super()._handle_ping_event(event)

    async def _handle_pong_event(self, event: Pong) -> None:
        await self._keep_pace()
        await super()._handle_pong_event(event)

    async def _handle_close_connection_event(self, event: CloseConnection) -> None:
        # A close frame of the peer's would have changed the state: this is the parser giving up.
        self.malformed = self._wsproto.state is ConnectionState.OPEN
        await super()._handle_close_connection_event(event)
