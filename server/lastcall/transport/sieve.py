"""Takes whole text messages out of a WebSocket's bytes before the libraries see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import trio
from wsproto import WSConnection
from wsproto.connection import ConnectionState

from .frame_pace import FramePace
from .frames import read_text_frame
from .stream import BufferedStream

Take: TypeAlias = Callable[[str | bytes], object]


class Sieve(trio.abc.Stream):
    """The stream as trio-websocket sees it: without whole text messages, which go straight to `take` once it is set."""

    __slots__ = ("_message_bytes_max", "_pace", "_stream", "_wsproto", "take")

    def __init__(self, stream: BufferedStream, wsproto: WSConnection, message_bytes_max: int, pace: FramePace) -> None:
        self._stream = stream
        self._wsproto = wsproto
        self._message_bytes_max = message_bytes_max
        self._pace = pace
        self.take: Take | None = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while data := await self._stream.receive(max_bytes):
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
