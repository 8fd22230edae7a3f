"""Listening sockets that whoever started the server has opened: systemd, or the supervisor of workers."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass

from ..transport.port import CannotListen

FIRST_DESCRIPTOR = 3
COUNT, PID, NAMES = "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"
ADMIN = "admin"  # the name of sockets for the admin port; all others are for clients


@dataclass(frozen=True, slots=True)
class InheritedSockets:
    """clients: for the port of clients. admin: for the admin port."""

    clients: Sequence[socket.socket] = ()
    admin: Sequence[socket.socket] = ()


def inherited_sockets(environ: MutableMapping[str, str], *, supervised: bool) -> InheritedSockets:
    """As sd_listen_fds(3). The variables are removed: they are not meant for our children.

    supervised: by the supervisor of workers, which cannot know our pid before we run.

    Raises:
        CannotListen: One of them is no TCP socket.
    """
    count, pid, names = environ.pop(COUNT, ""), environ.pop(PID, ""), environ.pop(NAMES, "").split(":")
    if not count.isdigit() or not (pid == str(os.getpid()) or (supervised and not pid)):
        return InheritedSockets()
    clients: list[socket.socket] = []
    admin: list[socket.socket] = []
    for number in range(int(count)):
        descriptor = FIRST_DESCRIPTOR + number
        (admin if names[number : number + 1] == [ADMIN] else clients).append(_socket(descriptor))
    return InheritedSockets(clients, admin)


def _socket(descriptor: int) -> socket.socket:
    try:
        found = socket.socket(fileno=descriptor)
    except OSError as error:
        raise CannotListen(f"file descriptor {descriptor} of {COUNT} is no socket (check the socket unit)") from error
    if found.family not in (socket.AF_INET, socket.AF_INET6) or found.type != socket.SOCK_STREAM:
        raise CannotListen(f"file descriptor {descriptor} of {COUNT} is no TCP socket (use ListenStream=PORT)")
    found.set_inheritable(False)
    return found
