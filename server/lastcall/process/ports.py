"""The ports of a server: new ones, or those that whoever started it has opened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from ..auth.origins import is_loopback
from ..config import Settings
from ..transport.direct import DirectListener
from ..transport.port import Port, open_port
from .inherited import InheritedSockets


@dataclass(frozen=True, slots=True)
class AdminPort:
    """The ports for operators; none where nobody asked for one."""

    ports: Sequence[Port]

    def listen(self) -> Sequence[DirectListener]:
        """Lets them connect. Raises `CannotListen`."""
        return [listener for port in self.ports for listener in port.listen()]


@dataclass(frozen=True, slots=True)
class Ports:
    """settings: with the host and the port that are really listened on: who may connect without keys depends on it."""

    settings: Settings
    clients: Port
    admin: AdminPort


@asynccontextmanager
async def open_ports(settings: Settings, inherited: InheritedSockets) -> AsyncIterator[Ports]:
    """Takes the ports for as long as the block lasts. Raises `CannotListen`."""
    async with AsyncExitStack() as opened:
        clients = await opened.enter_async_context(open_port(settings.host, settings.port, inherited.clients))
        admin: list[Port] = []
        if inherited.admin:
            admin.append(await opened.enter_async_context(open_port("admin", 0, inherited.admin)))
        elif settings.admin_port is not None:
            admin.append(await opened.enter_async_context(open_port(settings.admin_host, settings.admin_port)))
        # A socket unit may listen elsewhere than --host says: then this counts, also where it needs keys.
        others = [each for each in clients.hosts if not is_loopback(each)]
        host = others[0] if inherited.clients and others and is_loopback(settings.host) else settings.host
        yield Ports(replace(settings, host=host, port=clients.number), clients, AdminPort(admin))
