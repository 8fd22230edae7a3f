"""Reads the address of a database as libpq would: the connection string, then its service, then the environment."""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...runtime.secret_files import can_others_read
from .address import DatabaseAddress, DatabaseHost, TcpOptions
from .conninfo import BadAddress, ports_of, words_of
from .files import is_open_to_others, service_file, service_words
from .tls import ssl_words
from .words import check_words, words_of_environment

HOST_SECONDS = 2.0  # for one host to answer and let us in, where connect_timeout does not say otherwise
HOST_SECONDS_MIN = 2.0  # as in libpq
HOST_SECONDS_MAX = 5.0  # clients do not wait longer for their first commit

SOCKET_DIRECTORIES = ("/run/postgresql", "/var/run/postgresql", "/tmp", "/private/tmp")  # noqa: S108 - libpq's defaults


def read_address(text: str, environ: Mapping[str, str]) -> DatabaseAddress:
    """Reads a connection string, completed from `environ` as psql would.

    Args:
        text: A URL, or `key=value` pairs.
        environ: With the PG… variables, and HOME.

    Raises:
        BadAddress: Something is wrong with it; the message is for the user.
    """
    words = _all_words(text, environ)
    tls = ssl_words(words)
    user = words.get("user") or _login()
    passfile = words.get("passfile") or (f"{environ['HOME']}/.pgpass" if environ.get("HOME") else None)
    return DatabaseAddress(
        hosts=_hosts(words),
        user=user,
        database=words.get("dbname", user),
        password=words.get("password"),
        passfile=Path(passfile) if passfile else None,
        target=words.get("target_session_attrs", "read-write"),
        settings=_settings(words.get("options", "")),
        application_name=words.get("application_name", words.get("fallback_application_name")),
        ssl=tls,
        gss={word: words[word] for word in ("krbsrvname", "gsslib") if word in words},
        tcp=_tcp_options(words),
        host_seconds=_host_seconds(words),
        shuffled=words.get("load_balance_hosts") == "random",
        warnings=(*_warnings(words, passfile, tls), *_readable_secrets(text, environ, tls)),
    )


def given_words(text: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The words of a connection string and of its service."""
    words = words_of(text)
    check_words(words)
    service = words.get("service") or environ.get("PGSERVICE")
    return {**service_words(service, environ), **words} if service else words


def _all_words(text: str, environ: Mapping[str, str]) -> dict[str, str]:
    from_environment = words_of_environment(environ)
    check_words(from_environment)
    return {**from_environment, **given_words(text, environ)}


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:  # a container's user without a name
        raise BadAddress("it must name the database user, as in postgresql://user@127.0.0.1:5432/name") from error


def _hosts(words: Mapping[str, str]) -> tuple[DatabaseHost, ...]:
    names = words.get("host", "").split(",")
    addresses = words["hostaddr"].split(",") if "hostaddr" in words else [""] * len(names)
    if "host" not in words:
        names = [""] * len(addresses)
    ports = ports_of(words.get("port", ""))
    ports = ports * len(names) if len(ports) == 1 else ports
    if not len(names) == len(addresses) == len(ports):
        raise BadAddress("host, hostaddr and port must list equally many")
    if any(name.startswith("@") for name in names):
        raise BadAddress("abstract Unix sockets are not supported; name a directory or a host")
    return tuple(
        host
        for name, at, port in zip(names, addresses, ports, strict=True)
        for host in ([DatabaseHost(name or at, port, at or None)] if name or at else _default_hosts(port))
    )


def _default_hosts(port: int) -> Iterator[DatabaseHost]:
    for name in (*SOCKET_DIRECTORIES, "localhost"):
        yield DatabaseHost(name, port)


def _settings(options: str) -> dict[str, str]:
    """Splits `-c name=value`, `-cname=value` and `--name=value`; a space in a value has a backslash before it."""
    arguments = [re.sub(r"\\(.)", r"\1", each) for each in re.findall(r"(?:\\.|[^\s\\])+", options)]
    settings: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        pair = argument[2:] if argument.startswith(("-c", "--")) else ""
        name, equals, value = (pair or (next(rest, "") if argument == "-c" else "")).partition("=")
        if not equals:
            return {"options": options}  # what a proxy in front of the database reads, for instance
        settings[name.replace("-", "_")] = value
    return settings


def _tcp_options(words: Mapping[str, str]) -> TcpOptions:
    """0 and less stand for the default, as in libpq."""
    defaults = TcpOptions()

    def number(word: str, default: int) -> int:
        value = int(words.get(word, 0))
        return value if value > 0 else default

    return TcpOptions(
        words.get("keepalives", "1") == "1",
        number("keepalives_idle", defaults.idle_seconds),
        number("keepalives_interval", defaults.interval_seconds),
        number("keepalives_count", defaults.count),
        number("tcp_user_timeout", defaults.unacknowledged_milliseconds),
    )


def _host_seconds(words: Mapping[str, str]) -> float:
    seconds = int(words.get("connect_timeout", 0))
    return min(max(float(seconds), HOST_SECONDS_MIN), HOST_SECONDS_MAX) if seconds > 0 else HOST_SECONDS


def _warnings(words: Mapping[str, str], passfile: str | None, tls: Mapping[str, str]) -> Iterator[str]:
    if "password" not in words and passfile is not None and is_open_to_others(Path(passfile)):
        yield f"{passfile} is ignored, because others may read it (chmod 600 {passfile})"
    if words.get("channel_binding") == "require" and tls["sslmode"] != "verify-full":
        yield "channel_binding=require is not checked, because asyncpg cannot; sslmode=verify-full protects as well"


def _readable_secrets(text: str, environ: Mapping[str, str], tls: Mapping[str, str]) -> Iterator[str]:
    """libpq ignores a private key that others can read; asyncpg does not, and neither minds a service file."""
    service = words_of(text).get("service") or environ.get("PGSERVICE")
    file = service_file(service, environ) if service and "password" in service_words(service, environ) else None
    for each in (tls.get("sslkey"), file):
        if each is not None and can_others_read(Path(each)):
            yield f"{each} holds a secret, and others can read it (chmod 600 {each})"
