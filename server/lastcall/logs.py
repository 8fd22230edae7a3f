"""Logging: readable lines on stderr or JSON lines on stdout, for our events and for the libraries' logs alike."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from .secret_prefixes import CLIENT_SECRET, KEY, KEY_SHOWN_CHARS, KEY_SUBPROTOCOL, TOKEN

Level = Literal["debug", "info", "warning", "error"]

# User information of a URL, and libpq's parameter: the password may hold an @ that should have been encoded.
_USERINFO = re.compile(r"(\w[\w+.-]*://[^\s:@/?#]*):\S*@")
_PARAMETER = re.compile(r"([?&]password=)[^&\s'\"]*", re.IGNORECASE)
# Keys, client secrets, and tokens in three parts. Their prefixes stay, and of keys as much as lists show.
_SECRET = re.compile(
    rf"\b({KEY}[\w-]{{{KEY_SHOWN_CHARS - len(KEY)}}}|{CLIENT_SECRET})[\w-]{{16,}}"
    rf"|\b({TOKEN})[\w-]{{8,}}\.[\w-]+\.[\w-]*"
)
# Whatever else a browser presents as a key.
_SUBPROTOCOL = re.compile(rf"({re.escape(KEY_SUBPROTOCOL)})(?!{KEY}|{CLIENT_SECRET}|{TOKEN})[^\s,;'\"]+")
_CONTROL = re.compile(r"[^\S\n\t ]|[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def redact(text: str) -> str:
    """Replaces keys, client secrets, tokens and the passwords of URLs by three asterisks."""
    without_secrets = _SECRET.sub(lambda found: (found[1] or found[2]) + "***", text)
    without_secrets = _SUBPROTOCOL.sub(r"\1***", without_secrets)
    return _PARAMETER.sub(r"\1***", _USERINFO.sub(r"\1:***@", without_secrets))


def printable(text: str) -> str:
    """Replaces terminal escapes, control characters and changes of direction; keeps newlines and tabs."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def configure(*, json_logs: bool, level: Level) -> None:
    """Configures structlog and the standard library's logging; a later call replaces the configuration."""
    output = _TolerantStream(sys.stdout if json_logs else sys.stderr)
    least = getattr(logging, level.upper())
    shared: list[Processor] = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level]
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
    tolerant.write(redact(line) + "\n")
    tolerant.flush()


def json_line(event: str, **fields: Any) -> str:
    """Formats an event of level info as a JSON line, whatever level is configured."""
    line: Any = {"event": event, **fields, "level": "info"}
    for processor in _json_processors():
        line = processor(None, "info", line)
    return str(line)


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
        _event_first,
        structlog.processors.JSONRenderer(),
    ]


def _console_processors(colors: bool) -> list[Processor]:
    return [
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        structlog.processors.format_exc_info,
        _printable_values,
        structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0, pad_level=False, sort_keys=False),
    ]


def _event_first(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return {key: event[key] for key in ("timestamp", "level", "event") if key in event} | dict(event)


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
