"""The responses of one session: which may start, what their agent is told, and how they end with the session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from uuid import uuid4

import structlog
import trio

from ..agents.agent import Agent, ContextItem, Message, Turn
from ..config import Settings
from ..protocol import server_events
from ..protocol.client_events import NewItem, ResponseCancel, ResponseCreate, ResponseParams
from ..protocol.items import Item
from ..sessions.session import Session
from ..store.errors import SessionClosed
from ..store.records import EndReason, StoredItem
from .items import ConversationEntry, Items, NoRoom
from .ledger import Ledger
from .response import ActiveResponse, EventSink, ItemSink
from .room import Room
from .validation import chosen_tool, item_not_found, metadata_problem, new_item, offered_tools, refusal

OUT_OF_BAND_MAX = 4  # responses of one session at once that are no part of the conversation

_log = structlog.get_logger(__name__)


class _Kept:
    """The conversation: a response's items go where it was asked for, one after the other."""

    def __init__(self, items: Items, ledger: Ledger, room: Room, outbox: EventSink) -> None:
        self._items = items
        self._ledger = ledger
        self._room = room
        self._outbox = outbox

    def reserve(self, item: Item, after: ConversationEntry | None) -> ConversationEntry:
        try:
            return self._items.place(item, after.item.id if after else None)
        except (KeyError, NoRoom):  # deleted meanwhile; or surrounded
            return self._items.place(item)

    def announce(self, entry: ConversationEntry) -> None:
        self._items.add(entry)
        self._outbox.emit(server_events.ItemAdded(previous_item_id=entry.previous_item_id, item=entry.item))

    def release(self, entry: ConversationEntry) -> None:
        self._items.remove(entry)

    async def commit(self, entries: Sequence[ConversationEntry]) -> None:
        self._room.take(entries)  # whatever comes of the commit: the context has them
        await self._ledger.append(entries)

    def acknowledge(self, entry: ConversationEntry) -> None:
        if not entry.deleted:
            self._outbox.emit(server_events.ItemDone(previous_item_id=entry.previous_item_id, item=entry.item))


class _OutOfBand:
    """Nowhere: what a response outside the conversation says, only its own events tell."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def reserve(self, item: Item, after: ConversationEntry | None) -> ConversationEntry:
        return ConversationEntry(item)

    def announce(self, entry: ConversationEntry) -> None: ...

    def release(self, entry: ConversationEntry) -> None: ...

    async def commit(self, entries: Sequence[ConversationEntry]) -> None:
        if self._ledger.over:
            raise SessionClosed("the session is over")

    def acknowledge(self, entry: ConversationEntry) -> None: ...


class Responses:
    """start_reply: runs a response's coroutine outside the session's scope, so that no agent can hold up its end.

    rates: what is left of the client's rate of events.
    """

    def __init__(
        self,
        session: Session,
        items: Items,
        ledger: Ledger,
        room: Room,
        *,
        agent: Agent,
        briefing: str,
        outbox: EventSink,
        settings: Settings,
        draining: trio.Event,
        start_reply: Callable[[Callable[[], Awaitable[object]]], None],
        rates: Callable[[], server_events.RateLimitsUpdated],
    ) -> None:
        self._session = session
        self._items = items
        self._ledger = ledger
        self._room = room
        self._agent = agent
        self._briefing = briefing
        self._outbox = outbox
        self._settings = settings
        self._draining = draining
        self._start_reply = start_reply
        self._rates = rates
        self._active: ActiveResponse | None = None  # the conversation's own
        self._out_of_band: dict[str, ActiveResponse] = {}

    def create(self, event: ResponseCreate, config: server_events.RealtimeSession) -> None:
        """Takes the context and the answer's place before the next event is read.

        Done later, in the response's own task, the answer could land behind the user's next words.
        """
        params = event.response or ResponseParams()
        out_of_band = params.conversation == "none"
        self._check(event, params, out_of_band)
        turn = self._turn(event, params, config)
        response = server_events.Response(
            id=f"resp_{uuid4().hex}",
            conversation_id=None if out_of_band else config.conversation_id,
            max_output_tokens=params.max_output_tokens or config.max_output_tokens,
            metadata=params.metadata,
        )
        active = ActiveResponse(response, self._sink(out_of_band), self._outbox, self._rates)
        self._add(active, out_of_band)
        active.begin(turn)
        self._start_reply(lambda: self._respond(active, turn))

    def _sink(self, out_of_band: bool) -> ItemSink:
        if out_of_band:
            return _OutOfBand(self._ledger)
        return _Kept(self._items, self._ledger, self._room, self._outbox)

    def cancel(self, event: ResponseCancel) -> None:
        """Without an id, the conversation's own response is meant."""
        active = self._active
        if event.response_id is not None and (active is None or event.response_id != active.response.id):
            active = self._out_of_band.get(event.response_id)
        if active is None:
            raise refusal(event, "response_cancel_not_active", "Cancellation failed: no active response found.")
        active.cancel()

    def cut(self) -> Sequence[StoredItem]:
        """No further response; those under way are stopped, and what the conversation's own one said is returned.

        Called by `Session.take_unfinished` only. Where an item's own commit is already under way, it carries the same
        `message_id`, so it is not stored twice.
        """
        self._ledger.over = True
        for other in self._out_of_band.values():
            other.cancel()
        return self._ledger.rows(self._active.cut()) if self._active is not None else ()

    # --- what may start

    def _check(self, event: ResponseCreate, params: ResponseParams, out_of_band: bool) -> None:
        self._check_room(event, out_of_band)
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

    def _check_room(self, event: ResponseCreate, out_of_band: bool) -> None:
        if out_of_band:
            if len(self._out_of_band) >= OUT_OF_BAND_MAX:
                message = f"At most {OUT_OF_BAND_MAX} responses may run outside the conversation at a time."
                raise refusal(event, "too_many_responses", message)
        elif self._active is not None:
            message = f"Conversation already has an active response in progress: {self._active.response.id}."
            raise refusal(event, "conversation_already_has_active_response", message)
        else:
            self._room.check(event)

    # --- what its agent is told

    def _turn(self, event: ResponseCreate, params: ResponseParams, config: server_events.RealtimeSession) -> Turn:
        given = self._items.context() if params.input is None else self._input(event, params.input)
        items = self._room.within_budget(given)
        tools = offered_tools(event, config.tools if params.tools is None else params.tools, "response.tools")
        choice = chosen_tool(event, params.tool_choice or config.tool_choice, tools, "response.tool_choice")
        limit = params.max_output_tokens or config.max_output_tokens
        return Turn(
            user_id=self._session.user_id,
            conversation_id=config.conversation_id,
            instructions=with_briefing(params.instructions, self._briefing)
            if params.instructions
            else config.instructions,
            messages=[item for item in items if isinstance(item, Message)],
            max_output_tokens=limit if isinstance(limit, int) else None,
            items=items,
            tools=tools,
            tool_choice=choice,
            parallel_tool_calls=params.parallel_tool_calls,
        )

    def _input(self, event: ResponseCreate, given: Sequence[NewItem]) -> list[ContextItem]:
        """A context of the response's own: items outside the conversation, and references to some in it."""
        found = (self._input_item(event, item, f"response.input[{index}]") for index, item in enumerate(given))
        return [seen for entry in found if (seen := entry.context()) is not None]

    def _input_item(self, event: ResponseCreate, item: NewItem, param: str) -> ConversationEntry:
        if item.type != "item_reference":
            return ConversationEntry(new_item(event, item, param))
        entry = self._items.get(item.id or "")
        if entry is None:
            raise item_not_found(event, item.id or "", f"{param}.id")
        return entry

    # --- while they last

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

    async def _respond(self, active: ActiveResponse, turn: Turn) -> None:
        """The response's task. Its failures end at most this session."""
        try:
            await active.run(self._agent, turn, self._settings)
        except SessionClosed:
            self.row_is_closed()
        except Exception:  # noqa: BLE001 - the task's boundary: the session ends, nothing else
            _log.exception("response_failed", session_id=str(self._session.session_id))
            self._session.stop(EndReason.SERVER_ERROR)
        finally:
            self._remove(active)

    def row_is_closed(self) -> None:
        # Once the session is over, its row is closed by us, and the reason is known already.
        if not self._ledger.over:
            self._session.stop(EndReason.CLOSED_ELSEWHERE)


def with_briefing(instructions: str, briefing: str) -> str:
    return f"{instructions}\n\n{briefing}" if briefing else instructions
