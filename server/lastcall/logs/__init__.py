"""Logging: readable lines on stderr or JSON lines on stdout, for our events and for the libraries' logs alike.

`redaction` is about what is in a line, `output_queue` about how it gets out.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Mapping, MutableMapping
from functools import partial
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from .names import add_names, always, name_lines
from .output_queue import flush_output, lines_dropped, queued_output, set_note
from .redaction import TRACEBACK_CHARS_MAX, VALUE_CHARS_MAX, cut, printable, redact

__all__ = [
    "configure",
    "cut",
    "flush_output",
    "json_line",
    "lines_dropped",
    "name_lines",
    "printable",
    "queued_output",
    "redact",
    "write_line",
]

Level = Literal["debug", "info", "warning", "error"]

_TRACEBACKS = ("exception", "stack")  # keys of values that may be longer than others


def configure(*, json_logs: bool, level: Level, fields: Mapping[str, object] | None = None) -> None:
    """Configures structlog and the standard library's logging; a later call replaces the configuration.

    fields: what every line of this process has, unless it says otherwise.
    """
    stream = sys.stdout if json_logs else sys.stderr
    set_note(partial(_json_note, fields or {}) if json_logs else _console_note, stream)
    output = _TolerantStream(stream)
    least = getattr(logging, level.upper())
    shared: list[Processor] = [add_names, *always(fields or {}), structlog.processors.add_log_level]
    render = [*(_json_processors() if json_logs else _console_processors(sys.stderr.isatty())), _redact_line]
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(file=output),  # type: ignore[arg-type]  # write and flush will do
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(output)
    handler.addFilter(_with_tracebacks if least <= logging.DEBUG else _without_tracebacks)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render]
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def write_line(stream: TextIO, line: str) -> None:
    """Writes and flushes one redacted line; ignores a closed pipe."""
    tolerant = _TolerantStream(stream)
    tolerant.write(redact(cut(line)) + "\n")
    tolerant.flush()


def json_line(event: str, level: Level = "info", **fields: Any) -> str:
    """Formats an event as a JSON line, whatever level is configured."""
    line: Any = {"event": event, **fields, "level": level}
    for processor in _json_processors():
        line = processor(None, "info", line)
    return str(line)


def _json_note(fields: Mapping[str, object], count: int) -> str:
    return json_line("log_lines_dropped", "warning", **fields, count=count)


def _console_note(count: int) -> str:
    return f"{time.strftime('%H:%M:%S')} [warning] log_lines_dropped count={count}"


class _TolerantStream:
    """A stream that ignores errors: a closed pipe behind the log must not end a session."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def _json_processors() -> list[Processor]:
    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _cut_values,
        _event_first,
        structlog.processors.JSONRenderer(),
    ]


def _console_processors(colors: bool) -> list[Processor]:
    return [
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        structlog.processors.format_exc_info,
        _cut_values,
        _printable_values,
        structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0, pad_level=False, sort_keys=False),
    ]


def _event_first(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return {key: event[key] for key in ("timestamp", "level", "event") if key in event} | dict(event)


def _cut_values(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Before any pattern meets them: a value may hold whatever a client sent."""
    return {key: _cut_value(key, value) for key, value in event.items()}


def _cut_value(key: str, value: object) -> object:
    if value is None or isinstance(value, int | float):
        return value
    text = value if isinstance(value, str) else repr(value)
    return cut(text, TRACEBACK_CHARS_MAX if key in _TRACEBACKS else VALUE_CHARS_MAX)


def _printable_values(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return {key: printable(value) if isinstance(value, str) else value for key, value in event.items()}


def _redact_line(logger: WrappedLogger, method: str, line: MutableMapping[str, Any] | str) -> str:
    return redact(str(line))


def _without_tracebacks(record: logging.LogRecord) -> bool:
    """asyncpg's pool logs a traceback for each failed attempt to reconnect; its message is enough."""
    record.exc_info = record.exc_text = record.stack_info = None
    return True


def _with_tracebacks(record: logging.LogRecord) -> bool:
    return True
