"""The conversation of one session: handles the client's events one by one, and starts responses."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable

import msgspec
import structlog
import trio

from ..agents.agent import Agent
from ..config import Settings
from ..limits.limit import Limit
from ..limits.memory import json_bytes
from ..memory.meaning.encoder import Encode
from ..memory.recall import briefing, known_facts
from ..memory.search.past import past_of
from ..protocol import server_events
from ..protocol.client_events import (
    AnyClientEvent,
    AudioBufferClear,
    ClientEvent,
    EventRejected,
    ItemCreate,
    ItemDelete,
    ItemRetrieve,
    ItemTruncate,
    ResponseCancel,
    ResponseCreate,
    SessionPatch,
    SessionUpdate,
)
from ..protocol.items import Item, MessageItem
from ..sessions.session import Session
from ..store.errors import ItemExists, ItemNotFound, SessionClosed, StoreError
from ..store.store import Store
from .audio import answer_about_audio
from .configuration import Opening, apply_patch, check_patch, config_of
from .following import Follower
from .journal import Journal
from .responses.responder import Ended, Responder
from .sinks import EventSink
from .timeline import ROOT, NoFreePosition, Timeline, UnknownItem
from .validation import item_exists, item_not_found, new_item, refusal

_log = structlog.get_logger(__name__)


class Conversation:
    """One session's conversation.

    start_reply: runs a response in a task outside the session's scope, so that no agent can delay the session's end.
    encode: see `Past`.
    rates: what is left of the client's event rate.
    count: counts refusals per limit.
    response_ended: see `Responder`.

    Attributes:
        catch_up: Takes over what other sessions of the conversation change, a `sessions.changes.CatchUp`.
    """

    def __init__(
        self,
        session: Session,
        opening: Opening,
        *,
        agent: Agent,
        store: Store,
        encode: Encode | None,
        outbox: EventSink,
        settings: Settings,
        draining: trio.Event,
        start_reply: Callable[[Callable[[], Awaitable[object]]], None],
        rates: Callable[[], server_events.RateLimitsUpdated],
        count: Callable[[Limit], None],
        response_ended: Ended,
    ) -> None:
        self._session = session
        self._outbox = outbox
        self._settings = settings
        self._timeline = Timeline(opening.history, session.memory.add, older=opening.older)
        self._briefing = briefing(opening.known, session.conversation_id)
        self._config_held = 0
        self._past = past_of(session, agent, opening.known, store, self._timeline.__contains__, encode)
        self._forget = self._past.forget if self._past is not None else _keep
        self._follower = Follower(
            session,
            self._timeline,
            store,
            outbox,
            settings,
            count,
            forgotten=self._forget,
            replay=opening.replay,
            loaded_from=opening.loaded_from(settings.history_items_max),
        )
        self.catch_up = self._follower.catch_up
        self._journal = Journal(session, self._timeline, store, settings, count)
        self._responder = Responder(
            session,
            self._timeline,
            self._journal,
            agent=agent,
            briefing=self._briefing,
            facts=known_facts(opening.known.facts),
            find=self._past.find if self._past is not None else None,
            outbox=outbox,
            settings=settings,
            draining=draining,
            start_reply=start_reply,
            rates=rates,
            count=count,
            ended=response_ended,
        )
        self._config = config_of(session, opening, self._briefing)
        session.stop_responses_with(self._responder.stop)

    def send_created(self) -> None:
        """Sends the first events of the session."""
        self._outbox.emit(server_events.SessionCreated(session=self._config))
        conversation = server_events.ConversationRef(id=self._config.conversation_id)
        self._outbox.emit(server_events.ConversationCreated(conversation=conversation))

    async def run(self, inbox: AsyncIterable[AnyClientEvent | EventRejected]) -> None:
        """Handles events in order, until the inbox ends or the session does."""
        if self._past is None:
            await self._run(inbox)
            return
        async with self._past.open():
            await self._run(inbox)

    async def _run(self, inbox: AsyncIterable[AnyClientEvent | EventRejected]) -> None:
        async for event in inbox:
            try:
                await self._handle(event)
            except EventRejected as rejection:
                self._outbox.emit(rejection.error)
            except SessionClosed:
                self._responder.row_is_closed()
            del event  # it may be large, and the next one may be far away
            await self._outbox.room()

    async def _handle(self, event: AnyClientEvent | EventRejected) -> None:
        if self._follower.silent:
            await self._follower.begin()
        if isinstance(event, EventRejected):
            raise event
        await self._dispatch(event)

    async def _dispatch(self, event: AnyClientEvent) -> None:
        match event:
            case ItemCreate():
                await self._create_item(event)
            case ResponseCreate():
                recalled = await self._past.turns() if self._past is not None else ()
                self._responder.create(event, self._config, recalled)
            case SessionUpdate():
                self._update(event)
            case ItemRetrieve():
                self._retrieve_item(event)
            case ItemDelete():
                await self._delete_item(event)
            case ItemTruncate() | AudioBufferClear():
                self._outbox.emit(answer_about_audio(event, self._timeline))
            case ResponseCancel():
                self._responder.cancel(event)

    def _update(self, event: SessionUpdate) -> None:
        check_patch(event)
        self.configure(event.session)
        self._outbox.emit(server_events.SessionUpdated(session=self._config))

    def configure(self, patch: SessionPatch) -> None:
        """Sets the values that are present; absent ones stay."""
        apply_patch(self._config, patch, instructions=self._settings.instructions, briefing=self._briefing)
        held, self._config_held = self._config_held, json_bytes(msgspec.json.encode(self._config))
        self._session.memory.add(self._config_held - held)

    # --- items

    async def _create_item(self, event: ItemCreate) -> None:
        item = self._checked_item(event)
        if self._past is not None and isinstance(item, MessageItem) and item.role == "user":
            self._past.look_up("".join(part.text for part in item.content))  # beside the commit
        try:
            entry = await self._journal.append(event, item)
        except ItemExists:  # stored before what this session has loaded, or by another session
            raise item_exists(event, item.id) from None
        except UnknownItem:
            raise item_not_found(event, event.previous_item_id or "", "previous_item_id") from None
        except NoFreePosition:
            message = f"No further item fits after '{event.previous_item_id:.200}'; choose another place, or the end."
            raise refusal(event, "no_room", message, "previous_item_id") from None
        except SessionClosed:
            raise
        except StoreError as error:
            raise self._not_stored(event, error) from None
        self._outbox.emit(server_events.ItemAdded(previous_item_id=entry.previous_item_id, item=entry.item))
        self._outbox.emit(server_events.ItemDone(previous_item_id=entry.previous_item_id, item=entry.item))

    def _checked_item(self, event: ItemCreate) -> Item:
        if event.item.id == ROOT:
            raise refusal(event, "invalid_value", f"The id '{ROOT}' is reserved.", "item.id")
        if event.item.type == "item_reference":
            message = "item_reference is only allowed in the input of a response."
            raise refusal(event, "invalid_value", message, "item.type")
        item = new_item(event, event.item, "item")
        if item.id in self._timeline:
            raise item_exists(event, item.id)
        return item

    def _retrieve_item(self, event: ItemRetrieve) -> None:
        entry = self._timeline.get(event.item_id)
        if entry is None:
            raise item_not_found(event, event.item_id, "item_id")
        self._outbox.emit(server_events.ItemRetrieved(item=entry.item))

    async def _delete_item(self, event: ItemDelete) -> None:
        """Removes an item from the conversation, and its id is free again; the transcript keeps it, marked."""
        try:
            with self._follower.deleting(event.item_id):
                await self._journal.delete(event.item_id)
        except ItemNotFound:
            raise item_not_found(event, event.item_id, "item_id") from None
        except SessionClosed:
            raise
        except StoreError as error:
            raise self._not_stored(event, error) from None
        self._follower.deleted(event.item_id)
        self._forget(event.item_id)
        self._outbox.emit(server_events.ItemDeleted(item_id=event.item_id))

    def _not_stored(self, event: ClientEvent, error: StoreError) -> EventRejected:
        """The rejection of an event that the store cannot do now."""
        _log.warning("event_not_stored", session_id=str(self._session.session_id), error=str(error))
        return refusal(event, "store_unavailable", "It could not be stored. Please try again.")


def _keep(_item_id: str) -> None:
    """Nothing was recalled, so nothing has to be forgotten."""
