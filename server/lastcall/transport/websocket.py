"""The server's side of a WebSocket (RFC 6455): trio-websocket with a few overrides, and a short way for text messages.

The only module that meets private parts of trio-websocket and wsproto, so pyproject.toml caps their versions;
`tests/unit/transport/test_websocket.py` and `tests/unit/realtime/test_any_bytes.py` notice a change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from sys import getsizeof
from typing import TypeAlias

import structlog
import trio
import wsproto.utilities
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection, WebSocketRequest
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from ..limits.token_bucket import TokenBucket
from .frame_pace import FramePace
from .frames import read_text_frame

QUEUE_MESSAGES = 16  # before `deliver`; a pong behind them waits too
RECEIVE_BYTES = 4_096

Take: TypeAlias = Callable[[str | bytes], object]

_log = structlog.get_logger(__name__)


class _Sieve(trio.abc.Stream):
    """The stream as trio-websocket sees it: without whole text messages, which go straight to `take` once it is set."""

    def __init__(self, stream: trio.abc.Stream, wsproto: WSConnection, message_bytes_max: int, pace: FramePace) -> None:
        self._stream = stream
        self._wsproto = wsproto
        self._message_bytes_max = message_bytes_max
        self._pace = pace
        self.take: Take | None = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while data := bytes(await self._stream.receive_some(max_bytes)):
            if rest := await self._sift(data):
                return rest
        return b""

    async def _sift(self, data: bytes) -> bytes:
        """Takes the whole text messages that the bytes begin with; returns the rest, for wsproto."""
        at = 0
        while self.take is not None and (at or self._between_messages):
            found = read_text_frame(data, at, self._message_bytes_max)
            if found is None:
                break
            message, at = found
            await self._pace.keep()
            self.take(message)
        return data[at:]

    @property
    def _between_messages(self) -> bool:
        """Whether the next byte begins a frame and a message. wsproto keeps that to itself."""
        connection = self._wsproto.connection
        if connection is None or connection.state is not ConnectionState.OPEN:
            return False
        frames, messages = connection._proto._frame_decoder, connection._proto._message_decoder  # noqa: SLF001
        return frames.header is None and not frames.buffer and messages.opcode is None

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
    answered: the peer's close frame came after ours. It sends nothing more, and ours is all that it may still receive.

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
        connection = WSConnection(ConnectionType.SERVER)
        self._pace = FramePace(pace, held_back)
        self._sieve = _Sieve(stream, connection, message_bytes_max, self._pace)
        super().__init__(
            self._sieve,
            connection,
            message_queue_size=QUEUE_MESSAGES,
            max_message_size=message_bytes_max,
            receive_buffer_size=RECEIVE_BYTES,
        )
        self.malformed = False
        self.too_big = False
        self.crashed = False
        self.answered = False
        self._close_began = False
        self._opening = trio.CancelScope()
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

    def deliver(self, take: Take, end: Callable[[], object]) -> None:
        """Calls `take` with each message, those that wait first, and `end` once when no further one can come."""
        self._sieve.take, self._end = take, end
        self._deliver_waiting()
        if self._ended:
            self._tell_end()

    async def _reader_task(self) -> None:
        try:
            await super()._reader_task()
        except (ConnectionClosed, wsproto.utilities.ProtocolError, OSError, UnicodeError) as error:
            self.crashed = True
            _log.debug("connection_lost", error=repr(error))
        except Exception:  # noqa: BLE001 - one connection's failure ends no other
            self.crashed = True
            _log.exception("connection_crashed")
        except trio.Cancelled:
            self._end = None  # whoever cancels everything has a reason of its own
            raise
        finally:
            self._ended = True
            self._opening.cancel()  # the library would wait for ever for another handshake
            self._tell_end()

    def _tell_end(self) -> None:
        """Also lets go of whom messages were delivered to, in whom this object is: no collection need find the two."""
        end, self._end, self._sieve.take = self._end, None, None
        if end is not None:
            end()

    def _deliver_waiting(self) -> None:
        while self._sieve.take is not None:
            try:
                message = self._recv_channel.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
                return
            self._held(-self._sizes.popleft())
            self._sieve.take(message)

    def ping_frame(self) -> bytes:
        """A ping for the peer, whose pong counts like any other byte of it. Empty where the connection is closing."""
        if self.closed is not None or self._wsproto.state is not ConnectionState.OPEN:
            return b""
        return self._wsproto.send(Ping())

    def begin_close(self, code: int, reason: str | None) -> bytes:
        """The close frame for the peer, whose own `aclose` then waits for. Empty where the connection is closing."""
        if self._ended or self.closed is not None or self._wsproto.state is not ConnectionState.OPEN:
            return b""
        self._close_began = True
        self._close_reason = CloseReason(1000, None)  # as in the library's `aclose`
        return self._wsproto.send(CloseConnection(code=code, reason=reason))

    async def _aclose(self, code: int, reason: str | None) -> None:
        if not self._close_began:
            await super()._aclose(code, reason)
            return
        try:
            await self._recv_channel.aclose()
            await self._close_handshake.wait()
        finally:
            await self._close_stream()

    def count_bytes(self, held: Callable[[int], object]) -> None:
        """Calls `held` with the memory of the messages not delivered or not complete, and with each change of it."""
        self._held = held
        held(sum(self._sizes))

    async def _handle_message_event(self, event: BytesMessage | TextMessage) -> None:
        await self._pace.keep()
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
        if self.too_big:
            self._ended = True  # the library would tell only after the peer's next bytes
            self._tell_end()

    async def _handle_ping_event(self, event: Ping) -> None:
        await self._pace.keep()
        if self._wsproto.state is ConnectionState.OPEN:  # the library raises when a ping crosses our close frame
            await super()._handle_ping_event(event)

    async def _handle_pong_event(self, event: Pong) -> None:
        await self._pace.keep()
        await super()._handle_pong_event(event)

    async def _handle_close_connection_event(self, event: CloseConnection) -> None:
        # A close frame from the peer changes the state first; still OPEN means that the parser gave up.
        self.malformed = self._wsproto.state is ConnectionState.OPEN
        self.answered = self._wsproto.state is ConnectionState.CLOSED
        await super()._handle_close_connection_event(event)
