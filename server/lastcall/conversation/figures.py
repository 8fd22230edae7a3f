"""What the responses of one session took, as rows."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET

from ..agents.agent import Agent, Usage
from ..protocol.server_events import Response
from ..sessions.session import Session
from ..store.records import StoredResponse

NAME_CHARS_MAX = 256  # of an agent, a model and a reason
TOKENS_MAX = 10**12  # a count above it is no count, and sums of many must fit a bigint
SESSION_ENDED = "session_ended"  # the reason of a response that its session's end cut off


class ResponseFigures:
    """Names what all responses of a session have in common: session, user, key and agent."""

    def __init__(self, session: Session, agent: Agent) -> None:
        self._session = session
        self._agent = agent
        self._description = _name(agent.describe) or ""

    def row(
        self, response: Response, usage: Usage | None, *, created: float, first: float | None, ended: float
    ) -> StoredResponse:
        """The row of a response. created, first, ended: see `StoredResponse`. One that goes on is cut off now."""
        outcome, reason = response.status, None
        if outcome == "in_progress":
            outcome, reason = "cancelled", SESSION_ENDED
        elif (details := response.status_details) is not None:
            reason = _name(details.error.code if details.error is not UNSET else details.reason)
        counts = tokens_of(usage) or (None, None, None)
        return StoredResponse(
            response_id=response.id.removeprefix("resp_"),
            session_id=self._session.session_id,
            user_id=self._session.user_id,
            key_id=self._session.key_id,
            agent=self._description,
            model=_name(getattr(self._agent, "model", None)),
            outcome=outcome,
            reason=reason,
            created=created,
            first=first,
            ended=ended,
            input_tokens=counts[0],
            output_tokens=counts[1],
            cached_tokens=counts[2],
        )


def tokens_of(usage: Usage | None) -> Sequence[int | None]:
    """Input tokens, output tokens, and how many of the input were cached; empty: the model reported none."""
    if usage is None:
        return ()
    return _count(usage.input_tokens), _count(usage.output_tokens), _count(usage.cached_tokens)


def _name(name: object) -> str | None:
    """A name as PostgreSQL can hold it: anybody's agent gives it."""
    if not isinstance(name, str):
        return None
    name = name[:NAME_CHARS_MAX].replace("\0", "")
    return name if name.isascii() else name.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _count(tokens: object) -> int | None:
    return tokens if type(tokens) is int and 0 <= tokens <= TOKENS_MAX else None
