"""The names by which an operator finds a session in the log, made only for lines that are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar

from structlog.typing import EventDict, Processor, WrappedLogger

_names: ContextVar[Callable[[], Mapping[str, object]] | None] = ContextVar("log_names", default=None)


def name_lines(names: Callable[[], Mapping[str, object]]) -> None:
    """From now on, every line of this task and of tasks that it starts has these fields.

    Not `structlog.contextvars`: six variables and as many texts for each session would be a kilobyte.
    """
    _names.set(names)


def add_names(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """A processor: the line's own fields come first."""
    names = _names.get()
    return event if names is None else {**names(), **event}


def always(fields: Mapping[str, object]) -> Sequence[Processor]:
    """The processor for fields that every line has; none where there are no fields."""

    def add_fields(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return {**fields, **event}

    return [add_fields] if fields else []
