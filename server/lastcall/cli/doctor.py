"""`lastcall doctor`."""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ..config import Settings
from .configuration.file import configuration_file
from .options import settings_options
from .running import database_of, run_logged
from .tables import one_line, print_json

if TYPE_CHECKING:
    from pathlib import Path

    from ..runtime.check import Check, CheckStatus

EXIT_FAILED = 1
_COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """status: the worst of the checks."""

    status: CheckStatus
    checks: list[Check]


@click.command
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_options()
@click.pass_context
def doctor(context: click.Context, /, *, as_json: bool, **values: Any) -> int:
    """Check what a server with these settings needs, and say how to mend what is missing.

    Changes nothing. The exit code is 1 if a check failed; warnings alone leave it at 0.
    """
    from ..runtime.check import CheckStatus

    checks = run_logged(_examine, Settings(**values), configuration_file(context), level="error")
    statuses = [check.status for check in checks]
    worst = next((each for each in (CheckStatus.FAIL, CheckStatus.WARN) if each in statuses), CheckStatus.OK)
    if as_json:
        print_json(DoctorReport(worst, checks))
    else:
        _print(checks)
    return EXIT_FAILED if worst is CheckStatus.FAIL else 0


async def _examine(settings: Settings, config_file: Path | None) -> list[Check]:
    from ..diagnosis.database import database_checks
    from ..diagnosis.host import host_checks
    from ..diagnosis.running import check_running
    from ..embedded.programs import EmbeddedError
    from ..runtime.check import fail, ok

    checks = [*config_file_checks(config_file), *host_checks(settings, os.environ)]
    try:
        async with database_of(settings.database_url, settings.data_dir) as address:
            if address is None:
                checks.append(ok("database", f"the first lastcall serve creates it in {settings.data_dir}"))
            else:
                checks += await database_checks(settings, address)
    except* EmbeddedError as errors:
        found, _, mend = str(errors.exceptions[0]).partition("; ")
        checks.append(fail("database", found, mend or "choose another --data-dir, or pass --database-url"))
    checks.append(await check_running(settings))
    return checks


def config_file_checks(file: Path | None) -> list[Check]:
    """Whether others can read the configuration file, where that holds a password."""
    import tomllib

    from ..logs import redact
    from ..runtime.secret_files import check_secret_files

    if file is None:
        return []
    text = str(tomllib.loads(file.read_text()))  # without comments, which may speak of passwords
    return list(check_secret_files([file])) if redact(text) != text or "password" in text else []


def _print(checks: list[Check]) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        status = click.style(f"{check.status.value:4}", fg=_COLORS[check.status.value])
        click.echo(f"{status}  {check.name:{width}}  {one_line(check.found)}")
        if check.mend:
            click.echo(textwrap.indent(f"mend: {one_line(check.mend)}", " " * (width + 8)))
