"""The checks of this host and its files. All are cheap, so that every start makes them too."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..config import Settings
from ..embedded.folder import check, place, unusable
from ..embedded.programs import EmbeddedError
from ..limits.descriptors import socket_allowance
from ..runtime.check import Check, CheckStatus, fail, log_checks, ok, warn
from ..runtime.secret_files import check_secret_files
from ..transport.tls import check_certificate
from .environment import STRAY_VARIABLES, check_environment
from .meaning import check_extra, is_wanted

DATA = "data_dir"
FREE_BYTES_MIN = 1 << 30


def host_checks(settings: Settings, environ: Mapping[str, str]) -> Iterator[Check]:
    """Blocks on files, for milliseconds."""
    yield from check_environment(environ)
    yield from check_secret_files((settings.tls_key, settings.jwt_secret_file))
    certificate = check_certificate(settings)
    if certificate is not None:
        yield certificate
    yield socket_allowance(settings).check
    if not is_wanted(settings):  # else the database's own check says more
        yield check_extra(settings)
    if settings.database_url is None:
        yield check_data(settings.data_dir)


def warn_at_start(settings: Settings, environ: Mapping[str, str]) -> None:
    """Logs what is not ok, but for other programs' variables, which are no mistake of the server's user.

    Nor a data folder that cannot be used: in a moment, that is the start's last word.
    """
    checks = [each for each in host_checks(settings, environ) if each.name != STRAY_VARIABLES]
    log_checks(each for each in checks if each.name != DATA or each.status is not CheckStatus.FAIL)


def check_data(data_dir: Path) -> Check:
    """Whether the embedded database can be in the folder. Creates nothing."""
    another = "let this user own and write it, or choose another --data-dir"
    try:
        where = place(data_dir)
        nearest = next(each for each in (where.directory, *where.directory.parents) if each.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            return fail(DATA, f"{nearest} is not a folder that this user may write to", another)
        if nearest == where.directory:
            check(where)
    except EmbeddedError as error:
        found, _, mend = str(error).partition("; ")
        return fail(DATA, found, mend or another)
    except OSError as error:
        return fail(DATA, str(unusable(data_dir, error)).partition(";")[0], another)
    free = shutil.disk_usage(nearest).free
    if free < FREE_BYTES_MIN:
        return warn(DATA, f"{nearest} has {free >> 20} MiB left", "make room on its disk, or choose another --data-dir")
    return ok(DATA, f"{where.directory} {'can be used' if nearest == where.directory else 'will be created'}")
