"""Command-line options, most of them generated from the fields of `Settings`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import Field, fields
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import click

from ..config import ENVIRONMENT_PREFIX, Settings
from ..limits.limit import beyond
from .configuration.file import FILE_VARIABLE, BadFile, FileKind, use_file
from .kinds import DAYS_MAX, DatabaseUrl, Origin, ProxyNetwork, Seconds

Command = TypeVar("Command", bound=Callable[..., Any])

LEASE_SECONDS_MIN = 3  # several heartbeats, and a short outage of the database
SESSION_SECONDS_MIN = 1  # less would end sessions before the client can say anything
PORT_MAX = 65_535
WORKERS_MAX = 64  # each has a thread of the supervisor, and seven connections to the database
LEVELS = ("debug", "info", "warning", "error")
ROWS_MAX = 100_000

# Variables by which platforms hand out a setting, each after our own.
OTHER_VARIABLES = {"database_url": ("DATABASE_URL",)}


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
    return question_options_with()(command)


def question_options_with(*names: str) -> Callable[[Command], Command]:
    """Returns a decorator that adds these options, and one for each of these settings."""
    for_machines = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    return lambda command: settings_options((*names, "database_url", "data_dir"))(for_machines(command))


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
    if kind is bool and setting.default is None:  # what is on by itself can be switched off
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
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
        "embed_origin": Origin(),
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
    if name.endswith("_days"):
        return Seconds(min=0, min_open=True, max=DAYS_MAX)
    if kind is float:
        return Seconds(min=0, min_open=name.endswith(("_interval", "_timeout", "_per_second")))
    if kind is Path:
        return click.Path(path_type=Path, file_okay=not name.endswith("_dir"))
    return kind
