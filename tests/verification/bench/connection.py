"""One connection of the load: bytes in, bytes out, and whose they are."""

from __future__ import annotations

import errno
import itertools
import selectors
import socket
import sys
from typing import TYPE_CHECKING, Protocol

from .framing import CLOSE, PING, BadAnswer, close_frame, parse, pong_frame, request, upgraded

if TYPE_CHECKING:
    from .load import Load

HEAD_END = b"\r\n\r\n"
READ_BYTES = 262_144
# Ports of one address run out, as each is kept for a minute after its connection.
ADDRESSES = itertools.cycle([f"127.0.0.{number}" for number in range(2, 34)] if sys.platform == "linux" else [""])
IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; the socket module of Python 3.11 does not have it


class Owner(Protocol):
    """What the frames of a connection are for."""

    def texts(self, connection: Connection, count: int, last: bytes) -> None:
        """Some text frames came, the last one with this payload."""

    def closed(self, connection: Connection) -> None:
        """The server closed the connection, with `connection.close_code`."""


class Nobody:
    """Owns connections that are idle."""

    def texts(self, connection: Connection, count: int, last: bytes) -> None:
        raise BadAnswer(f"nobody waits for this: {last[:200]!r}")

    def closed(self, connection: Connection) -> None:
        raise BadAnswer(f"the server closed an idle connection with {connection.close_code}")


NOBODY = Nobody()


class Connection:
    """Connects and asks for the WebSocket at once; a pong or a close frame is answered whoever owns it.

    began, left and turns belong to the owner. close_code: of the server's close frame; 0: none came.
    """

    __slots__ = ("_head", "_load", "_request", "_rest", "_socket", "began", "close_code", "left", "owner", "turns")

    def __init__(self, load: Load, owner: Owner, port: int, user: str) -> None:
        self.owner = owner
        self.began, self.left, self.turns, self.close_code = 0.0, 0, 0, 0
        self._load = load
        self._rest, self._head = b"", True
        self._request = request(port, user)
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address := next(ADDRESSES):
            self._socket.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            self._socket.bind((address, 0))
        if self._socket.connect_ex(("127.0.0.1", port)) not in (0, errno.EINPROGRESS):
            raise BadAnswer("the server refused a connection")
        load.selector.register(self._socket, selectors.EVENT_WRITE, self._connected)

    def send(self, data: bytes) -> None:
        """Sends all of a few bytes: a socket that does not take them at once is an error."""
        if self._socket.send(data) != len(data):
            raise BadAnswer("the server does not read")

    def drop(self) -> None:
        """Closes the socket."""
        self._load.selector.unregister(self._socket)
        self._socket.close()

    def _connected(self, mask: int) -> None:
        if error := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise BadAnswer(f"a connection failed: {errno.errorcode[error]}")
        self.send(self._request)
        self._load.selector.modify(self._socket, selectors.EVENT_READ, self._readable)

    def _readable(self, mask: int) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except ConnectionResetError:
            data = b""
        if not data:
            self.drop()
            self.owner.closed(self)
            return
        data = self._rest + data if self._rest else data
        if self._head:
            head, end, data = data.partition(HEAD_END)
            if not end:
                self._rest = head
                return
            if not upgraded(head):
                raise BadAnswer(f"the server refused a handshake: {head[:200]!r}")
            self._head = False
        texts, last, control, self._rest = parse(data)
        for first, payload in control:
            self._answer(first, payload)
        if texts:
            self.owner.texts(self, texts, last)

    def _answer(self, first: int, payload: bytes) -> None:
        if first == PING:
            self.send(pong_frame(payload))
        elif first == CLOSE and not self.close_code:
            self.close_code = int.from_bytes(payload[:2], "big")
            self.send(close_frame(payload[:2]))

    def close(self) -> None:
        """Sends a close frame; `owner.closed` is called once the server has closed as well."""
        self.close_code = -1  # the server's close frame is the answer, and gets none
        self.send(close_frame())
