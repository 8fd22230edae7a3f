"""The server's side of a WebSocket (RFC 6455): trio-websocket with a few overrides, and a short way for text messages.

Only this module and the sieve meet private parts of trio-websocket and wsproto, so pyproject.toml caps their versions;
`tests/unit/transport/test_websocket.py` and `tests/unit/realtime/test_any_bytes.py` notice a change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from sys import getsizeof

import structlog
import trio
import wsproto.utilities
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection, WebSocketRequest
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.handshake import H11Handshake

from ..limits.token_bucket import TokenBucket
from .frame_pace import FramePace
from .sieve import Sieve, Take

QUEUE_MESSAGES = 16  # before `deliver`; a pong behind them waits too
RECEIVE_BYTES = 4_096

_log = structlog.get_logger(__name__)


class _NoHandshake(H11Handshake):
    """The handshake of all connections that are open: it is over, and has no events."""

    def events(self) -> Iterator[Event]:  # type: ignore[override]
        return iter(())


_NO_HANDSHAKE = _NoHandshake(ConnectionType.SERVER)


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

    # The library's attributes and these would be more than a dictionary shares its keys for: 1 KB for each connection.
    __slots__ = (
        "_close_began",
        "_end",
        "_ended",
        "_held",
        "_opening",
        "_pace",
        "_sieve",
        "_sizes",
        "answered",
        "crashed",
        "malformed",
        "too_big",
    )

    def __init__(
        self,
        stream: trio.abc.Stream,
        message_bytes_max: int,
        pace: TokenBucket | None = None,
        held_back: Callable[[], object] = lambda: None,
    ) -> None:
        connection = WSConnection(ConnectionType.SERVER)
        self._pace = FramePace(pace, held_back)
        self._sieve = Sieve(stream, connection, message_bytes_max, self._pace)
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
        self._sizes = [0]  # of the messages that wait; the last one is the incomplete one

    async def request(self, tasks: trio.Nursery) -> WebSocketRequest | None:
        """Starts the reader in `tasks` and waits for the peer's handshake; accepting that opens the connection.

        None: the handshake was malformed and is answered, or the peer is gone.
        """
        with self._opening:
            tasks.start_soon(self._reader_task)
            return await self._get_request()
        return None

    def deliver(self, take: Take, end: Callable[[], object]) -> None:
        """Calls `take` with each message, those that wait first, and `end` once when no further one can come.

        Lets go of the handshake: its request, and two parsers.
        """
        self._wsproto.handshake = _NO_HANDSHAKE
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
            self._held(-self._sizes.pop(0))
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
