"""Files of secrets that others on this machine can read."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

import structlog

_log = structlog.get_logger(__name__)


def warn_of_readable_secrets(files: Iterable[Path | None]) -> None:
    """Logs a line for each file that its group or everybody can read. None: a file that is not in use.

    It only warns: secrets are mounted into containers with such modes, where there is nobody else.
    """
    for file in files:
        if file is not None and can_others_read(file):
            _log.warning("secret_file_readable", file=str(file), advice=f"others can read it: chmod 600 {file}")


def can_others_read(file: Path) -> bool:
    """Whether it is a file with a mode by which its group or everybody can read it; the folders are not looked at."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & (stat.S_IRGRP | stat.S_IROTH))
