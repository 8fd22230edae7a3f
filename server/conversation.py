"""The conversation of one session: takes the client's events one by one, answers each, and starts responses."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import uuid4

import structlog
import trio
from msgspec import UNSET

from . import wire
from .agent import Agent, Message, Turn
from .config import Settings
from .items import Entry, Items, within_budget
from .limits import Limit
from .response import ActiveResponse, Outbox
from .session import Session, public_id
from .store import EndReason, ItemExists, SessionClosed, Store, StoredItem, StoreError
from .wire import ErrorDetail, Rejected

_log = structlog.get_logger(__name__)

ITEM_ID_CHARS_MAX = 128


@dataclass(frozen=True, slots=True)
class Opening:
    """What a conversation starts with.

    briefing: what is remembered of the user; it stays in the instructions whatever the client sets.
    expires_at: when the session's time will be up, in Unix seconds.
    """

    model: str
    instructions: str
    briefing: str
    history: Sequence[StoredItem]
    expires_at: int


class Conversation:
    """One session's conversation.

    start_reply: runs a response's coroutine outside the session's scope, so that no agent can hold up its end.
    rates: what is left of the client's rate of events. count: counts what a limit refuses.
    """

    def __init__(
        self,
        session: Session,
        opening: Opening,
        *,
        agent: Agent,
        store: Store,
        outbox: Outbox,
        settings: Settings,
        draining: trio.Event,
        start_reply: Callable[[Callable[[], Awaitable[object]]], None],
        rates: Callable[[], wire.RateLimitsUpdated],
        count: Callable[[Limit], None],
    ) -> None:
        self._session = session
        self._agent = agent
        self._store = store
        self._outbox = outbox
        self._settings = settings
        self._draining = draining
        self._start_reply = start_reply
        self._rates = rates
        self._count = count
        self._items = Items(opening.history)
        self._chars_taken = 0  # by this session: the history has its own limit
        self._replayed = False
        self._briefing = opening.briefing
        self._active: tuple[ActiveResponse, Entry] | None = None
        self._over = False
        self._config = wire.Session(
            id=session.public_id,
            model=opening.model,
            instructions=_with_briefing(opening.instructions, opening.briefing),
            expires_at=opening.expires_at,
            conversation_id=public_id("conv", session.conversation_id),
        )
        session.cut = self.cut

    def greet(self) -> None:
        """The first events of a session."""
        self._outbox.emit(wire.SessionCreated(session=self._config))
        self._outbox.emit(wire.ConversationCreated(conversation=wire.ConversationRef(id=self._config.conversation_id)))

    async def run(self, inbox: AsyncIterable[wire.AnyClientEvent | Rejected]) -> None:
        """Handles events in their order, until the inbox ends or the session does."""
        async for event in inbox:
            try:
                await self._handle(event)
            except Rejected as rejection:
                self._outbox.emit(wire.Error(error=rejection.detail))
            except SessionClosed:
                self._row_is_closed()
            await self._outbox.room()

    async def _handle(self, event: wire.AnyClientEvent | Rejected) -> None:
        if not self._replayed:
            self._replayed = True
            await self._replay()
        match event:
            case Rejected():
                raise event
            case wire.SessionUpdate():
                self._update(event)
            case wire.ItemCreate():
                await self._create_item(event)
            case wire.ResponseCreate():
                self._create_response(event)
            case wire.ResponseCancel():
                self._cancel_response(event)

    async def _replay(self) -> None:
        """Sends the stored items again. Not before the client's first event: one client forgets what comes earlier."""
        for entry in self._items:
            self._outbox.emit(wire.ItemAdded(previous_item_id=entry.previous_item_id, item=entry.item))
            self._outbox.emit(wire.ItemDone(previous_item_id=entry.previous_item_id, item=entry.item))
            await self._outbox.room()

    # --- session.update

    def _update(self, event: wire.SessionUpdate) -> None:
        patch, config = event.session, self._config
        if patch.type != "realtime":
            raise _refusal(
                event, "invalid_value", f"Sessions of type {patch.type!r:.100} are not served.", "session.type"
            )
        if patch.instructions is not UNSET:
            base = patch.instructions or self._settings.instructions
            config.instructions = _with_briefing(base, self._briefing)
        if patch.tools is not UNSET:
            config.tools = patch.tools or []
        if patch.tool_choice is not UNSET:
            config.tool_choice = patch.tool_choice or "auto"
        if patch.max_output_tokens is not UNSET:
            config.max_output_tokens = patch.max_output_tokens or "inf"
        if patch.tracing is not UNSET:
            config.tracing = patch.tracing or None
        if patch.truncation is not UNSET:
            config.truncation = patch.truncation or "auto"
        self._outbox.emit(wire.SessionUpdated(session=config))

    # --- conversation.item.create

    async def _create_item(self, event: wire.ItemCreate) -> None:
        self._check_item(event)
        item = wire.MessageItem(
            id=event.item.id or f"item_{uuid4().hex}",
            status="completed",
            role=event.item.role,
            content=event.item.content,
        )
        entry = self._items.next(item)
        try:
            await self._commit(entry)
        except ItemExists:
            raise _item_exists(event) from None
        except SessionClosed:
            raise
        except StoreError as error:
            _log.warning("item_not_stored", session_id=str(self._session.session_id), error=str(error))
            raise _refusal(
                event, "store_unavailable", "The item could not be stored. Please try again.", None, "server_error"
            ) from None
        self._items.add(entry)
        self._chars_taken += len(entry.text)
        self._outbox.emit(wire.ItemAdded(previous_item_id=entry.previous_item_id, item=item))
        self._outbox.emit(wire.ItemDone(previous_item_id=entry.previous_item_id, item=item))

    def _check_item(self, event: wire.ItemCreate) -> None:
        item = event.item
        if item.id is not None and not 1 <= len(item.id) <= ITEM_ID_CHARS_MAX:
            raise _refusal(event, "invalid_value", f"An id has 1 to {ITEM_ID_CHARS_MAX} characters.", "item.id")
        if "\0" in (item.id or "") or any("\0" in part.text for part in item.content):
            raise _refusal(event, "invalid_value", "Text cannot hold the character NUL.", "item")
        if item.id is not None and item.id in self._items:
            raise _item_exists(event)
        wanted = wire.OutputText if item.role == "assistant" else wire.InputText
        for index, part in enumerate(item.content):
            if not isinstance(part, wanted):
                param = f"item.content[{index}].type"
                raise _refusal(event, "invalid_value", f"A {item.role} item has other content parts.", param)
        if event.previous_item_id not in (None, self._items.last_item_id):
            raise _refusal(event, "invalid_value", "Items can only be appended.", "previous_item_id")
        self._check_room(event, sum(len(part.text) for part in item.content))

    def _check_room(self, event: wire.ItemCreate | wire.ResponseCreate, chars: int) -> None:
        """Whether the conversation holds one more item, of so many characters."""
        settings = self._settings
        if len(self._items) >= settings.items_max:
            self._count(Limit.ITEMS)
            raise _refusal(event, "conversation_full", f"More than {settings.items_max} items.", None)
        if self._chars_taken + chars > settings.conversation_chars_max:
            self._count(Limit.ITEMS)
            text = f"More than {settings.conversation_chars_max} characters in this session."
            raise _refusal(event, "conversation_full", text, None)

    def _row_is_closed(self) -> None:
        # Once the session is over, its row is closed by us, and the reason is known already.
        if not self._over:
            self._session.stop(EndReason.CLOSED_ELSEWHERE)

    async def _commit(self, entry: Entry) -> None:
        """Stores an item. After `cut` nothing more is stored, and so nothing more acknowledged, by this way."""
        if self._over:
            raise SessionClosed("the session is over")
        stored = entry.stored(self._session.session_id, self._session.conversation_id)
        await self._store.append_items([stored], within=self._settings.append_seconds)

    # --- response.create, response.cancel

    def _create_response(self, event: wire.ResponseCreate) -> None:
        """Takes the context and puts the answer's item in its place before the next event is read.

        Done later, in the response's own task, the answer could land behind the user's next words.
        """
        params = event.response or wire.ResponseParams()
        self._check_response(event, params)
        messages = self._within_budget()
        item = wire.MessageItem(id=f"item_{uuid4().hex}", status="in_progress", role="assistant", content=[])
        entry = self._items.next(item)
        self._items.add(entry)
        limit = params.max_output_tokens or self._config.max_output_tokens
        response = wire.Response(
            id=f"resp_{uuid4().hex}",
            conversation_id=self._config.conversation_id,
            max_output_tokens=limit,
            metadata=params.metadata,
        )
        active = ActiveResponse(
            response, item, entry.previous_item_id, self._outbox, lambda: self._commit(entry), self._rates
        )
        turn = Turn(
            user_id=self._session.user_id,
            conversation_id=self._config.conversation_id,
            instructions=_with_briefing(params.instructions, self._briefing)
            if params.instructions
            else self._config.instructions,
            messages=messages,
            max_output_tokens=limit if isinstance(limit, int) else None,
        )
        self._active = active, entry
        self._session.answered = trio.Event()
        self._start_reply(lambda: self._respond(active, turn))

    def _within_budget(self) -> Sequence[Message]:
        messages = self._items.messages()
        kept = within_budget(messages, self._settings.context_chars_max)
        if len(kept) < len(messages):
            self._count(Limit.CONTEXT)
        return kept

    def _check_response(self, event: wire.ResponseCreate, params: wire.ResponseParams) -> None:
        if self._active is not None:
            message = f"Conversation already has an active response in progress: {self._active[0].response.id}."
            raise _refusal(event, "conversation_already_has_active_response", message, None)
        if self._draining.is_set():
            raise _refusal(
                event, "server_shutting_down", "The server is restarting. Please reconnect.", None, "server_error"
            )
        if params.conversation not in (None, "auto"):
            message = "Responses outside the conversation are not supported."
            raise _refusal(event, "invalid_value", message, "response.conversation")
        if params.input is not None:
            message = "A response's own input is not supported: create items instead."
            raise _refusal(event, "invalid_value", message, "response.input")
        problem = wire.metadata_problem(params.metadata)
        if problem:
            raise _refusal(event, "invalid_value", f"Invalid metadata: {problem}.", "response.metadata")
        self._check_room(event, 0)

    async def _respond(self, active: ActiveResponse, turn: Turn) -> None:
        """The response's task. Its failures end at most this session."""
        try:
            await active.run(self._agent, turn, self._settings)
        except SessionClosed:
            self._row_is_closed()
        except Exception:  # noqa: BLE001 - the task's boundary: the session ends, nothing else
            _log.exception("response_failed", session_id=str(self._session.session_id))
            self._session.stop(EndReason.SERVER_ERROR)
        finally:
            self._chars_taken += len(active.text)
            self._session.answered.set()
            if not self._over:
                self._active = None

    def _cancel_response(self, event: wire.ResponseCancel) -> None:
        if self._active is None or event.response_id not in (None, self._active[0].response.id):
            message = "Cancellation failed: no active response found."
            raise _refusal(event, "response_cancel_not_active", message, None)
        self._active[0].cancel()

    def cut(self) -> Sequence[StoredItem]:
        """Ends the conversation: no further response; one under way is stopped, and its item returned for storing.

        Synchronous, and the same answer each time. Where the item's own commit is already under way, it carries the
        same `message_id`, so it is not stored twice.
        """
        self._over = True
        if self._active is None:
            return ()
        active, entry = self._active
        active.cancel()
        if entry.item.status == "in_progress":
            entry.item.status = "incomplete"
            entry.item.content = [wire.OutputText(active.text)]
        return (entry.stored(self._session.session_id, self._session.conversation_id),)


def _with_briefing(instructions: str, briefing: str) -> str:
    return f"{instructions}\n\n{briefing}" if briefing else instructions


def _refusal(
    event: wire.ClientEvent, code: str, message: str, param: str | None, kind: str = "invalid_request_error"
) -> Rejected:
    return Rejected(
        ErrorDetail(
            type="server_error" if kind == "server_error" else "invalid_request_error",
            code=code,
            message=message,
            param=param,
            event_id=event.event_id,
        )
    )


def _item_exists(event: wire.ItemCreate) -> Rejected:
    return _refusal(event, "item_already_exists", f"Item '{event.item.id}' is already in the conversation.", "item.id")
