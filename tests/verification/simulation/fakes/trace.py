"""The trace of a world: everything that happened, in order; rendered only on request."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import structlog
import trio

OnLog: TypeAlias = Callable[[str, dict[str, Any]], None]


class Trace:
    """Lines of (virtual seconds, who, what, details)."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, str, str, object]] = []

    def add(self, who: str, what: str, details: object = "") -> None:
        self.lines.append((trio.current_time(), who, what, details))

    def render(self) -> list[str]:
        return [f"{at:10.4f}  {who:<8} {what:<22} {_words(details)}".rstrip() for at, who, what, details in self.lines]

    def digest(self) -> str:
        """A hash that is the same for two runs in which the same things happened in the same order."""
        return hashlib.sha256("\n".join(self.render()).encode()).hexdigest()


def _words(details: object) -> str:
    if isinstance(details, dict):
        return " ".join(f"{key}={value}" for key, value in details.items())
    return details.decode(errors="replace") if isinstance(details, bytes) else str(details)


class LogTap:
    """The last processor of structlog: passes the servers' log lines on, instead of printing them."""

    def __init__(self, on_log: OnLog) -> None:
        self._on_log = on_log

    def __call__(self, _logger: object, _level: str, event: Any) -> Any:
        if event.pop("exc_info", None):
            event["crashed"] = True
        self._on_log(event.pop("event"), event)
        raise structlog.DropEvent


@contextmanager
def listening_to_logs(on_log: OnLog) -> Iterator[None]:
    """Calls `on_log` with event and fields for each of the servers' log lines, from level info upwards."""
    before = structlog.get_config()
    structlog.configure(
        processors=[LogTap(on_log)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)
