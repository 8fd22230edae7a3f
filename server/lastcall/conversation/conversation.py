"""The conversation of one session: takes the client's events one by one, answers each, and starts responses."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
import trio
from msgspec import UNSET

from ..agents.agent import Agent
from ..config import Settings
from ..limits.limit import Limit
from ..protocol import server_events
from ..protocol.client_events import (
    AnyClientEvent,
    ClientEvent,
    EventRejected,
    ItemCreate,
    ItemDelete,
    ItemRetrieve,
    ResponseCancel,
    ResponseCreate,
    SessionPatch,
    SessionUpdate,
)
from ..protocol.ids import public_id
from ..sessions.session import Session
from ..store.errors import ItemExists, ItemNotFound, SessionClosed, StoreError
from ..store.records import StoredItem
from ..store.store import Store
from .items import ROOT, ConversationEntry, Items, NoRoom
from .ledger import Ledger
from .response import EventSink
from .responses import Responses, with_briefing
from .room import Room
from .validation import item_exists, item_not_found, known_choice, new_item, offered_tools, refusal

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a conversation starts with.

    briefing: what is remembered of the user; it stays in the instructions whatever the client sets.
    history: the newest stored items, oldest first: the agent's context.
    replay: how many of the newest of these the client is sent again.
    expires_at: when the session's time will be up, in Unix seconds.
    """

    model: str
    instructions: str
    briefing: str
    history: Sequence[StoredItem]
    replay: int
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
        outbox: EventSink,
        settings: Settings,
        draining: trio.Event,
        start_reply: Callable[[Callable[[], Awaitable[object]]], None],
        rates: Callable[[], server_events.RateLimitsUpdated],
        count: Callable[[Limit], None],
    ) -> None:
        self._session = session
        self._outbox = outbox
        self._settings = settings
        self._items = Items(opening.history)
        self._replay: Sequence[ConversationEntry] = list(self._items)[-opening.replay :] if opening.replay else ()
        self._briefing = opening.briefing
        self._room = Room(self._items, settings, count)
        self._ledger = Ledger(session, store, settings)
        self._responses = Responses(
            session,
            self._items,
            self._ledger,
            self._room,
            agent=agent,
            briefing=opening.briefing,
            outbox=outbox,
            settings=settings,
            draining=draining,
            start_reply=start_reply,
            rates=rates,
        )
        self._config = server_events.RealtimeSession(
            id=session.public_id,
            model=opening.model,
            instructions=with_briefing(opening.instructions, opening.briefing),
            expires_at=opening.expires_at,
            conversation_id=public_id("conv", session.conversation_id),
        )
        session.stop_responses_with(self._responses.cut)

    def send_created(self) -> None:
        """The first events of a session."""
        self._outbox.emit(server_events.SessionCreated(session=self._config))
        self._outbox.emit(
            server_events.ConversationCreated(
                conversation=server_events.ConversationRef(id=self._config.conversation_id)
            )
        )

    async def run(self, inbox: AsyncIterable[AnyClientEvent | EventRejected]) -> None:
        """Handles events in their order, until the inbox ends or the session does."""
        async for event in inbox:
            try:
                await self._handle(event)
            except EventRejected as rejection:
                self._outbox.emit(rejection.error)
            except SessionClosed:
                self._responses.row_is_closed()
            await self._outbox.room()

    async def _handle(self, event: AnyClientEvent | EventRejected) -> None:
        await self._send_replay()
        if isinstance(event, EventRejected):
            raise event
        await self._answer(event)

    async def _answer(self, event: AnyClientEvent) -> None:
        match event:
            case SessionUpdate():
                self._update(event)
            case ItemCreate():
                await self._create_item(event)
            case ItemRetrieve():
                self._retrieve_item(event)
            case ItemDelete():
                await self._delete_item(event)
            case ResponseCreate():
                self._responses.create(event, self._config)
            case ResponseCancel():
                self._responses.cancel(event)

    async def _send_replay(self) -> None:
        """Sends stored items again. Not before the client's first event: one client forgets what comes earlier."""
        replay, self._replay = self._replay, ()
        for entry in replay:
            self._outbox.emit(server_events.ItemAdded(previous_item_id=entry.previous_item_id, item=entry.item))
            self._outbox.emit(server_events.ItemDone(previous_item_id=entry.previous_item_id, item=entry.item))
            await self._outbox.room()

    # --- session.update

    def _update(self, event: SessionUpdate) -> None:
        self._check_patch(event, event.session)
        self.configure(event.session)
        self._outbox.emit(server_events.SessionUpdated(session=self._config))

    def configure(self, patch: SessionPatch) -> None:
        """Takes over what is given; what is absent stays as it is."""
        config = self._config
        if patch.instructions is not UNSET:
            base = patch.instructions or self._settings.instructions
            config.instructions = with_briefing(base, self._briefing)
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

    def _check_patch(self, event: SessionUpdate, patch: SessionPatch) -> None:
        if patch.type != "realtime":
            message = f"Sessions of type {patch.type!r:.100} are not supported."
            raise refusal(event, "invalid_value", message, "session.type")
        if patch.tools:
            offered_tools(event, patch.tools, "session.tools")
        if patch.tool_choice:
            known_choice(event, patch.tool_choice, "session.tool_choice")

    # --- items

    async def _create_item(self, event: ItemCreate) -> None:
        entry = self._placed(event)
        try:
            with self._storing(event):
                await self._ledger.append([entry])
            self._items.add(entry)
            self._room.take([entry])
        except ItemExists:  # beyond what this session has loaded, or deleted
            raise item_exists(event, entry.item.id) from None
        finally:
            if not entry.known:
                self._items.remove(entry)
        self._outbox.emit(server_events.ItemAdded(previous_item_id=entry.previous_item_id, item=entry.item))
        self._outbox.emit(server_events.ItemDone(previous_item_id=entry.previous_item_id, item=entry.item))

    def _placed(self, event: ItemCreate) -> ConversationEntry:
        """The new item at its place. Taken before the commit: what a response adds meanwhile goes elsewhere."""
        if event.item.id == ROOT:
            raise refusal(event, "invalid_value", f"The id '{ROOT}' is reserved.", "item.id")
        if event.item.type == "item_reference":
            message = "item_reference is only allowed in the input of a response."
            raise refusal(event, "invalid_value", message, "item.type")
        item = new_item(event, event.item, "item")
        if item.id in self._items:
            raise item_exists(event, item.id)
        self._room.check(event, len(ConversationEntry(item).text))
        try:
            return self._items.place(item, event.previous_item_id)
        except KeyError:
            raise item_not_found(event, event.previous_item_id or "", "previous_item_id") from None
        except NoRoom:
            message = f"No further item fits after '{event.previous_item_id:.200}'; choose another place, or the end."
            raise refusal(event, "no_room", message, "previous_item_id") from None

    def _retrieve_item(self, event: ItemRetrieve) -> None:
        entry = self._items.get(event.item_id)
        if entry is None:
            raise item_not_found(event, event.item_id, "item_id")
        self._outbox.emit(server_events.ItemRetrieved(item=entry.item))

    async def _delete_item(self, event: ItemDelete) -> None:
        """Takes an item out of the conversation; the transcript keeps it, marked."""
        entry = self._items.get(event.item_id)
        if entry is not None and entry.item.status == "in_progress":
            entry.deleted = True  # its response goes on, and stores it with the mark
        else:
            await self._mark_deleted(event, entry)
        if entry is not None:
            self._items.remove(entry)
        self._outbox.emit(server_events.ItemDeleted(item_id=event.item_id))

    async def _mark_deleted(self, event: ItemDelete, entry: ConversationEntry | None) -> None:
        if "\0" in event.item_id:
            raise item_not_found(event, event.item_id, "item_id")
        try:
            with self._storing(event):
                await self._ledger.delete(event.item_id)
        except ItemNotFound:
            if entry is None:  # else one that could not be stored: it is in the context alone
                raise item_not_found(event, event.item_id, "item_id") from None

    @contextmanager
    def _storing(self, event: ClientEvent) -> Iterator[None]:
        """Tells the client of a store that does not do it now."""
        try:
            yield
        except (SessionClosed, ItemExists, ItemNotFound):
            raise
        except StoreError as error:
            _log.warning("event_not_stored", session_id=str(self._session.session_id), error=str(error))
            message = "It could not be stored. Please try again."
            raise refusal(event, "store_unavailable", message) from None
