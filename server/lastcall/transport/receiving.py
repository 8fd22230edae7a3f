"""The receiving side of a stream that more than one may read, one after the other."""

from __future__ import annotations

import trio


class Receiving:
    """For `BufferedStream`.

    last_received: when bytes last arrived, on Trio's clock. received: how many did so far.
    """

    def __init__(self, transport: trio.abc.HalfCloseableStream) -> None:
        self._transport = transport
        self._unread = b""
        self._closed = False
        self._waking: trio.CancelScope | None = None  # of a `receive_some`
        self._receiving = False
        self._received: trio.Event | None = None
        self.last_received = trio.current_time()
        self.received = 0

    def unread(self, data: bytes) -> None:
        """Pushes bytes back, to be received again."""
        self._unread = data + self._unread

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As `receive`, but `aclose` wakes it."""
        with trio.CancelScope() as self._waking:
            return await self.receive(max_bytes)
        raise trio.ClosedResourceError

    async def receive(self, max_bytes: int | None = None) -> bytes:
        """Receives for a reader that need not be woken by `aclose`, which would take a scope for each call.

        It may still wait when the stream is finished, and what it gets then is discarded.
        """
        if self._closed:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError
        if self._unread:
            await trio.lowlevel.checkpoint()
            size = len(self._unread) if max_bytes is None else max_bytes
            data, self._unread = self._unread[:size], self._unread[size:]
            return data
        self._receiving = True
        try:
            data = bytes(await self._transport.receive_some(max_bytes))
        finally:
            self._receiving = False
            if self._received is not None:
                self._received.set()
        if self._closed:
            raise trio.ClosedResourceError
        self.last_received = trio.current_time()
        self.received += len(data)
        return data

    def _end_use(self) -> None:
        self._closed = True
        if self._waking is not None:
            self._waking.cancel()

    async def _wait_received(self) -> None:
        """Returns when nobody else waits for bytes."""
        if self._receiving:
            self._received = trio.Event()
            await self._received.wait()
