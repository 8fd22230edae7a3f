"""A buffered byte stream whose senders never wait in the transport, so that cancelling one never tears a frame."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import trio

from .direct import DirectStream
from .flusher import Flusher
from .receiving import Receiving

CHUNK_BYTES = 16_384
LINGER_SECONDS = 2.0  # for the peer to read our last bytes before the socket closes


class BufferedStream(Receiving, trio.abc.HalfCloseableStream):
    """Wraps a transport for the protocol libraries above it.

    `put` and `send_all` only append to a buffer: a sender that is cancelled leaves whole frames behind. The flusher
    empties it once nobody adds to it; a task does, where a socket does not take all at once, and where the transport is
    no plain socket (TLS). `aclose`, which the libraries call, ends only their use of the stream; `finish` flushes it.

    tasks: where that task runs. It must stay open until `close_now`.
    flusher: runs for as long as this stream is used.
    send_seconds: how long sending one chunk may take before the peer is disconnected as `stalled`.
    bytes_high: pending bytes above which `room` and `send_all` wait.
    bytes_max: pending bytes above which the peer is disconnected as `stalled`.
    """

    def __init__(
        self,
        transport: trio.abc.HalfCloseableStream,
        tasks: trio.Nursery,
        flusher: Flusher,
        *,
        send_seconds: float,
        bytes_high: int,
        bytes_max: int,
    ) -> None:
        super().__init__(transport)
        self._tasks = tasks
        self._send_now = transport.send_now if isinstance(transport, DirectStream) else None
        self._flusher = flusher
        self._send_seconds = send_seconds
        self._bytes_high = bytes_high
        self._bytes_max, self._bytes_few = bytes_max, min(CHUNK_BYTES, bytes_max)
        self._pending = bytearray()
        self._writing = False  # a task is at it
        self._drained: trio.Event | None = None  # for those who wait for room
        self._sending: trio.CancelScope | None = None  # of a chunk that the socket did not take at once
        self._over = self._finished = self.broken = self.stalled = False
        self._held: Callable[[int], object] = int
        self._counted = 0  # of the pending bytes, by `_held`

    @property
    def socket(self) -> Any:
        """The transport's socket, from which Hypercorn reads the addresses."""
        return self._transport.socket  # type: ignore[attr-defined]

    @property
    def open(self) -> bool:
        """Whether bytes can still be sent."""
        return not (self._closed or self.broken)

    def put(self, data: bytes) -> None:
        """Queues bytes; drops them if the stream is closed or broken."""
        if not data or self._closed or self.broken:
            return
        self._pending += data
        if self._writing or len(self._pending) > self._bytes_few:
            self._count()
            if len(self._pending) > self._bytes_max:
                self._stall()
        if not self._writing:
            self._flusher.add(self)

    def _stall(self) -> None:
        self.stalled = self.broken = True
        if self._sending is not None:
            self._sending.cancel()

    def put_now(self, data: bytes) -> None:
        """Queues bytes, and sends what the socket takes: the flusher may have thousands to send for first."""
        self.put(data)
        self.flush()

    def count_bytes(self, held: Callable[[int], object]) -> None:
        """Calls `held` with the pending bytes, and with their changes: not for frames that are sent in a moment."""
        self._held, self._counted = held, 0
        self._count()

    def _count(self) -> None:
        if change := len(self._pending) - self._counted:
            self._held(change)
            self._counted += change

    async def room(self) -> None:
        """Waits until at most `bytes_high` is pending, or the stream is broken."""
        while len(self._pending) > self._bytes_high and not self.broken:
            await self._wait_drained()

    async def _wait_drained(self) -> None:
        if self._drained is None:
            self._drained = trio.Event()
        await self._drained.wait()

    def _tell_drained(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Queues bytes and waits for room in the buffer; returns before they are sent."""
        if self._closed or self.broken:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError if self._closed else trio.BrokenResourceError
        self.put(bytes(data))  # before the first checkpoint, so that a cancelled caller's close frame is still sent
        await trio.lowlevel.checkpoint()
        await self.room()

    async def wait_send_all_might_not_block(self) -> None:
        await self.room()

    async def send_eof(self) -> None:
        """Does nothing: `finish` sends EOF once the buffer is empty."""
        await trio.lowlevel.checkpoint()

    def flush(self) -> None:
        """Sends what the socket takes now, and leaves the rest, and a broken transport, to a task."""
        if self._over or self._writing or not (self._pending or self.broken):
            return
        if self._send_now is not None and not self.broken:
            try:
                self._sent(self._send_now(self._pending))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.broken = True
        if self._pending or self.broken:
            self._writing = True
            self._tasks.start_soon(self._write)

    async def _write(self) -> None:
        """Writes until nothing is pending; closes the transport when it breaks, or this is cancelled."""
        try:
            while self._pending and not self.broken:
                await self._send_in_time()
            self._writing = False
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.broken = True
        finally:
            if self._writing:
                self.broken = True
            self._tell_drained()
        if self.broken:
            await trio.aclose_forcefully(self._transport)

    async def _send_in_time(self) -> None:
        """Sends chunks until one takes longer than `send_seconds`.

        A process that was stopped (SIGSTOP) can wake up with the chunk sent and its deadline passed. That cancels the
        scope but not the send, and the caller starts a new scope.
        """
        with trio.CancelScope() as self._sending:
            scope = self._sending
            while self._pending and not scope.cancel_called:
                scope.deadline = trio.current_time() + self._send_seconds
                chunk = bytes(self._pending[:CHUNK_BYTES])
                await self._transport.send_all(chunk)
                self._sent(len(chunk))
                scope.deadline = inf
        if scope.cancelled_caught:
            self.stalled = self.broken = True
        self._sending = None

    def _sent(self, size: int) -> None:
        del self._pending[:size]
        self._count()
        if size:
            self._tell_drained()

    async def aclose(self) -> None:
        """Stops further use by the library, and wakes a waiting `receive_some`. `finish` still sends."""
        self._end_use()
        await trio.lowlevel.checkpoint()

    async def close_now(self) -> None:
        """Closes the transport at once, with what is pending unsent. Also in a cancelled scope; never waits."""
        self.broken = self._over = True
        if isinstance(self._transport, DirectStream):
            self._transport.close()
            return
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self._transport)

    async def finish(self, farewell: bytes = b"", *, linger: bool = True) -> None:
        """Flushes the buffer and `farewell`, sends EOF and lingers while the peer reads.

        Ends the library's use, as `aclose` does; a second call does nothing. Bounded by `send_seconds` and
        `LINGER_SECONDS`. Closing a socket with unread input resets it, and the peer could lose our last bytes; so its
        input is read and discarded first.

        linger: False where the peer sends nothing more: closes at once, but for TLS, which has an end.
        """
        if self._finished:
            return
        self._finished = True
        self._closed = False
        self.put(farewell)
        self._end_use()
        await self._drain()
        if self._pending:
            # A task may still write to the transport, which must not be used by two: no EOF.
            self._stall()
        elif linger or not isinstance(self._transport, DirectStream):
            await self._linger()
        else:
            await self.close_now()

    async def _drain(self) -> None:
        """Returns when all is sent, at the latest after `send_seconds`."""
        self.flush()
        if self._pending:
            with trio.move_on_after(self._send_seconds):
                while self._pending and not self.broken:
                    await self._wait_drained()

    async def _linger(self) -> None:
        with trio.move_on_after(LINGER_SECONDS):
            try:
                await self._transport.send_eof()
                await self._wait_received()  # the library's reader may wait for bytes, which are read here from then on
                while await self._transport.receive_some(CHUNK_BYTES):
                    pass
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
