"""A session's socket while it lasts: its messages, its close and its silence, and the ending that each means."""

from __future__ import annotations

import trio
from trio_websocket import ConnectionClosed

from ..limits.limit import Limit
from ..limits.session_limits import SessionLimits, shape_refusal
from ..protocol import server_events
from ..protocol.client_events import event_id_of, parsed_or_rejected
from ..sessions.session import Session
from ..store.records import EndReason
from ..transport.stream import BufferedStream
from ..transport.websocket import WebSocket, close_frame
from .inbox import Inbox
from .outbox import Outbox
from .services import Services

STALL_SECONDS = 0.25  # of a ping's timeout: for a pong that waits to be read after this process stood still


class Reader:
    """One session's. farewell: last bytes for the peer, where the library left the connection without a close frame."""

    def __init__(
        self,
        ws: WebSocket,
        stream: BufferedStream,
        session: Session,
        limits: SessionLimits,
        outbox: Outbox,
        services: Services,
    ) -> None:
        self.farewell = b""
        self._ws = ws
        self._stream = stream
        self._session = session
        self._limits = limits
        self._outbox = outbox
        self._settings = services.settings
        self._gate = services.gate

    async def run(self, inbox: Inbox) -> None:
        """Takes messages off the socket until it closes or the session's time is up. Never waits for anything else:
        pongs come this way too."""
        with trio.CancelScope() as timer:
            while True:
                timer.deadline = self._limits.deadline
                try:
                    message = await self._ws.get_message()
                except ConnectionClosed:
                    self._stop_as_closed()
                    return
                self._take(message, inbox)
        self._stop_as_late()

    def _take(self, message: str | bytes, inbox: Inbox) -> None:
        refused = self._limits.rate_refusal(message)
        if refused is not None:
            self._refuse_event(Limit.EVENT_RATE, refused)
            if self._limits.flooding:
                self._gate.count(Limit.FLOODING)
                self._session.stop(EndReason.FLOODING)
            return
        event = shape_refusal(message, self._settings)
        if event is not None:
            self._gate.count(Limit.JSON_SHAPE)
        if not inbox.put(event or parsed_or_rejected(message), len(message)):
            text = "Too many events are waiting; this one was not handled."
            detail = server_events.ErrorDetail(code="too_many_events", message=text, event_id=event_id_of(message))
            self._refuse_event(Limit.INBOX, detail)

    def _refuse_event(self, limit: Limit, detail: server_events.ErrorDetail) -> None:
        self._gate.count(limit)
        self._outbox.emit(server_events.Error(error=detail))

    def _stop_as_late(self) -> None:
        """The session's time is up: says so, and why. Nothing to be done where it was stopped already."""
        if self._session.reason is None:
            limit, detail = self._limits.time_is_up()
            self._refuse_event(limit, detail)
            self._session.stop(EndReason.EXPIRED if limit is Limit.SESSION_TIME else EndReason.IDLE)

    def _stop_as_closed(self) -> None:
        """The socket is closed: names the reason."""
        closed = self._ws.closed
        code = closed.code if closed is not None else 1006
        if self._stream.stalled:
            self._gate.count(Limit.SLOW_READER)
            self._session.stop(EndReason.SLOW_READER)
        elif self._ws.too_big:
            self._gate.count(Limit.MESSAGE_BYTES)
            self._session.stop(EndReason.MESSAGE_TOO_BIG)
        elif self._ws.malformed:
            self._session.stop(EndReason.PROTOCOL_ERROR, close_code=code)
            self.farewell = close_frame(code)
        elif code == 1006:
            self._session.stop(EndReason.CLIENT_LOST)
        else:
            self._session.stop(EndReason.CLIENT_CLOSED, close_code=code)

    async def keep_alive(self) -> None:
        """Finds a peer that is gone without a word. Its session ended with the last byte that came from it."""
        while True:
            # Counted from the last byte: a peer that goes between a ping and its pong would get a whole round more.
            await trio.sleep_until(self._stream.last_received + self._settings.ping_interval)
            asked = trio.current_time()
            try:
                with trio.move_on_after(max(self._settings.ping_timeout - STALL_SECONDS, 0.0)) as limit:
                    await self._ws.ping()
            except ConnectionClosed:
                return  # the reader is told so too, and knows better why
            if limit.cancelled_caught:
                # A stall of our own may have eaten the wait: the ping may not have left, the pong not been read.
                await trio.sleep(STALL_SECONDS)
            if limit.cancelled_caught and self._stream.last_received <= asked:
                self._session.stop(EndReason.CLIENT_VANISHED, ended=self._stream.last_received)
