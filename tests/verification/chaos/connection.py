"""One WebSocket of a chaos client, as thin as possible, and the lines that it writes for the ledger."""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
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

from ..starvation import Heartbeat

FAREWELL_SECONDS = 2.0
READ_BYTES = 65_536
ABNORMAL = 1006  # no close frame came
UNMASKED = b"\x81\x02hi"  # clients must mask
SO_TIMESTAMPNS = 35  # Linux; Python's socket module does not name it
TIMESPEC = struct.Struct("@ll")
ANCILLARY_BYTES = 64


class Arrival(NamedTuple):
    """When something reached this machine's side of the socket: between two moments, in Unix seconds."""

    earliest: float
    latest: float


class Gone(Exception):
    """The server ended the connection. code: of its close frame, 0 for none."""

    def __init__(self, code: int, arrival: Arrival) -> None:
        super().__init__(code)
        self.code = code
        self.arrival = arrival


def note(kind: str, subject: str | int, *rest: object, at: float | None = None) -> None:
    """Writes one line in one write, so that a killed process leaves no torn or buffered line. at: now by default."""
    os.write(1, msgspec.json.encode([kind, subject, at or time.time(), *rest]) + b"\n")


class ClientConnection:
    """One WebSocket. `arrival`: of the event that `receive` returned last."""

    def __init__(self, stream: trio.SocketStream, visit: str, heartbeat: Heartbeat, *, log_sends: bool) -> None:
        self._stream = stream
        self._visit = visit
        self._heartbeat = heartbeat
        self._log_sends = log_sends
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._messages: deque[tuple[dict[str, Any], Arrival]] = deque()
        self._text = ""
        self._accepted = False
        self.arrival = self._unstamped()
        # The kernel says when bytes arrived, however late this process gets to read them.
        if sys.platform == "linux":
            stream.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

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
        except LocalProtocolError:  # the server has closed meanwhile
            raise Gone(0, self._unstamped()) from None

    async def _send_bytes(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Gone(0, self._unstamped()) from None

    async def receive(self) -> dict[str, Any]:
        """Returns the next event. Raises `Gone`."""
        while not self._messages:
            await self._read()
        event, self.arrival = self._messages.popleft()
        return event

    async def _read(self) -> None:
        try:
            data, arrival = await self._receive_bytes()
            self._protocol.receive_data(data or None)
            events = list(self._protocol.events())
        except (OSError, trio.ClosedResourceError, RemoteProtocolError):
            raise Gone(0, self._unstamped()) from None
        # A timeout that strikes in this very moment must not swallow a ping that was read already.
        with trio.move_on_after(FAREWELL_SECONDS, shield=True):
            for event in events:
                await self._handle(event, arrival)

    async def _receive_bytes(self) -> tuple[bytes, Arrival]:
        """Reads once. Of several segments the kernel stamps the last: no byte is said to be older than it is.

        An acknowledgement that shares a read with a later segment gets the later stamp; that segment left the server
        after the bound as well, so the server is late in any case.
        """
        data, ancillary, _, _ = await self._stream.socket.recvmsg(READ_BYTES, ANCILLARY_BYTES)
        for level, kind, stamp in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS) and len(stamp) == TIMESPEC.size:
                seconds, nanoseconds = TIMESPEC.unpack(stamp)
                at = seconds + nanoseconds / 1e9
                return data, Arrival(at, at)
        return data, self._unstamped()

    def _unstamped(self) -> Arrival:
        """What arrived without a stamp came after this process last ran for certain, and before now."""
        return Arrival(self._heartbeat.last, time.time())

    async def _handle(self, event: Event, arrival: Arrival) -> None:
        match event:
            case AcceptConnection():
                self._accepted = True
            case TextMessage():
                self._text += event.data
                if event.message_finished:
                    self._messages.append((msgspec.json.decode(self._text), arrival))
                    self._text = ""
            case Ping() if self._protocol.state is ConnectionState.OPEN:  # no pong may follow a close frame
                await self._send(event.response())
            case CloseConnection(code=code):
                if code != ABNORMAL:
                    with suppress(Gone):
                        await self._send(event.response())
                raise Gone(0 if code == ABNORMAL else int(code), arrival)
            case RejectConnection():
                raise Gone(0, arrival)

    async def leave(self, ending: str) -> None:
        """Ends the connection as `plan.Behaviour.ending` says. Notes that it is about to, and then that it did.

        The first note wakes the harness, which gets the processor before us: what is measured begins after it.
        """
        note("leaving", self._visit, ending)
        last = self._last_bytes(ending)
        began = time.time()
        if last:
            await self._send_bytes(last)
        elif ending == "fin":
            await self._stream.aclose()
        else:
            self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._stream.socket.close()
        note("left", self._visit, began)
        if last:
            with trio.move_on_after(FAREWELL_SECONDS):
                while True:
                    await self.receive()

    def _last_bytes(self, ending: str) -> bytes:
        """Empty for an end without a frame."""
        if ending in ("reset", "fin"):
            return b""
        return UNMASKED if ending == "garbage" else self._encode(CloseConnection(code=1000))
