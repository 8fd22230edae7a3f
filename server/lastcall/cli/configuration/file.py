"""The configuration file: a TOML file of settings, each checked as its option would be."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ...config import ENVIRONMENT_PREFIX

DEFAULT_FILE = Path("lastcall.toml")  # in the folder in which the command runs, as .lastcall is
FILE_BYTES_MAX = 1 << 20
_MAIN = "lastcall.configuration_file"  # in click's `meta`


class BadFile(Exception):
    """The file cannot be used; the message is one line for the user, and quotes no value."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """What a setting takes in the file. several: a list of them. type: converts and checks one value."""

    accepts: tuple[type, ...]
    called: str
    type: click.ParamType[Any]
    several: bool = False


def read_file(path: Path, kinds: Mapping[str, FileKind]) -> dict[str, Any]:
    """Reads the settings of a file, as they are written there. Raises `BadFile`.

    Args:
        path: Of the file.
        kinds: By name of the setting. Also those that the command does not use: a mistake is told at once.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise BadFile(f"{path} has more than {FILE_BYTES_MAX >> 20} MiB")
        settings = tomllib.loads(data.decode())
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadFile(f"{path} is not TOML: {_without_values(error)}") from error
    for name, value in settings.items():
        _check(path, name, value, kinds)
    return settings


def _without_values(error: Exception) -> str:
    """Where the mistake is; what is written there may be a password."""
    place = str(error).rpartition("(at ")[2].rstrip(")")
    return (
        f"see {place}" if isinstance(error, tomllib.TOMLDecodeError) and place != str(error) else "it is no UTF-8 text"
    )


def _check(path: Path, name: str, value: Any, kinds: Mapping[str, FileKind]) -> None:
    kind = kinds.get(name)
    if kind is None:
        near = difflib.get_close_matches(name.replace("-", "_").lower(), kinds, n=1)
        advice = f"did you mean {near[0]}?" if near else "lastcall config lists all"
        raise BadFile(f"{path}: {_shown(name)} is not a setting; {advice}")
    if kind.several != isinstance(value, list):
        raise BadFile(f"{path}: {name} takes {kind.called}")
    for each in value if kind.several else [value]:
        # Exactly: to Python, true is a number.
        if type(each) not in kind.accepts:
            raise BadFile(f"{path}: {name} takes {kind.called}, not {_called(each)}")
        try:
            kind.type.convert(each, None, None)
        except click.UsageError as error:
            raise BadFile(f"{path}: {name}: {error.message.rstrip('.')}") from error


def _shown(name: str) -> str:
    return name if name.isprintable() and len(name) <= 60 else "a key"


def _called(value: object) -> str:
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "a table",
    }
    return words.get(type(value), "a date or time")


def configuration_file(context: click.Context) -> Path | None:
    """The file that the command read; None: there is none."""
    found: Path | None = context.meta.get(_MAIN)
    return found


def use_file(context: click.Context, given: Path | None, kinds: Mapping[str, FileKind]) -> None:
    """Lets the command's options take their defaults from the file. Raises `BadFile`.

    given: by --config or its variable; None: the default one, where it exists.
    """
    path = given
    if path is None:
        if not DEFAULT_FILE.exists():
            return
        path = DEFAULT_FILE
        _require_own(path)
    context.default_map = {**(context.default_map or {}), **read_file(path, kinds)}
    context.meta[_MAIN] = path


def _require_own(path: Path) -> None:
    """Nobody named it: in a folder of everybody's, such as /tmp, it may be a trap, and --agent runs code."""
    try:
        found = path.stat()
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror or error}") from error
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o002:
        raise BadFile(f"{path} is another user's, or everybody may change it; if you trust it, pass --config {path}")


FILE_VARIABLE = ENVIRONMENT_PREFIX + "CONFIG"
