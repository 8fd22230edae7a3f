"""The address of the server: bound before anything is started, and listening only once there is somebody to answer."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from socket import AI_PASSIVE, IPPROTO_IPV6, IPV6_V6ONLY, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET
from typing import Any

import trio

from ..config import Settings
from .direct import BACKLOG_CONNECTIONS, DirectListener


class CannotListen(Exception):
    """The address cannot be bound; the message is one line for the user."""


class Port:
    """A bound address. Until `listen`, whoever connects is refused at once.

    is_shared: whether other processes have the sockets, too.
    """

    def __init__(self, where: str, sockets: Sequence[socket.socket], *, is_shared: bool) -> None:
        self._where = where
        self._sockets = sockets
        self._is_shared = is_shared

    @property
    def hosts(self) -> list[str]:
        """The addresses, without their port."""
        return [each.getsockname()[0] for each in self._sockets]

    @property
    def descriptors(self) -> list[int]:
        return [each.fileno() for each in self._sockets]

    @property
    def number(self) -> int:
        number: int = self._sockets[0].getsockname()[1]
        return number

    def listen(self) -> Sequence[DirectListener]:
        """Lets clients connect. Raises `CannotListen`."""
        for each in self._sockets:
            try:
                each.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)  # inherited by connections: a next start may bind
                each.listen(BACKLOG_CONNECTIONS)
            except OSError as error:
                raise _refused(self._where, error) from error
        return [DirectListener(each, is_shared=self._is_shared) for each in self._sockets]

    def close(self) -> None:
        """Gives the address up, unless other processes have it too."""
        for each in self._sockets:
            each.close()


@asynccontextmanager
async def open_port(host: str, port: int, inherited: Sequence[socket.socket] = ()) -> AsyncIterator[Port]:
    """Takes the address, until the block is left; all of them where the host has several.

    port: 0 for a free one. inherited: sockets that are bound already, to be used instead. Raises `CannotListen`.
    """
    where = f"{host}:{port}"
    sockets = list(inherited)
    try:
        try:
            for each in inherited:
                each.setblocking(False)
            for family, kind, protocol, _, address in () if inherited else await _addresses(host, port):
                sockets.append(socket.socket(family, kind, protocol))
                _take(sockets[-1], address)
        except OSError as error:
            raise _refused(where, error) from error
        yield Port(where, sockets, is_shared=bool(inherited))
    finally:
        for each in sockets:
            each.close()


async def _addresses(host: str, port: int) -> Sequence[tuple[int, int, int, str, Any]]:
    """Those whose family this kernel knows."""
    found = await trio.socket.getaddrinfo(host, port, type=SOCK_STREAM, flags=AI_PASSIVE)
    known = [each for each in found if _is_known(each[0])]
    if not known:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported")
    return known


def _is_known(family: int) -> bool:
    try:
        socket.socket(family).close()
    except OSError:
        return False
    return True


def _take(taken: socket.socket, address: Any) -> None:
    """Binds it such that nobody else can, which SO_REUSEADDR would allow them to until somebody listens.

    With it, where connections of an earlier server are not quite gone: then the address is free all the same.
    """
    taken.setblocking(False)
    if taken.family == socket.AF_INET6:
        taken.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
    try:
        taken.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        taken.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        taken.bind(address)
        taken.setsockopt(SOL_SOCKET, SO_REUSEADDR, 0)


def _refused(where: str, error: OSError) -> CannotListen:
    reason = error.strerror or str(error)
    return CannotListen(f"cannot listen on {where}: {reason} (choose another --host or --port)")


def url_of(settings: Settings, port: int) -> str:
    """Where clients find a server of these settings."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'http' if settings.tls_cert is None else 'https'}://{host}:{port}"
