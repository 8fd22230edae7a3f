"""Reads one session's socket: its messages, and its close with the end reason that it means."""

from __future__ import annotations

from ..limits.limit import Limit
from ..limits.memory import json_bytes
from ..limits.session_limits import SessionLimits
from ..protocol.client_events import AnyClientEvent, EventRejected, TooComplex
from ..protocol.errors import MEMORY_FULL, Error, error_event
from ..protocol.json_bounds import JsonBounds
from ..protocol.parsing import event_id_of, parse_event
from ..sessions.session import Session
from ..store.records import EndReason
from ..transport.frames import close_frame
from ..transport.stream import BufferedStream
from ..transport.websocket import WebSocket
from .mailbox import Inbox, Outbox
from .services import Services

EVENT_BYTES_SMALL = 16_384  # such an event is parsed even where memory is short: it may free some, or ask for little


class Reader:
    """farewell: the last bytes for the peer, where the library left the connection without a close frame."""

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
        self._bounds = JsonBounds(services.settings.json_values_max, services.settings.json_depth_max)
        self._gate = services.gate

    def start(self, inbox: Inbox) -> None:
        """From now on, messages go to the inbox; the socket's end stops the session.

        Never waits for anything else, because pongs are read here too.
        """
        self._inbox = inbox
        self._ws.deliver(self._take, self._stop_as_closed)

    def _take(self, message: str | bytes) -> None:
        """The way in: admitted by rate, parsed once, put into the inbox. Rejected events too, to keep the order."""
        if self._session.reason is not None:
            return
        wait = self._limits.admit(len(message))
        if wait is not None:
            text = f"Too many events. Please try again in {wait:.3f} s."
            self._refuse(Limit.EVENT_RATE, error_event("rate_limit_exceeded", text, event_id=event_id_of(message)))
            if self._limits.flooding:
                self._gate.count(Limit.FLOODING)
                self._session.stop(EndReason.FLOODING)
            return
        held = json_bytes(message)
        if held > EVENT_BYTES_SMALL and self._session.memory.refuses(held):
            self._refuse(Limit.MEMORY, error_event("conversation_full", MEMORY_FULL, event_id=event_id_of(message)))
            return
        event = self._parsed(message)
        if not self._inbox.put(event, len(message), held):
            text = "Too many events are waiting; this one was dropped."
            self._refuse(Limit.INBOX, error_event("too_many_events", text, event_id=event.event_id))

    def _parsed(self, message: str | bytes) -> AnyClientEvent | EventRejected:
        try:
            return parse_event(message, self._bounds)
        except EventRejected as rejection:
            if isinstance(rejection, TooComplex):
                self._gate.count(Limit.JSON_SHAPE)
            return rejection

    def _refuse(self, limit: Limit, error: Error) -> None:
        self._gate.count(limit)
        self._outbox.emit(error)

    def stop_as_late(self) -> None:
        """Tells the client which time is up, and ends the session unless it was stopped already."""
        if self._session.reason is None:
            up = self._limits.time_is_up()
            if up.limit is not None:
                self._gate.count(up.limit)
            self._outbox.emit(up.told)
            self._session.stop(up.reason, close_code=up.close_code)

    def _stop_as_closed(self) -> None:
        """Ends the session with the reason for which its socket is closed."""
        closed = self._ws.closed
        code = closed.code if closed is not None else 1006
        if self._ws.crashed:
            self._session.stop(EndReason.SERVER_ERROR)
        elif self._stream.stalled:
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
