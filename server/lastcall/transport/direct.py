"""Sockets that also send without waiting: one system call, and no step of the scheduler."""

from __future__ import annotations

import errno
import os
import socket
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress

import structlog
import trio

BACKLOG_CONNECTIONS = 1024  # that wait to be accepted
RECEIVE_BYTES_MAX = 65_536
ACCEPT_RETRY_SECONDS = 0.1  # where there is no room for one more connection
ACCEPTS_PER_STEP = 16  # of the loop: after so many, other tasks run
UNSENT_BYTES_MAX = 16_384  # in the kernel, beyond what is under way: what is queued there cannot be taken back


# What `accept` says of a connection that has left meanwhile, or of its network (accept(2)), on any system.
_GONE = {
    getattr(errno, name, 0)
    for name in (
        "EPERM", "ECONNABORTED", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET", "EHOSTUNREACH",
        "EOPNOTSUPP", "ENETUNREACH", "ENOSR", "ETIMEDOUT",
    )
}  # fmt: skip


# The process or the kernel has no descriptor or memory for one more.
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_log = structlog.get_logger(__name__)


class DirectStream(trio.abc.HalfCloseableStream):
    """A stream that can be asked to take bytes at once. address: of the peer; empty where it is not known."""

    address = ""

    @abstractmethod
    def send_now(self, data: bytes | bytearray | memoryview) -> int:
        """Sends as many bytes as the peer's buffers take; never waits. Not while a `send_all` is under way.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: As `send_all`.
        """

    @abstractmethod
    def close(self) -> None:
        """Closes at once: `aclose` without a step of the scheduler. Harmless where it is closed."""


class DirectSocketStream(DirectStream):
    """A connected TCP socket. `trio.SocketStream` would be three more objects, and a step more for most calls."""

    __slots__ = ("address", "socket")

    def __init__(self, connected: socket.socket, address: str = "") -> None:
        self.socket = connected
        self.address = address
        connected.setblocking(False)

    def send_now(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return os.write(self._descriptor(), data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError from error

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Waits, then receives: `trio.SocketStream` asks the kernel before too, and mostly in vain."""
        while True:
            await trio.lowlevel.wait_readable(self._descriptor())
            try:
                return os.read(self._descriptor(), max_bytes or RECEIVE_BYTES_MAX)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError from error

    def _descriptor(self) -> int:
        """Asked for each time: the number of a socket that was closed may soon be another one's."""
        descriptor = self.socket.fileno()
        if descriptor < 0:
            raise trio.ClosedResourceError
        return descriptor

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest := rest[self.send_now(rest) :]:
            await trio.lowlevel.wait_writable(self._descriptor())

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.wait_writable(self._descriptor())

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise (trio.ClosedResourceError if self.socket.fileno() < 0 else trio.BrokenResourceError) from error

    def close(self) -> None:
        """Whoever waits for this socket gets a `trio.ClosedResourceError`."""
        if self.socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


class DirectListener(trio.abc.Listener[DirectStream]):
    """A listening TCP socket, whose connections send directly.

    is_shared: whether other processes accept from it, or will: then what waits in its queue is theirs.
    """

    def __init__(self, listening: socket.socket, *, is_shared: bool = False) -> None:
        self.socket = listening
        self._is_shared = is_shared
        self._accepted = 0  # in this step
        # Connections inherit both. Without the second, slow readers would keep megabytes in the kernel.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX)

    async def accept(self) -> DirectStream:
        """Raises `OSError` where the process or the kernel can have no further socket."""
        while True:
            if self._accepted % ACCEPTS_PER_STEP == 0:
                await trio.lowlevel.wait_readable(self.socket)
            self._accepted += 1
            try:
                connected, address = self.socket.accept()
            except BlockingIOError:  # all are accepted
                self._accepted = 0
            except OSError as error:
                self._accepted = 0
                if error.errno not in _GONE:
                    raise
            else:
                return DirectSocketStream(connected, str(address[0]))

    def waiting(self, *, is_last: bool) -> Iterator[DirectStream]:
        """The connections in its queue, without waiting for more. None where others accept them.

        is_last: of those that share it.
        """
        with suppress(OSError):
            for _ in range(0 if self._is_shared and not is_last else BACKLOG_CONNECTIONS):
                connected, address = self.socket.accept()
                yield DirectSocketStream(connected, str(address[0]))

    async def aclose(self) -> None:
        if self.socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()
        await trio.lowlevel.checkpoint()


async def accept_all(
    listener: trio.abc.Listener[DirectStream],
    serve: Callable[[DirectStream], object],
    is_last: Callable[[], bool] = lambda: False,
) -> None:
    """Accepts until cancelled, then closes the listener.

    serve: must be quick. is_last: of the processes that share the listener; asked then.
    """
    async with listener:
        try:
            while True:
                try:
                    accepted = await listener.accept()
                except OSError as error:
                    if error.errno not in _NO_ROOM:
                        raise
                    _log.error("accept_failed", error=str(error), retry_seconds=ACCEPT_RETRY_SECONDS)
                    await trio.sleep(ACCEPT_RETRY_SECONDS)
                else:
                    serve(accepted)
        finally:
            # Closing resets what waits in the queue, though its client is connected, and may have sent a request that
            # no proxy sends a second time.
            if isinstance(listener, DirectListener):
                for waiting in listener.waiting(is_last=is_last()):
                    serve(waiting)
