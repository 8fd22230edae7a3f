"""wsproto's connection after an opening handshake that it has not seen."""

from __future__ import annotations

from collections.abc import Iterable

from wsproto import ConnectionType, WSConnection
from wsproto.connection import Connection, ConnectionState
from wsproto.events import Event


class OpenConnection(WSConnection):
    """Made in full when it is first needed: a session that talks in whole text messages needs it only to close."""

    def __init__(self) -> None:
        self.client = False
        self._made: Connection | None = None

    @property
    def state(self) -> ConnectionState:
        return ConnectionState.OPEN if self._made is None else self._made.state

    def send(self, event: Event) -> bytes:
        return bytes(self._connection().send(event))

    def receive_data(self, data: bytes | None) -> None:
        self._connection().receive_data(data)

    def events(self) -> Iterable[Event]:  # type: ignore[override]
        return () if self._made is None else self._made.events()

    @property
    def between_messages(self) -> bool:
        """Whether it is open, and the next byte begins a frame and a message. wsproto keeps that to itself."""
        if self._made is None:
            return True
        frames, messages = self._made._proto._frame_decoder, self._made._proto._message_decoder  # noqa: SLF001
        between = frames.header is None and not frames.buffer and messages.opcode is None
        return between and self._made.state is ConnectionState.OPEN

    def _connection(self) -> Connection:
        if self._made is None:
            self._made = Connection(ConnectionType.SERVER)
        return self._made
