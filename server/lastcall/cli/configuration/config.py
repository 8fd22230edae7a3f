"""`lastcall config`."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ...config import Settings
from ..options import settings_options, variables_of
from ..tables import Column, one_line, print_json, print_table
from .file import configuration_file

VALUE_COLUMNS = 60


@dataclass(frozen=True, slots=True)
class SettingReport:
    """value: without secrets; None: none is set. source: flag, environment, file or default. at: which of them."""

    setting: str
    value: Any
    source: str
    at: str | None


@click.command
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_options()
@click.pass_context
def config(context: click.Context, /, *, as_json: bool, **values: Any) -> None:
    """Print the settings that a server would have, and where each comes from.

    A flag wins over an environment variable, that over the configuration file, and that over the default. Passwords
    and keys are shown as three asterisks.
    """
    rows = [
        SettingReport(name, _shown(name, values[name]), *_source(context, name))
        for name in (each.name for each in fields(Settings))
        if name in values
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(_COLUMNS, [[row.setting, _text(row.value), row.at or row.source] for row in rows])


_COLUMNS = (Column("setting"), Column("value", whole=False, most=VALUE_COLUMNS), Column("from", whole=False))


def _source(context: click.Context, name: str) -> tuple[str, str | None]:
    source = context.get_parameter_source(name)
    if source is ParameterSource.COMMANDLINE:
        switch = "--no-" if context.params[name] is False else "--"
        return "flag", switch + name.replace("_", "-")
    if source is ParameterSource.ENVIRONMENT:
        return "environment", next(variable for variable in variables_of(name) if os.environ.get(variable))
    if source is ParameterSource.DEFAULT_MAP:
        return "file", str(configuration_file(context))
    return "default", None


def _shown(name: str, value: Any) -> Any:
    from ...logs import redact
    from ...store.address import without_secrets

    if isinstance(value, tuple):
        return [_shown(name, each) for each in value]
    if isinstance(value, Path):
        return str(value)
    if not isinstance(value, str):
        return value
    return without_secrets(value) if name == "database_url" else redact(value)


def _text(value: Any) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return one_line(", ".join(value))
    return one_line(f"{value:g}" if isinstance(value, float) else str(value))
