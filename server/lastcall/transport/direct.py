"""Sockets that also send without waiting: one system call, and no step of the scheduler."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any

import trio

RECEIVE_BYTES_MAX = 65_536


class DirectStream(trio.abc.HalfCloseableStream):
    """A stream that can be asked to take bytes at once."""

    @abstractmethod
    def send_now(self, data: bytes | bytearray) -> int:
        """Sends as many bytes as the peer's buffers take; never waits. Not while a `send_all` is under way.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: As `send_all`.
        """

    @abstractmethod
    def close(self) -> None:
        """Closes at once: `aclose` without a step of the scheduler. Harmless where it is closed."""


class DirectSocketStream(DirectStream):
    """`trio.SocketStream`, sending and receiving directly."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    @property
    def socket(self) -> Any:
        return self._stream.socket

    def send_now(self, data: bytes | bytearray) -> int:
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
        descriptor: int = self._stream.socket.fileno()
        if descriptor < 0:
            raise trio.ClosedResourceError
        return descriptor

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    def close(self) -> None:
        self._stream.socket.close()

    async def aclose(self) -> None:
        await self._stream.aclose()


class DirectListener(trio.abc.Listener[DirectStream]):
    """`trio.SocketListener`, whose connections send directly."""

    def __init__(self, socket: trio.socket.SocketType) -> None:
        self.socket = socket
        self._listener = trio.SocketListener(socket)

    async def accept(self) -> DirectStream:
        return DirectSocketStream(await self._listener.accept())

    async def aclose(self) -> None:
        await self._listener.aclose()


def peer_address(stream: Any) -> str:
    """The address at the other end of a stream's socket; empty where it is not known."""
    try:
        address = stream.socket.getpeername()
    except (OSError, AttributeError):  # it is gone already; or a test's stream, which has no socket
        return ""
    return str(address[0]) if isinstance(address, tuple) else ""
