"""The server's side of a WebSocket (RFC 6455): trio-websocket with a few overrides, and a short way for text messages.

Only this module and `open_connection` meet private parts of trio-websocket and wsproto, so pyproject.toml caps their
versions; `tests/unit/transport/test_websocket.py` and `tests/unit/realtime/test_any_bytes.py` notice a change.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from sys import getsizeof
from typing import Any, cast

import structlog
import trio
import wsproto.utilities
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from ..limits.token_bucket import TokenBucket
from .frame_pace import FramePace
from .open_connection import OpenConnection
from .sieve import Sieve, Take
from .stream import BufferedStream

RECEIVE_BYTES = 4_096

_log = structlog.get_logger(__name__)


class _NoChannel:
    """In place of the library's queue of messages: they are handed over as they arrive."""

    async def aclose(self) -> None: ...


class WebSocket(WebSocketConnection):
    """The server's side of one connection, after its opening handshake.

    Nothing is read until `deliver`; from then on messages are handed over as they arrive, from the reader's task.
    Whole text frames go there straight from the received bytes. Everything else takes the way through wsproto and
    trio-websocket: control frames, fragments, binary messages, and whatever is wrong.

    malformed: the peer sent bytes that are not a WebSocket frame. The library closes without a close frame then; the
        caller must send one.
    too_big: the peer's message exceeded `message_bytes_max`. The close frame is queued.
    crashed: the libraries raised, instead of closing.
    answered: close frames went both ways, so that the peer sends nothing more, whoever was the first.

    tasks: where the reader runs.
    pace: takes one token per frame from the peer; without a token, reading pauses.
    held_back: called each time it pauses.
    """

    # Parts of the library that this class has no use for, or its own.
    _send_channel = _recv_channel = cast("Any", _NoChannel())
    _for_testing_peer_closed_connection = trio.Event()

    def __init__(
        self,
        stream: BufferedStream,
        tasks: trio.Nursery,
        message_bytes_max: int,
        pace: TokenBucket | None = None,
        held_back: Callable[[], object] = lambda: None,
    ) -> None:
        # Not the library's `__init__`: its queue, its lock and the events of its handshake would take three kilobytes.
        self._stream = stream
        self._wsproto = OpenConnection()
        self._close_reason: CloseReason | None = None
        self._close_handshake = trio.Event()
        self._reader_running = True
        self._message_size = 0
        self._message_parts: list[bytes | str] = []
        self._max_message_size = message_bytes_max
        self._pace = FramePace(pace, held_back)
        self._sieve = Sieve(stream, self._wsproto, message_bytes_max, self._pace)
        self._buffered = stream
        self._tasks = tasks
        self.malformed = False
        self.too_big = False
        self.crashed = False
        self.answered = False
        self._reading = False
        self._close_began = False
        self._end: Callable[[], object] | None = None
        self._ended = False
        self._held: Callable[[int], object] = int
        self._parts_held = 0

    def deliver(self, take: Take, end: Callable[[], object]) -> None:
        """Calls `take` with each message, and `end` once when no further one can come."""
        self._sieve.take, self._end = take, end
        self._read()

    def _read(self) -> None:
        if not self._reading:
            self._reading = True
            self._tasks.start_soon(self._reader_task)

    async def _reader_task(self) -> None:
        """In place of the library's, which reads once more after the end, and keeps a table of handlers per reader."""
        try:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, ConnectionClosed):
                while self._reader_running and (data := await self._sieve.receive(RECEIVE_BYTES)):
                    await self._parse(data)
            await self._abort_web_socket()  # without effect where it was closed in order
        except (wsproto.utilities.ProtocolError, OSError, UnicodeError) as error:
            self.crashed = True
            _log.debug("connection_lost", error=repr(error))
        except Exception:  # noqa: BLE001 - one connection's failure ends no other
            self.crashed = True
            _log.exception("connection_crashed")
        except trio.Cancelled:
            self._end = None  # whoever cancels everything has a reason of its own
            raise
        finally:
            self._tell_end()

    async def _parse(self, data: bytes) -> None:
        if self._wsproto.state is ConnectionState.CLOSED:
            return
        self._wsproto.receive_data(data)
        for event in self._wsproto.events():
            match event:
                case BytesMessage() | TextMessage():
                    await self._handle_message_event(event)
                case Ping():
                    await self._handle_ping_event(event)
                case Pong():
                    await self._pace.keep()
                case CloseConnection():
                    await self._handle_close_connection_event(event)

    def _tell_end(self) -> None:
        """Also lets go of whom messages were delivered to, in whom this object is: no collection need find the two."""
        self._ended = True
        end, self._end, self._sieve.take = self._end, None, None
        if end is not None:
            end()

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
        self._read()  # the peer's close frame, also where nothing else was to be read
        if not self._close_began:
            await super()._aclose(code, reason)
            return
        try:
            await self._close_handshake.wait()
        finally:
            await self._close_stream()

    def count_bytes(self, held: Callable[[int], object]) -> None:
        """Calls `held` with each change of what the parts of an incomplete message take in memory."""
        self._held = held

    async def _handle_message_event(self, event: BytesMessage | TextMessage) -> None:
        """In place of the library's, which counts the characters of a text, keeps empty parts and waits for room."""
        await self._pace.keep()
        take, data = self._sieve.take, cast("str | bytes", event.data)
        if take is None or self.closed is not None or not (data or event.message_finished):
            return
        self._message_size += len(data.encode()) if isinstance(data, str) else len(data)
        if self._message_size > self._max_message_size:
            await self._refuse_size()
            return
        self._message_parts.append(data)
        self._hold(getsizeof(data))
        if event.message_finished:
            parts, self._message_parts, self._message_size = self._message_parts, [], 0
            self._hold(-self._parts_held)
            take("".join(cast("list[str]", parts)) if isinstance(data, str) else b"".join(cast("list[bytes]", parts)))

    async def _refuse_size(self) -> None:
        """The end, also for a peer that sends nothing more: the library would read once more before it."""
        self.too_big = True
        self._hold(-self._parts_held)
        reason = f"Exceeded maximum message size: {self._max_message_size} bytes"
        self._close_reason = CloseReason(1009, reason)
        self._reader_running = False
        await self._send(CloseConnection(code=1009, reason=reason))

    def _hold(self, size: int) -> None:
        self._parts_held += size
        self._held(size)

    async def _handle_ping_event(self, event: Ping) -> None:
        await self._pace.keep()
        if self._wsproto.state is ConnectionState.OPEN:  # the library raises when a ping crosses our close frame
            await super()._handle_ping_event(event)

    async def _handle_close_connection_event(self, event: CloseConnection) -> None:
        # A close frame from the peer changes the state first; still OPEN means that the parser gave up.
        self.malformed = self._wsproto.state is ConnectionState.OPEN
        await super()._handle_close_connection_event(event)
        self.answered = self._wsproto.state is ConnectionState.CLOSED

    async def _send(self, event: Event) -> None:
        """In place of the library's, which takes a lock and a step of the loop: `put` tears no frame."""
        data = self._wsproto.send(event)
        if not self._buffered.open:
            await self._abort_web_socket()
            raise ConnectionClosed(self._close_reason)
        self._buffered.put(data)
        await self._buffered.room()
