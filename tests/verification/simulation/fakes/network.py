"""Connections without sockets: bounded buffers, torn writes, FIN, RST, and peers that vanish without a word."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio
from lastcall.transport.direct import DirectStream
from wsproto.frame_protocol import Opcode

HEAD_END = b"\r\n\r\n"
HEAD = -1  # in place of an opcode: the response to the handshake
DOWN_BYTES_MAX = 16_384  # that a kernel buffers for a peer that does not read
UP_BYTES_MAX = 65_536

Frame = tuple[int, bytes]
"""Opcode (or HEAD) and payload."""


def masked_frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame. The mask is zero: legal, and the payload stays readable."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65_536:
        head = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + b"\0\0\0\0" + payload


class FrameReader:
    """Splits a server's bytes into the handshake's response and frames, however they arrive."""

    def __init__(self) -> None:
        self._rest = b""
        self._headed = False

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        self._rest += data
        frames: list[Frame] = []
        if not self._headed:
            end = self._rest.find(HEAD_END) + len(HEAD_END)
            if end < len(HEAD_END):
                return frames
            self._headed = True
            frames.append((HEAD, self._rest[:end]))
            self._rest = self._rest[end:]
        self._cut(frames)
        return frames

    def _cut(self, frames: list[Frame]) -> None:
        data, at = self._rest, 0
        while at + 2 <= len(data):
            size, start = data[at + 1], at + 2
            if size >= 126:
                start = at + (4 if size == 126 else 10)
                size = int.from_bytes(data[at + 2 : start], "big")
            end = start + size
            if end > len(data):
                break
            frames.append((data[at] & 0x0F, data[start:end]))
            at = end
        self._rest = data[at:]


class Wire:
    """One connection. The client's side is its methods; the server's side is `ServerEnd`.

    What the server sends is seen at once by `on_frame`, so that its time is exact. The client takes frames later, and
    until it does, their bytes count against `down_bytes_max`.

    ended, ended_at: what the server's side did to the connection (None, "fin" or "reset"), and when.
    full_at: since when the client's buffer has no room. delivered_at: when the client sent its last byte.
    """

    def __init__(self, on_frame: Callable[[Frame], None], on_end: Callable[[str], None]) -> None:
        self.frames: deque[Frame] = deque()
        self.down_bytes_max = DOWN_BYTES_MAX
        self.ended: str | None = None
        self.ended_at = 0.0
        self.full_at: float | None = None
        self.delivered_at = trio.current_time()
        self._on_frame = on_frame
        self._on_end = on_end
        self._reader = FrameReader()
        self._unread_bytes = 0
        self._up = bytearray()
        self._up_eof = False
        self._reset = False
        self._for_server = trio.lowlevel.ParkingLot()
        self._for_client = trio.lowlevel.ParkingLot()

    # --- the client's side

    def send(self, data: bytes) -> None:
        """Delivers bytes; they are lost if the connection is over or the server's buffer is full."""
        if data and self.ended != "reset" and not self._up_eof and not self._reset and len(self._up) <= UP_BYTES_MAX:
            self._up += data
            self.delivered_at = trio.current_time()
            self._for_server.unpark_all()

    def fin(self) -> None:
        self._up_eof = True
        self._for_server.unpark_all()

    def reset(self) -> None:
        self._reset = True
        self._for_server.unpark_all()

    def take(self) -> Frame | None:
        """Takes the next frame, if there is one. The last one empties the buffer."""
        if self.frames:
            frame = self.frames.popleft()
            if not self.frames:
                self.drain()
            return frame
        self.drain()
        return None

    def drain(self) -> None:
        """The client has read all bytes that were sent so far."""
        if self._unread_bytes:
            self._unread_bytes, self.full_at = 0, None
            self._for_server.unpark_all()

    async def news(self) -> None:
        """Returns when there may be a frame to take, or the connection has ended."""
        if not self.frames and self.ended is None:
            await self._for_client.park()

    def wake(self) -> None:
        self._for_client.unpark_all()

    # --- the server's side

    def end(self, how: str) -> None:
        """The server's side was closed, or its process is gone."""
        if self.ended is None:
            self.ended, self.ended_at = how, trio.current_time()
            self._on_end(how)
        elif how == "reset":
            self.ended = how
        self._for_client.unpark_all()
        self._for_server.unpark_all()

    def _deliver(self, data: memoryview) -> int:
        """Takes as much as there is room for. Returns the number of bytes."""
        taken = data[: max(self.down_bytes_max - self._unread_bytes, 0)]
        if taken:
            self._unread_bytes += len(taken)
            for frame in self._reader.feed(taken):
                self._on_frame(frame)
                self.frames.append(frame)
            self._for_client.unpark_all()
        if len(taken) < len(data) and self.full_at is None:
            self.full_at = trio.current_time()
        return len(taken)


class ServerEnd(DirectStream):
    """The server's side of a wire. Like `trio.SocketStream`, it has one checkpoint where it need not wait."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._closed = False

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        if self._wire._reset or self._wire.ended == "reset":
            raise trio.BrokenResourceError

    def send_now(self, data: bytes | bytearray | memoryview) -> int:
        return self._take(memoryview(bytes(data)))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        rest, waited = memoryview(data), False
        while rest := rest[self._take(rest) :]:
            await self._wire._for_server.park()
            waited = True
        if not waited:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _take(self, data: memoryview) -> int:
        self._check()
        if self._wire.ended is not None:
            raise trio.BrokenResourceError
        return self._wire._deliver(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        wire, waited = self._wire, False
        while not self._readable():
            await wire._for_server.park()
            waited = True
        data = bytes(wire._up[:max_bytes])
        del wire._up[:max_bytes]
        if not waited:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return data

    def _readable(self) -> bool:
        self._check()
        return bool(self._wire._up) or self._wire._up_eof

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check()
        self._wire.end("fin")

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Closes the socket; with unread input, the peer sees a reset."""
        if not self._closed:
            self._closed = True
            self._wire.end("reset" if self._wire._up else "fin")


class MemoryListener(trio.abc.Listener[ServerEnd]):
    """The listener of a simulated server."""

    def __init__(self) -> None:
        self._backlog: deque[ServerEnd] = deque()
        self._waiting = trio.lowlevel.ParkingLot()
        self.open = True

    def connect(self, wire: Wire) -> bool:
        """Queues a connection. Returns False once the listener is closed."""
        if self.open:
            self._backlog.append(ServerEnd(wire))
            self._waiting.unpark()
        return self.open

    async def accept(self) -> ServerEnd:
        await trio.lowlevel.checkpoint()
        while not self._backlog:
            await self._waiting.park()
        return self._backlog.popleft()

    async def aclose(self) -> None:
        self.open = False
        while self._backlog:
            self._backlog.popleft()._wire.end("reset")
        await trio.lowlevel.checkpoint()


TEXT, CLOSE, PING, PONG = Opcode.TEXT.value, Opcode.CLOSE.value, Opcode.PING.value, Opcode.PONG.value
