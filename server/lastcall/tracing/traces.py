"""What the server tells of its sessions and turns to whoever traces them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from uuid import UUID

from ..agents.agent import Agent
from ..config import BadSettings, Settings

FLUSH_SECONDS_MAX = 2.0  # at the end of a shutdown, for spans that are not exported yet


class Traces:
    """Traces nothing; `otel.OtelTraces` does."""

    def session_began(self, agent: Agent, names: Callable[[], Mapping[str, object]], parent: str | None) -> Agent:
        """Begins the span of a session; returns the agent whose turns belong to it.

        Args:
            agent: Of the session.
            names: The fields by which the log names the session.
            parent: The `traceparent` of its handshake, as its client sent it.
        """
        return agent

    def session_ended(self, session_id: UUID, reason: str) -> None:
        """Ends the span of a session; without effect where none began."""


def open_traces(settings: Settings, seconds_left: Callable[[], float]) -> AbstractAsyncContextManager[Traces]:
    """Traces, where the settings say so, for as long as the `async with` lasts; then what waits is exported.

    seconds_left: of the shutdown; the export takes no longer, and no longer than `FLUSH_SECONDS_MAX`.

    Raises:
        BadSettings: They ask for traces, and OpenTelemetry is not installed, or not configured.
    """
    if not settings.traces:
        return nullcontext(Traces())
    try:
        from .otel import open_otel  # slow to import: only for those who use it
    except ImportError:
        raise BadSettings("--traces needs OpenTelemetry; pip install 'lastcall[otel]'.") from None
    return open_otel(lambda: min(seconds_left(), FLUSH_SECONDS_MAX))
