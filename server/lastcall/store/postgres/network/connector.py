"""Opens connections on whichever host of the address will do, each host with a deadline of its own."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import asyncpg

from ...address import DatabaseAddress, DatabaseHost
from ...errors import reason_of
from .preference import Preference
from .sockets import Route, addresses_of, along

APPLICATION = "lastcall"

# Another host would answer alike: wrong password, no such database, no right to connect.
NOT_FOR_THE_NEXT_HOST = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)
FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


Prepare = Callable[[Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """startup: settings that come with the connection's start."""

    startup: Mapping[str, str]
    command_seconds: float
    prepare: Prepare | None


class Connector:
    """Opens connections to one database. The host that worked last is tried first, and those that hung last.

    schema: of our tables, once it is known, and then the whole search path: a person who changes that of the role, or
        creates tables of our names in a schema before ours, must not lead our statements astray.
    """

    def __init__(self, address: DatabaseAddress) -> None:
        self.address = address
        self.schema: str | None = None
        self._hosts = random.sample(address.hosts, len(address.hosts)) if address.shuffled else address.hosts
        self._preferred = Preference[DatabaseHost]()
        self._preferred_addresses = Preference[tuple[DatabaseHost, str]]()
        self._resolved: dict[DatabaseHost, Sequence[str]] = {}

    @property
    def writes(self) -> bool:
        """Whether only servers that accept writes will do."""
        return self.address.target == "read-write"

    @property
    def settings(self) -> Mapping[str, str]:
        """The session's settings that the address asks for, to be set once it is open: poolers refuse them before."""
        settings = {name: value for name, value in self.address.settings.items() if name != "options"}
        if self.schema is not None:
            settings["search_path"] = '"' + self.schema.replace('"', '""') + '"'
        return settings

    async def open(self, prepare: Prepare | None = None, *, command_seconds: float, purpose: str = "") -> Any:
        """Opens a connection. To be used from asyncio.

        Args:
            prepare: Called with the connection, within the host's deadline.
            command_seconds: For each statement, on our side.
            purpose: Appended to the application's name.

        Raises:
            OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError: No host would do.
        """
        name = " ".join([self.address.application_name or APPLICATION, *purpose.split()])
        startup = {"application_name": name}
        if "options" in self.address.settings:
            startup["options"] = self.address.settings["options"]
        wanted = _Wanted(startup, command_seconds, prepare)
        failures: dict[DatabaseHost, Exception] = {}
        for target in self._targets():
            for host in self._preferred.order(self._hosts):
                try:
                    connection = await self._open_on(host, target, wanted)
                except NOT_FOR_THE_NEXT_HOST:
                    raise
                except FAILURES as error:
                    failures[host] = error
                else:
                    return connection
        raise _failure_of_all(failures)

    def _targets(self) -> Sequence[str]:
        target = self.address.target
        return ("standby", "any") if target == "prefer-standby" else (target,)

    async def _open_on(self, host: DatabaseHost, target: str, wanted: _Wanted) -> Any:
        """Tries each address of a host."""
        failure: Exception = OSError("it has no address")
        places = [(host, at) for at in await self._addresses(host)]
        for place in self._preferred_addresses.order(places):
            try:
                async with self._in_time(*place):
                    connection = await self._log_in(host, target, wanted)
                    # Before it is prepared, which may take a second connection.
                    self._preferred.worked(host)
                    self._preferred_addresses.worked(place)
                    return await _prepared(connection, wanted.prepare)
            except NOT_FOR_THE_NEXT_HOST:
                raise
            except FAILURES as error:
                failure = error
        raise failure

    async def _addresses(self, host: DatabaseHost) -> Sequence[str]:
        """Those of the last look-up where this one fails."""
        if host.is_socket or host.at is not None:
            return [host.at or host.name]
        try:
            async with asyncio.timeout(self.address.host_seconds):
                self._resolved[host] = await addresses_of(host.name, host.port)
        except OSError as error:  # also TimeoutError
            if host not in self._resolved:
                raise type(error)(*error.args or ("its name was not resolved in time",)) from error
        return self._resolved[host]

    @contextlib.asynccontextmanager
    async def _in_time(self, host: DatabaseHost, at: str) -> AsyncIterator[None]:
        """A deadline for one address. If the caller gives up first, the next call starts with another one."""
        seconds = self.address.host_seconds
        try:
            with along(Route(host.name, at, self.address.tcp)):
                async with asyncio.timeout(seconds):
                    yield
        except (TimeoutError, asyncio.CancelledError) as error:
            self._preferred.hung(host)
            self._preferred_addresses.hung((host, at))
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"no answer within {seconds:g} s") from error
            raise

    async def _log_in(self, host: DatabaseHost, target: str, wanted: _Wanted) -> Any:
        address = self.address
        # TLS has no other way into asyncpg than a URL. The password is never None: asyncpg would look for one itself.
        words = (
            {"sslmode": "disable", "sslnegotiation": "postgres"} if host.is_socket else {**address.ssl, **address.gss}
        )
        url = f"postgresql://?{urlencode({**words, 'target_session_attrs': target}, quote_via=quote)}"
        try:
            return await asyncpg.connect(
                url,
                host=host.name,
                port=host.port,
                user=address.user,
                password=address.password_for(host) or "",
                database=address.database,
                server_settings=dict(wanted.startup),
                command_timeout=wanted.command_seconds,
            )
        except asyncpg.TargetServerAttributeNotMatched as error:
            raise ConnectionError(_unsuitable(target)) from error


async def _prepared(connection: Any, prepare: Prepare | None) -> Any:
    if prepare is not None:
        try:
            await prepare(connection)
        except BaseException:
            connection.terminate()
            raise
    return connection


def _unsuitable(target: str) -> str:
    if target == "read-write":
        return "it accepts no writes: it is a standby, or default_transaction_read_only is on"
    return f"it is not what target_session_attrs={target} asks for"


def _failure_of_all(failures: Mapping[DatabaseHost, Exception]) -> Exception:
    errors = list(failures.values())
    if len(errors) == 1:
        return errors[0]
    kind: type[Exception] = ConnectionError
    if all(isinstance(error, socket.gaierror) for error in errors):
        kind = socket.gaierror
    elif any(isinstance(error, asyncpg.TooManyConnectionsError) for error in errors):
        kind = asyncpg.TooManyConnectionsError
    return kind("; ".join(f"{host}: {reason_of(error)}" for host, error in failures.items()))
