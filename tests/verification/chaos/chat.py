"""One WebSocket of a chaos client, with as little around it as there can be, and its lines for the ledger."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections import deque
from contextlib import suppress
from typing import Any

import msgspec
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

FAREWELL_SECONDS = 2.0
READ_BYTES = 65_536
ABNORMAL = 1006  # no close frame came
UNMASKED = b"\x81\x02hi"  # clients must mask


class Gone(Exception):
    """The server ended the connection. `code`: of its close frame, 0 for none."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def note(what: str, who: str | int, *rest: object, at: float | None = None) -> None:
    """One line, in one write: a process that is killed leaves no torn line and no buffered one. at: default, now."""
    os.write(1, msgspec.json.encode([what, who, at or time.time(), *rest]) + b"\n")


class Chat:
    """One WebSocket."""

    def __init__(self, stream: trio.SocketStream, visit: str, log_sends: bool) -> None:
        self._stream = stream
        self._visit = visit
        self._log_sends = log_sends
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._messages: deque[dict[str, Any]] = deque()
        self._text = ""
        self._accepted = False

    async def open(self, host: str, path: str) -> None:
        await self._send_bytes(self._encode(Request(host=host, target=path)))
        while not self._accepted:
            await self._read()

    async def send(self, event: dict[str, Any]) -> None:
        await self._send(TextMessage(json.dumps(event)))

    async def _send(self, event: Event) -> None:
        data = self._encode(event)
        if self._log_sends:
            note("sending", self._visit)
        await self._send_bytes(data)
        if self._log_sends:
            note("sent", self._visit)

    def _encode(self, event: Event) -> bytes:
        try:
            return self._protocol.send(event)
        except LocalProtocolError:  # the other side has closed meanwhile
            raise Gone(0) from None

    async def _send_bytes(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Gone(0) from None

    async def receive(self) -> dict[str, Any]:
        """The next event. Raises `Gone`."""
        while not self._messages:
            await self._read()
        return self._messages.popleft()

    async def _read(self) -> None:
        try:
            data = await self._stream.receive_some(READ_BYTES)
            self._protocol.receive_data(data or None)
            events = list(self._protocol.events())
        except (trio.BrokenResourceError, trio.ClosedResourceError, RemoteProtocolError):
            raise Gone(0) from None
        # Whoever stops listening in this very moment may not swallow a ping that was read already.
        with trio.move_on_after(FAREWELL_SECONDS, shield=True):
            for event in events:
                await self._handle(event)

    async def _handle(self, event: Event) -> None:
        match event:
            case AcceptConnection():
                self._accepted = True
            case TextMessage():
                self._text += event.data
                if event.message_finished:
                    self._messages.append(msgspec.json.decode(self._text))
                    self._text = ""
            case Ping():
                await self._send(event.response())
            case CloseConnection(code=code):
                if code != ABNORMAL:
                    with suppress(Gone):
                        await self._send(event.response())
                raise Gone(0 if code == ABNORMAL else int(code))
            case RejectConnection():
                raise Gone(0)

    async def leave(self, how: str) -> None:
        """Ends the connection in one of `plan.ENDINGS`. Notes that it is about to, and then when that left.

        The first note wakes the harness, which has the processor before us: what is measured begins after it.
        """
        note("leaving", self._visit, how)
        last = self._last_bytes(how)
        began = time.time()
        if last:
            await self._send_bytes(last)
        elif how == "fin":
            await self._stream.aclose()
        else:
            self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._stream.socket.close()
        note("left", self._visit, began)
        if last:
            with trio.move_on_after(FAREWELL_SECONDS):
                while True:
                    await self.receive()

    def _last_bytes(self, how: str) -> bytes:
        """Empty for an end without a word."""
        if how in ("reset", "fin"):
            return b""
        return UNMASKED if how == "garbage" else self._encode(CloseConnection(code=1000))
