"""The files that libpq reads beside a connection string: services by name, and passwords."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from .conninfo import BadAddress
from .words import check_words

_FIELD = re.compile(r"((?:[^:\\]|\\.|\\$)*)(?::|$)")
PASSFILE_FIELDS = 5  # host, port, database, user, password


def service_words(name: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The words of a service, from the user's file or else the system's.

    Raises:
        BadAddress: There is no such service, or it has a mistake.
    """
    files = list(_service_files(environ))
    for file in files:
        words = _section(file, name)
        if words is not None:
            check_words(words)
            return words
    looked = " and ".join(str(file) for file in files) or "no file"
    raise BadAddress(f"there is no service of this name in {looked}; see PGSERVICEFILE")


def service_file(name: str, environ: Mapping[str, str]) -> Path | None:
    """The file that has this service; None: no file does."""
    return next((file for file in _service_files(environ) if _section(file, name) is not None), None)


def _service_files(environ: Mapping[str, str]) -> Iterator[Path]:
    home = environ.get("HOME")
    if environ.get("PGSERVICEFILE"):
        yield Path(environ["PGSERVICEFILE"])
    elif home:
        yield Path(home) / ".pg_service.conf"
    yield Path(environ.get("PGSYSCONFDIR") or "/etc/postgresql-common") / "pg_service.conf"


def _section(file: Path, name: str) -> dict[str, str] | None:
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeError):
        return None
    words: dict[str, str] | None = None
    for number, line in enumerate((each.strip() for each in lines), start=1):
        if line.startswith("["):
            if words is not None:
                break
            words = {} if line == f"[{name}]" else None
        elif words is not None and line and not line.startswith("#"):
            word, equals, value = line.partition("=")
            if not equals or word == "service":
                raise BadAddress(f"line {number} of {file} is not word=value")
            words[word] = value
    return words


def password_of(file: Path, host: str, port: int, database: str, user: str) -> str | None:
    """The password of the first line of a password file that matches. For a Unix socket, `host` is "localhost"."""
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeError):
        return None
    wanted = (host, str(port), database, user)
    for line in lines:
        *fields, password = (*_fields(line), "")[:PASSFILE_FIELDS]
        if password and all(raw == "*" or _unescaped(raw) == each for raw, each in zip(fields, wanted, strict=True)):
            return _unescaped(password)
    return None


def is_open_to_others(file: Path) -> bool:
    """Whether it is a file that its group or everybody may use. libpq ignores such a password file, and so do we."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) or bool(mode & (stat.S_IRWXG | stat.S_IRWXO))


def _fields(line: str) -> list[str]:
    """The fields of a line, with their escapes: a `*` that is escaped is no wildcard."""
    return [] if line.startswith("#") else [found[1] for found in _FIELD.finditer(line)]


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
