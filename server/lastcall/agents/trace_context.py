"""The trace to which the requests of a turn belong, for agents that ask others."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar

TRACEPARENT = "traceparent"  # the header, of W3C Trace Context

_headers: ContextVar[Mapping[str, str] | None] = ContextVar("trace_headers", default=None)


def continue_trace(traceparent: str) -> None:
    """From now on, requests of this task and of tasks that it starts belong to this span."""
    _headers.set({TRACEPARENT: traceparent})


def trace_headers() -> Mapping[str, str] | None:
    """The headers of a request; None where nothing is traced. No `tracestate`: it may tell others of the client."""
    return _headers.get()
