"""The address of a database: its hosts, and how to get in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .files import is_open_to_others, password_of

KEEPALIVE_IDLE_SECONDS = 15  # below the idle limits of firewalls and load balancers that are in use
KEEPALIVE_INTERVAL_SECONDS = 3
KEEPALIVE_COUNT = 3
UNACKNOWLEDGED_MILLISECONDS = 3_000  # then the kernel gives a connection up, in time to send a commit again elsewhere


@dataclass(frozen=True, slots=True)
class DatabaseHost:
    """One of the servers that an address names.

    name: its host name or address, or the directory of a Unix socket. at: the address to connect to instead.
    """

    name: str
    port: int
    at: str | None = None

    @property
    def is_socket(self) -> bool:
        return self.name.startswith("/")

    def __str__(self) -> str:
        if self.is_socket:
            return f"{self.name}/.s.PGSQL.{self.port}"
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


@dataclass(frozen=True, slots=True)
class TcpOptions:
    """How the kernel finds out that a TCP connection is dead. unacknowledged_milliseconds: TCP_USER_TIMEOUT."""

    keepalive: bool = True
    idle_seconds: int = KEEPALIVE_IDLE_SECONDS
    interval_seconds: int = KEEPALIVE_INTERVAL_SECONDS
    count: int = KEEPALIVE_COUNT
    unacknowledged_milliseconds: int = UNACKNOWLEDGED_MILLISECONDS


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """Where the database is and how to get in. As text: hosts and name, without user and password.

    Attributes:
        target: The servers that will do, as `target_session_attrs`.
        settings: For the session, from `options`; and `options` itself where it holds more than settings.
        application_name: None where nobody chose one.
        ssl: The words about TLS, as asyncpg takes them in a URL.
        gss: The words about GSSAPI, as asyncpg takes them in a URL.
        host_seconds: For one host to answer and let us in.
        shuffled: Whether hosts are tried in random order.
        warnings: What the user should know, by line.
    """

    hosts: tuple[DatabaseHost, ...]
    user: str
    database: str
    password: str | None = field(repr=False)
    passfile: Path | None
    target: str
    settings: Mapping[str, str]
    application_name: str | None
    ssl: Mapping[str, str] = field(repr=False)
    gss: Mapping[str, str]
    tcp: TcpOptions
    host_seconds: float
    shuffled: bool
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        return f"{','.join(map(str, self.hosts))}/{self.database}"

    def password_for(self, host: DatabaseHost) -> str | None:
        """The password for a host. The password file is read each time, since passwords change."""
        if self.password is not None or self.passfile is None or is_open_to_others(self.passfile):
            return self.password
        name = "localhost" if host.is_socket else host.name
        return password_of(self.passfile, name, host.port, self.database, self.user)
