"""Command-line options, most of them generated from the fields of `Settings`."""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import Field, fields
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints
from uuid import UUID

import click

from ..auth.identity import canonical_user
from ..auth.origins import origin_of
from ..auth.proxies import network_of
from ..config import ENVIRONMENT_PREFIX, Settings
from ..limits.limit import beyond
from ..protocol.ids import parse_public_id
from .configuration.file import FILE_VARIABLE, BadFile, FileKind, use_file

Command = TypeVar("Command", bound=Callable[..., Any])

LEASE_SECONDS_MIN = 3  # several heartbeats, and a short outage of the database
SESSION_SECONDS_MIN = 1  # less would end sessions before the client can say anything
PORT_MAX = 65_535
WORKERS_MAX = 64  # each has a thread of the supervisor, and seven connections to the database
LEVELS = ("debug", "info", "warning", "error")
DAYS_MAX = 36_500
ROWS_MAX = 100_000

# Variables by which platforms hand out a setting, each after our own.
OTHER_VARIABLES = {"database_url": ("DATABASE_URL",)}

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


class Seconds(click.FloatRange):
    """A finite number of seconds or hours; click's own range accepts nan and inf."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class Age(click.ParamType[Any]):
    """A duration like 90s, 15m, 24h, 7d or 2w, converted to seconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])", str(value).strip(), re.ASCII)
        seconds = float(match[1]) * _UNIT_SECONDS[match[2]] if match else math.inf
        if seconds > DAYS_MAX * _UNIT_SECONDS["d"]:
            self.fail(f"{value!r} is not like 90s, 15m, 24h, 7d or 2w.", param, ctx)
        return seconds


class DatabaseUrl(click.ParamType[Any]):
    """A connection string as psql takes it. Its errors never quote the value, which may hold a password."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from ..store.address import BadAddress, read_address

        try:
            read_address(str(value), os.environ)
        except BadAddress as error:
            self.fail(f"{error}.", param, ctx)
        return str(value)


class Origin(click.ParamType[Any]):
    """Scheme, host and port of a page, as browsers send them."""

    name = "origin"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return origin_of(str(value))
        except ValueError:
            self.fail(f"{value!r} is not like https://chat.example or http://localhost:3000.", param, ctx)


class ProxyNetwork(click.ParamType[Any]):
    """The address of a proxy, or a network of them."""

    name = "cidr"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return str(network_of(str(value)))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def settings_options(names: Iterable[str] = ()) -> Callable[[Command], Command]:
    """Returns a decorator that adds an option for each field of `Settings` that has a flag.

    The command then receives the values by field name; an option wins over its environment variable `LASTCALL_…`, that
    over the configuration file that --config names, and that over the default.

    Args:
        names: Add only these fields.
    """
    wanted = set(names) or {each.name for each in fields(Settings) if each.metadata.get("flag")}

    def decorate(command: Command) -> Command:
        for each in reversed([each for each in fields(Settings) if each.name in wanted]):
            command = _option(each)(command)
        return config_option(command)

    return decorate


class UserName(click.ParamType[Any]):
    """A user whose rows are asked for, in the one form in which names are stored.

    A name that could not be given today is looked up as it is: imported rows may have it.
    """

    name = "user"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return canonical_user(str(value))
        except ValueError:
            return str(value)


class SessionId(click.ParamType[Any]):
    """The id of a session: as tables show it, or as clients do."""

    name = "session_id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        try:
            return parse_public_id("sess", str(value))
        except ValueError:
            self.fail(f"{value!r} is not the id of a session.", param, ctx)


def config_option(command: Command) -> Command:
    """Adds --config. It is eager: the file is read before the other options look for their values."""
    return click.option(
        "--config",
        envvar=FILE_VARIABLE,
        type=click.Path(path_type=Path, dir_okay=False),
        is_eager=True,
        expose_value=False,
        callback=_use_file,
        show_envvar=True,
        help="TOML file of settings; default lastcall.toml in the current folder, if there is one.",
    )(command)


def _use_file(context: click.Context, _option: click.Parameter, given: Path | None) -> None:
    if context.resilient_parsing:  # a shell completes a line
        return
    try:
        use_file(context, given, file_kinds())
    except BadFile as error:
        raise click.UsageError(str(error), context) from error


@functools.cache
def file_kinds() -> dict[str, FileKind]:
    """What each setting takes in the configuration file."""
    return {each.name: _file_kind(each) for each in fields(Settings) if each.metadata.get("flag")}


_FILE_TYPES: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
}


def _file_kind(setting: Field[Any]) -> FileKind:
    kind, several = _kind_of(setting)
    accepts, called = _FILE_TYPES.get(kind, ((str,), "a text in quotes"))
    checker = click.types.convert_type(_type(setting.name, kind))
    return FileKind(accepts, "a list of texts in quotes" if several else called, checker, several)


def question_options(command: Command) -> Command:
    """Adds the options of every command that queries the database: --database-url, --data-dir and --json."""
    for_machines = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    return settings_options(("database_url", "data_dir"))(for_machines(command))


def limit_option(rows: int) -> Callable[[Command], Command]:
    """Returns a decorator that adds --limit."""
    kind = click.IntRange(1, ROWS_MAX)
    return click.option("--limit", type=kind, default=rows, show_default=True, help="Maximum number of rows.")


@functools.cache
def _hints() -> dict[str, Any]:
    """Evaluates the annotations of `Settings`, once: doing it per option took a twentieth of a start."""
    return get_type_hints(Settings)


def variables_of(name: str) -> list[str]:
    """The environment variables of a setting; the first that is not empty wins."""
    return [ENVIRONMENT_PREFIX + name.upper(), *OTHER_VARIABLES.get(name, ())]


def _kind_of(setting: Field[Any]) -> tuple[type, bool]:
    """The type of a setting's value, and whether it is a list of these."""
    hint = _hints()[setting.name]
    return next((each for each in get_args(hint) if each is not NoneType), hint), get_origin(hint) is tuple


def _option(setting: Field[Any]) -> Callable[[Command], Command]:
    kind, several = _kind_of(setting)
    flag = "--" + setting.name.replace("_", "-")
    return click.option(
        flag,
        setting.name,
        type=_type(setting.name, kind),
        is_flag=kind is bool,
        multiple=several,
        default=setting.default,
        envvar=variables_of(setting.name),
        show_default=True,
        show_envvar=True,
        help=f"{setting.metadata['help']} {beyond(setting.name)}".rstrip(),
    )


def _type(name: str, kind: type) -> Any:
    special = {
        "admin_port": click.IntRange(0, PORT_MAX),
        "allow_origin": Origin(),
        "port": click.IntRange(0, PORT_MAX),
        "database_url": DatabaseUrl(),
        "idle_seconds": Seconds(min=SESSION_SECONDS_MIN),
        "lease_seconds": Seconds(min=LEASE_SECONDS_MIN),
        "log_level": click.Choice(LEVELS, case_sensitive=False),
        "session_seconds": Seconds(min=SESSION_SECONDS_MIN),
        "trusted_proxy": ProxyNetwork(),
        "workers": click.IntRange(1, WORKERS_MAX),
    }
    if name in special:
        return special[name]
    if kind is int:
        return click.IntRange(min=1)
    if kind is float:
        return Seconds(min=0, min_open=name.endswith(("_interval", "_timeout", "_per_second")))
    if kind is Path:
        return click.Path(path_type=Path, file_okay=not name.endswith("_dir"))
    return kind
