"""Files of secrets that others on this machine can read."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from .check import Check, ok, warn

READABLE = "secret_files"


def check_secret_files(files: Iterable[Path | None]) -> Iterator[Check]:
    """A warning for each file that its group or everybody can read. None: a file that is not in use.

    It only warns: secrets are mounted into containers with such modes, where there is nobody else.
    """
    used = [file for file in files if file is not None]
    readable = [file for file in used if can_others_read(file)]
    for file in readable:
        yield warn(READABLE, f"{file} holds a secret, and others can read it", f"chmod 600 {shlex.quote(str(file))}")
    if used and not readable:
        yield ok(READABLE, f"nobody else can read {', '.join(map(str, used))}")


def can_others_read(file: Path) -> bool:
    """Whether it is a file with a mode by which its group or everybody can read it; the folders are not looked at."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & (stat.S_IRGRP | stat.S_IROTH))
