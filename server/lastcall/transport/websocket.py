"""The server's side of a WebSocket (RFC 6455): trio-websocket with a few overrides, and a short way for text messages.

The only module that meets private parts of trio-websocket and wsproto, so pyproject.toml caps their versions;
`tests/unit/transport/test_websocket.py` and `tests/unit/realtime/test_any_bytes.py` notice a change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from sys import getsizeof

import structlog
import trio
import wsproto.utilities
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from ..limits.token_bucket import TokenBucket
from .frames import read_text_frame

QUEUE_MESSAGES = 16  # before `deliver`; a pong behind them waits too
RECEIVE_BYTES = 4_096
FRAMES_PER_CHECKPOINT = 32  # many frames are read in one go, and no other task would run meanwhile

_log = structlog.get_logger(__name__)


class _Sieve(trio.abc.Stream):
    """The stream as trio-websocket sees it.

    sift: takes what it can do without the library from received bytes, and returns the rest.
    """

    def __init__(self, stream: trio.abc.Stream, sift: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._stream = stream
        self._sift = sift

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while data := bytes(await self._stream.receive_some(max_bytes)):
            if rest := await self._sift(data):
                return rest
        return b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


class WebSocket(WebSocketConnection):
    """The server's side of one connection.

    Messages wait in a queue until `deliver`, and from then on are handed over as they arrive, from the reader's task.
    Whole text frames go there straight from the received bytes. Everything else takes the way through wsproto and
    trio-websocket: the handshake, control frames, fragments, binary messages, and whatever is wrong.

    malformed: the peer sent bytes that are not a WebSocket frame. The library closes without a close frame then; the
        caller must send one.
    too_big: the peer's message exceeded `message_bytes_max`. The library has queued the close frame.
    crashed: the libraries raised, instead of closing.

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
            _Sieve(stream, self._sift),
            WSConnection(ConnectionType.SERVER),
            message_queue_size=QUEUE_MESSAGES,
            max_message_size=message_bytes_max,
            receive_buffer_size=RECEIVE_BYTES,
        )
        self.malformed = False
        self.too_big = False
        self.crashed = False
        self._pace = pace
        self._frames = 0
        self._held_back = held_back
        self._opening = trio.CancelScope()
        self._take: Callable[[str | bytes], object] | None = None
        self._end: Callable[[], object] | None = None
        self._ended = False
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

    def deliver(self, take: Callable[[str | bytes], object], end: Callable[[], object]) -> None:
        """Calls `take` with each message, those that wait first, and `end` once when no further one can come."""
        self._take, self._end = take, end
        self._deliver_waiting()
        if self._ended:
            end()

    async def _reader_task(self) -> None:
        try:
            await super()._reader_task()
        except (ConnectionClosed, wsproto.utilities.ProtocolError, OSError, UnicodeError) as error:
            self.crashed = True
            _log.debug("connection_lost", error=repr(error))
        except Exception:  # noqa: BLE001 - one connection's failure ends no other
            self.crashed = True
            _log.exception("connection_crashed")
        self._ended = True
        self._opening.cancel()  # the library would wait for ever for another handshake
        if self._end is not None:
            self._end()

    async def _sift(self, data: bytes) -> bytes:
        """Delivers the whole text messages that the bytes begin with; returns the rest, for wsproto."""
        if self._take is None or not self._between_messages:
            return data
        at = 0
        while (found := read_text_frame(data, at, self._max_message_size)) is not None:
            message, at = found
            await self._keep_pace()
            self._take(message)
        return data[at:]

    @property
    def _between_messages(self) -> bool:
        """Whether the next byte begins a frame and a message. wsproto keeps that to itself."""
        connection = self._wsproto.connection
        if connection is None or connection.state is not ConnectionState.OPEN:
            return False
        frames, messages = connection._proto._frame_decoder, connection._proto._message_decoder  # noqa: SLF001
        return frames.header is None and not frames.buffer and messages.opcode is None

    def _deliver_waiting(self) -> None:
        while self._take is not None:
            try:
                message = self._recv_channel.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
                return
            self._held(-self._sizes.popleft())
            self._take(message)

    def ping_frame(self) -> bytes:
        """A ping for the peer, whose pong counts like any other byte of it. Empty where the connection is closing."""
        if self.closed is not None or self._wsproto.state is not ConnectionState.OPEN:
            return b""
        return self._wsproto.send(Ping())

    def count_bytes(self, held: Callable[[int], object]) -> None:
        """Calls `held` with the memory of the messages not delivered or not complete, and with each change of it."""
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
        self._deliver_waiting()

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
