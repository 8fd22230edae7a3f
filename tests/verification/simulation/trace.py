"""What happened, in order: kept for every run, put into words only where somebody asks."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import structlog
import trio

Heard: TypeAlias = Callable[[str, dict[str, Any]], None]


class Trace:
    """Lines of (virtual seconds, who, what, details)."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, str, str, object]] = []

    def add(self, who: str, what: str, details: object = "") -> None:
        self.lines.append((trio.current_time(), who, what, details))

    def render(self) -> list[str]:
        return [f"{at:10.4f}  {who:<8} {what:<22} {_words(details)}".rstrip() for at, who, what, details in self.lines]

    def digest(self) -> str:
        """The same for two runs in which the same happened in the same order."""
        return hashlib.sha256("\n".join(self.render()).encode()).hexdigest()


def _words(details: object) -> str:
    if isinstance(details, dict):
        return " ".join(f"{key}={value}" for key, value in details.items())
    return details.decode(errors="replace") if isinstance(details, bytes) else str(details)


class LogTap:
    """structlog's last processor: hands the server's own log lines to the world of the running simulation."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard

    def __call__(self, _logger: object, _level: str, event: Any) -> Any:
        if event.pop("exc_info", None):
            event["crashed"] = True
        self._heard(event.pop("event"), event)
        raise structlog.DropEvent


@contextmanager
def listening_to_logs(heard: Heard) -> Iterator[None]:
    """heard: called with event and fields for every log line of the servers from info upwards."""
    before = structlog.get_config()
    structlog.configure(
        processors=[LogTap(heard)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)
