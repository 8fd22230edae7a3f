"""Takes whole text messages out of a WebSocket's bytes before the libraries see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from .frame_pace import FramePace
from .frames import read_text_frame
from .open_connection import OpenConnection
from .stream import BufferedStream

Take: TypeAlias = Callable[[str | bytes], object]


class Sieve:
    """Receives what is left for wsproto: whole text messages go straight to `take` once it is set."""

    __slots__ = ("_message_bytes_max", "_pace", "_stream", "_wsproto", "take")

    def __init__(
        self, stream: BufferedStream, wsproto: OpenConnection, message_bytes_max: int, pace: FramePace
    ) -> None:
        self._stream = stream
        self._wsproto = wsproto
        self._message_bytes_max = message_bytes_max
        self._pace = pace
        self.take: Take | None = None

    async def receive(self, max_bytes: int) -> bytes:
        """Empty at the end of the stream. Raises what `BufferedStream.receive` raises."""
        while data := await self._stream.receive(max_bytes):
            if rest := await self._sift(data):
                return rest
        return b""

    async def _sift(self, data: bytes) -> bytes:
        """Takes the whole text messages that the bytes begin with; returns the rest, for wsproto."""
        at = 0
        while self.take is not None and (at or self._wsproto.between_messages):
            found = read_text_frame(data, at, self._message_bytes_max)
            if found is None:
                break
            message, at = found
            await self._pace.keep()
            self.take(message)
        return data[at:]
