"""One check of what the server runs on: what was found, and what has to be done about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import structlog

_log = structlog.get_logger(__name__)


class CheckStatus(Enum):
    """OK: as it should be. WARN: it works, but a promise or a later moment is at risk. FAIL: it does not work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """A check and its result.

    Attributes:
        name: Which check, in one word with underscores.
        found: What is so, in one line without secrets.
        mend: What to do about it, in one line; empty where it is as it should be.
    """

    name: str
    status: CheckStatus
    found: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.found} ({self.mend})" if self.mend else self.found


def ok(name: str, found: str) -> Check:
    return Check(name, CheckStatus.OK, found)


def warn(name: str, found: str, mend: str) -> Check:
    return Check(name, CheckStatus.WARN, found, mend)


def fail(name: str, found: str, mend: str) -> Check:
    return Check(name, CheckStatus.FAIL, found, mend)


def log_checks(checks: Iterable[Check]) -> None:
    """Logs a line for each check that is not ok."""
    for check in checks:
        if check.status is not CheckStatus.OK:
            log = _log.error if check.status is CheckStatus.FAIL else _log.warning
            log("check_not_passed", check=check.name, found=check.found, mend=check.mend)
