"""The server's side of a WebSocket: trio-websocket with a few overrides, and frames written without it (RFC 6455).

The only module that subclasses trio-websocket. The methods it overrides are private, so pyproject.toml caps the
version; `tests/unit/transport/test_websocket.py` and `tests/unit/realtime/test_any_bytes.py` notice a change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from sys import getsizeof
from typing import cast

import trio
from trio_websocket import WebSocketConnection, WebSocketRequest
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason, FrameProtocol

from ..limits.token_bucket import TokenBucket

QUEUE_MESSAGES = 16  # unread messages; a pong behind them waits too, so the reader must keep up
RECEIVE_BYTES = 4_096
FRAMES_PER_CHECKPOINT = 32  # control frames reach no reader that would yield to other tasks

_TEXT_FINAL = 0x81  # FIN, opcode 1; a server does not mask its frames


def text_frame(payload: bytes) -> bytes:
    """Encodes one complete text message. Runs once per token, where wsproto's general encoder is too slow."""
    size = len(payload)
    if size < 126:
        return bytes((_TEXT_FINAL, size)) + payload
    if size < 65_536:
        return bytes((_TEXT_FINAL, 126)) + size.to_bytes(2, "big") + payload
    return bytes((_TEXT_FINAL, 127)) + size.to_bytes(8, "big") + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """Encodes a close frame; a reason too long for a control frame is cut."""
    return bytes(FrameProtocol(client=False, extensions=[]).close(cast("CloseReason", code), reason))


class WebSocket(WebSocketConnection):
    """The server's side of one connection.

    malformed: the peer sent bytes that are not a WebSocket frame. The library closes without a close frame then; the
        caller must send one.
    too_big: the peer's message exceeded `message_bytes_max`. The library has queued the close frame.

    pace: takes one token per frame from the peer; without a token, reading pauses.
    held_back: called each time it pauses.
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
        self._opening = trio.CancelScope()
        self._held: Callable[[int], object] = int
        self._sizes: deque[int] = deque([0])  # of the messages that wait; the last one is the incomplete one

    async def request(self, tasks: trio.Nursery) -> WebSocketRequest | None:
        """Starts the reader in `tasks` and waits for the peer's handshake; accepting that opens the connection.

        None: the handshake was malformed and is answered, or the peer is gone.
        """
        with self._opening:
            tasks.start_soon(self._reader_task)
            return await self._get_request()
        return None

    async def _reader_task(self) -> None:
        await super()._reader_task()
        self._opening.cancel()  # the library would wait for ever for another handshake

    def count_bytes(self, held: Callable[[int], object]) -> None:
        """Calls `held` with the memory of the messages not fetched or not complete, and then with each change of it."""
        self._held = held
        held(sum(self._sizes))

    async def _keep_pace(self) -> None:
        """Delays a flood of pings, pongs or fragments: unread, it fills the sender's own buffers and nobody else's."""
        self._frames += 1
        if self._frames % FRAMES_PER_CHECKPOINT == 0:
            await trio.lowlevel.checkpoint()
        if self._pace is not None and not self._pace.take():
            self._held_back()
            await trio.sleep(self._pace.seconds_until(1.0))
            self._pace.take()

    async def _handle_message_event(self, event: BytesMessage | TextMessage) -> None:
        await self._keep_pace()
        if self.too_big or not (event.data or event.message_finished):
            return  # the library would keep any number of empty fragments
        size = len(event.data.encode()) if isinstance(event, TextMessage) else len(event.data)
        self._message_size += size - len(event.data)  # the library counts the characters of a text, not its bytes
        self.too_big = self._message_size + len(event.data) > self._max_message_size
        self._sizes[-1] += getsizeof(event.data)
        self._held(getsizeof(event.data))
        if event.message_finished:
            self._sizes.append(0)
        await super()._handle_message_event(event)

    async def get_message(self) -> str | bytes:
        message: str | bytes = await super().get_message()
        self._held(-self._sizes.popleft())
        return message

    async def _handle_ping_event(self, event: Ping) -> None:
        await self._keep_pace()
        if self._wsproto.state is ConnectionState.OPEN:  # the library raises when a ping crosses our close frame
            await super()._handle_ping_event(event)

    async def _handle_pong_event(self, event: Pong) -> None:
        await self._keep_pace()
        await super()._handle_pong_event(event)

    async def _handle_close_connection_event(self, event: CloseConnection) -> None:
        # A close frame from the peer changes the state first; still OPEN means that the parser gave up.
        self.malformed = self._wsproto.state is ConnectionState.OPEN
        await super()._handle_close_connection_event(event)
