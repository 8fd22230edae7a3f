"""Starts, cancels and stops the responses of one session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import structlog
import trio

from ...agents.agent import Agent, KnownFact
from ...agents.recalled import RecalledTurn
from ...config import Settings
from ...limits.limit import Limit
from ...memory.search.asked import Find
from ...protocol import server_events
from ...protocol.client_events import ResponseCancel, ResponseCreate, ResponseParams
from ...protocol.ids import new_id
from ...sessions.session import Session
from ...store.errors import SessionClosed
from ...store.records import EndReason, StoredRow
from ..figures import ResponseFigures
from ..journal import Journal
from ..sinks import ConversationSink, EventSink, ItemSink, OutOfBandSink
from ..timeline import Timeline
from ..turns import TurnBuilder
from ..validation import metadata_problem, refusal
from .response import ActiveResponse

OUT_OF_BAND_MAX = 4  # responses of one session at once that are no part of the conversation

Ended: TypeAlias = Callable[[str, float | None, Sequence[int | None], str | None], None]

_log = structlog.get_logger(__name__)


class Responder:
    """The responses of one session: at most one in the conversation, and a few out of band.

    start_reply: runs a response in a task outside the session's scope, so that no agent can delay the session's end.
    rates: what is left of the client's event rate.
    count: counts refusals per limit.
    ended: called for each response that is over, with its status, the seconds until the agent's first piece, if any,
        its tokens, and the error code if it failed.
    """

    def __init__(
        self,
        session: Session,
        timeline: Timeline,
        journal: Journal,
        *,
        agent: Agent,
        briefing: str,
        facts: Sequence[KnownFact],
        find: Find | None,
        outbox: EventSink,
        settings: Settings,
        draining: trio.Event,
        start_reply: Callable[[Callable[[], Awaitable[object]]], None],
        rates: Callable[[], server_events.RateLimitsUpdated],
        count: Callable[[Limit], None],
        ended: Ended,
    ) -> None:
        self._session = session
        self._timeline = timeline
        self._journal = journal
        self._agent = agent
        self._turns = TurnBuilder(session, timeline, briefing, settings, count, facts, find)
        self._outbox = outbox
        self._settings = settings
        self._draining = draining
        self._start_reply = start_reply
        self._rates = rates
        self._ended = ended
        self._figures = ResponseFigures(session, agent)
        self._active: ActiveResponse | None = None  # the one in the conversation
        self._out_of_band: dict[str, ActiveResponse] = {}

    def create(
        self, event: ResponseCreate, config: server_events.RealtimeSession, recalled: Sequence[RecalledTurn] = ()
    ) -> None:
        """Starts a response. Raises `EventRejected`.

        recalled: from the user's past; not for a response with an input of its own, which may be about anything.

        The context is taken and the answer's place reserved here, before the next event is handled: in the
        response's own task, the answer could land behind the user's next message.
        """
        params = event.response or ResponseParams()
        out_of_band = params.conversation == "none"
        self._check(event, params, out_of_band)
        turn, texts_bytes = self._turns.build(event, params, config, recalled if params.input is None else ())
        response = server_events.Response(
            id=new_id("resp"),
            conversation_id=None if out_of_band else config.conversation_id,
            max_output_tokens=params.max_output_tokens or config.max_output_tokens,
            metadata=params.metadata,
        )
        active = ActiveResponse(
            response,
            turn,
            self._sink(out_of_band),
            self._outbox,
            settings=self._settings,
            rates=self._rates,
            memory=self._session.memory,
            texts_bytes=texts_bytes,
            figures=self._figures,
        )
        self._add(active, out_of_band)
        active.begin()
        self._start_reply(lambda: self._run(active))

    def cancel(self, event: ResponseCancel) -> None:
        """Cancels a response: without an id, the one in the conversation. Raises `EventRejected`."""
        active = self._active
        if event.response_id is not None and (active is None or event.response_id != active.response.id):
            active = self._out_of_band.get(event.response_id)
        if active is None:
            raise refusal(event, "response_cancel_not_active", "Cancellation failed: no active response found.")
        active.cancel()

    def stop(self) -> Sequence[StoredRow]:
        """Stops all responses, for good; returns the rows of the unfinished answer in the conversation, and figures.

        Called by `Session.take_unfinished` only. A commit of these rows may be in flight; it has the same ids, so
        nothing is stored twice.
        """
        self._journal.closed = True
        rows: list[StoredRow] = [*self._journal.unkept()]
        for other in self._out_of_band.values():
            other.cancel()
            rows.append(other.figures())
        if self._active is not None:
            rows += self._journal.rows(self._active.stop(), self._active.figures())
        return rows

    def row_is_closed(self) -> None:
        """Ends the session because somebody else closed its row."""
        # After the session's own end, the row was closed by us, and the reason is set already.
        if not self._journal.closed:
            self._session.stop(EndReason.CLOSED_ELSEWHERE)

    def _check(self, event: ResponseCreate, params: ResponseParams, out_of_band: bool) -> None:
        self._check_limits(event, out_of_band)
        if self._draining.is_set():
            raise refusal(event, "server_shutting_down", "The server is restarting. Please reconnect.")
        if params.conversation not in (None, "auto", "none"):
            raise refusal(event, "invalid_value", 'conversation must be "auto" or "none".', "response.conversation")
        if params.prompt is not None:
            message = "Stored prompts are not supported; send instructions instead."
            raise refusal(event, "invalid_value", message, "response.prompt")
        problem = metadata_problem(params.metadata)
        if problem:
            raise refusal(event, "invalid_value", f"Invalid metadata: {problem}.", "response.metadata")

    def _check_limits(self, event: ResponseCreate, out_of_band: bool) -> None:
        if out_of_band:
            self._journal.check_memory(event)
            if len(self._out_of_band) >= OUT_OF_BAND_MAX:
                message = f"At most {OUT_OF_BAND_MAX} responses may run outside the conversation at a time."
                raise refusal(event, "too_many_responses", message)
        elif self._active is not None:
            message = f"Conversation already has an active response in progress: {self._active.response.id}."
            raise refusal(event, "conversation_already_has_active_response", message)
        else:
            self._journal.check_quota(event)

    def _sink(self, out_of_band: bool) -> ItemSink:
        if out_of_band:
            return OutOfBandSink(self._journal)
        return ConversationSink(self._timeline, self._journal, self._outbox)

    def _add(self, active: ActiveResponse, out_of_band: bool) -> None:
        self._session.response_began()
        if out_of_band:
            self._out_of_band[active.response.id] = active
        else:
            self._active = active

    def _remove(self, active: ActiveResponse) -> None:
        self._out_of_band.pop(active.response.id, None)
        if self._active is active:
            self._active = None
        self._session.response_ended()

    async def _run(self, active: ActiveResponse) -> None:
        """The response's task. Its failures end at most this session."""
        try:
            await active.run(self._agent)
            self._ended(active.response.status, active.first_piece_seconds, active.tokens, active.failure_code)
        except SessionClosed:
            self.row_is_closed()
        except Exception:  # noqa: BLE001 - the task's boundary: the session ends, nothing else
            _log.exception("response_failed", session_id=str(self._session.session_id))
            self._session.stop(EndReason.SERVER_ERROR)
        finally:
            self._remove(active)
        # Not before: until then the client cannot have the next answer.
        if not active.figures_stored:
            await self._journal.keep(active.figures())
