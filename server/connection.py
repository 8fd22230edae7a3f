"""One WebSocket connection's life: handshake, session, and the one exit path that every ending takes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import structlog
import trio
import wsproto.utilities
from trio_websocket import ConnectionClosed, WebSocketRequest

from . import wire
from .admission import Admission, admit, refusal_body
from .client_events import AnyClientEvent, Rejected, event_id_of, parse_event, parse_session
from .conversation import Conversation, Opening
from .frames import close_frame, text_frame
from .gate import Gate, refusal_of, retry_after
from .identity import Principal, Refused
from .inbox import Inbox
from .limits import Limit
from .memory import briefing
from .session import Session
from .session_limits import SessionLimits, frame_pace, shape_refusal
from .store import CredentialRevoked, EndReason, SessionEnd, SessionStart, StoredItem, StoreError
from .websocket import WebSocket

if TYPE_CHECKING:
    from .agent import Agent
    from .authentication import Authenticator
    from .config import Settings
    from .instance import Presence
    from .memory import Finalizer
    from .metrics import Metrics
    from .session import Registry
    from .store import Store
    from .stream import BufferedStream

STALL_SECONDS = 0.25  # of a ping's timeout: for a pong that waits to be read after this process stood still
BAD_KEY = 3000  # the close code of a client that is refused once its socket is open
_REASONS = {401: "credentials", 429: "limits"}
CLOSED_ALREADY = {EndReason.CLOSED_ELSEWHERE, EndReason.OWNER_DIED}

_log = structlog.get_logger(__name__)


class UnknownConversation(Exception):
    """The user has no conversation of the id that the client asked for."""


@dataclass(frozen=True, slots=True)
class Services:
    """What every connection shares. All of it outlives the connections."""

    presence: Presence
    settings: Settings
    store: Store
    agent: Agent
    finalizer: Finalizer
    registry: Registry
    metrics: Metrics
    authenticator: Authenticator
    gate: Gate
    draining: trio.Event = field(default_factory=trio.Event)


class Outbox:
    """Encodes events, numbers them and hands their frames to the stream."""

    def __init__(self, stream: BufferedStream, ws: WebSocket) -> None:
        self._stream = stream
        self._ws = ws
        self._prefix = f"event_{uuid4().hex[:12]}_"
        self._numbers = count(1)
        self.room = stream.room

    def emit(self, event: wire.ServerEvent) -> None:
        # After a close frame no other may follow, and the library's own state is the first to know of one.
        if self._ws.closed is None:
            self._stream.put(text_frame(wire.encode(event, f"{self._prefix}{next(self._numbers)}")))


async def serve_websocket(stream: BufferedStream, services: Services, replies: trio.Nursery) -> bytes:
    """Serves one WebSocket connection from its handshake to its end.

    replies: where its responses run. The session's end cuts them; none is waited for.

    Returns the last bytes for the peer, where the library left the connection without a close frame. Does not close
    the stream. Raises nothing but cancellation: whatever goes wrong in here ends this one connection.
    """
    try:
        async with trio.open_nursery() as tasks:
            try:
                return await _serve(stream, services, tasks, replies)
            finally:
                tasks.cancel_scope.cancel()
    except* (ConnectionClosed, wsproto.utilities.ProtocolError, OSError, UnicodeError) as gone:
        _log.debug("connection_lost", error=repr(gone.exceptions[0]))
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        _log.debug("connection_broken")
    except* Exception:  # noqa: BLE001 - the connection's boundary
        _log.exception("connection_crashed")
    return b""


async def _serve(stream: BufferedStream, services: Services, tasks: trio.Nursery, replies: trio.Nursery) -> bytes:
    with ExitStack() as share:
        accepted = None
        with trio.move_on_after(services.settings.handshake_seconds):
            accepted = await _shake_hands(stream, services, tasks, share)
        if accepted is None:
            return b""
        ws, admission, principal = accepted
        if isinstance(principal, Refused):
            return _send_away(principal, services)
        if services.draining.is_set() or services.gate.session(len(services.registry)):
            return _turn_away(services)
        return await _Connection(ws, stream, services, replies, admission, principal).run()


async def _shake_hands(
    stream: BufferedStream, services: Services, tasks: trio.Nursery, share: ExitStack
) -> tuple[WebSocket, Admission, Principal | Refused] | None:
    """The opening handshake; None where it was refused. `Refused`: to be told so on the open socket.

    share: keeps what the principal is given of its share of connections, for as long as this one lasts.
    """
    settings, held_back = services.settings, services.metrics.limits_refused.labels(Limit.FRAME_RATE.value).inc
    ws = WebSocket(stream, settings.message_bytes_max, frame_pace(settings), held_back)
    request = await ws.request(tasks)
    # trio-websocket keeps the Host to itself; a page's origin cannot be judged without it.
    host = request._event.host  # noqa: SLF001
    try:
        admission = admit(request.path, host, request.headers, request.proposed_subprotocols)
        principal = await _authenticate(admission, services)
        if isinstance(principal, Principal):
            _take_share(principal, services, share)
    except Refused as refused:
        await _reject(request, refused, services)
        return None
    await request.accept(subprotocol=admission.subprotocol)
    return ws, admission, principal


def _take_share(principal: Principal, services: Services, share: ExitStack) -> None:
    """Before the handshake is answered: clients then hear it as an HTTP status. Raises `Refused`."""
    refused = share.enter_context(services.gate.holder(principal))
    if refused is not None:
        status, code, message = refusal_of(refused)
        raise Refused(status, code, message, retry_after=retry_after(refused))


async def _authenticate(admission: Admission, services: Services) -> Principal | Refused:
    """Raises `Refused` where the answer to the handshake can say so: browsers hide that from their pages, which would
    take it for a broken line and try again for ever. An outage is no answer either that clients try again after."""
    presented = admission.presented
    try:
        with trio.fail_after(services.settings.begin_seconds):
            return await services.authenticator.principal(presented)
    except Refused as refused:
        if refused.status == 401 and presented.from_browser:
            return refused
        raise
    except (StoreError, trio.TooSlowError) as error:
        _log.warning("session_not_begun", error=repr(error))
        return Refused(503, "store_unavailable", "The server cannot begin a session now.")


async def _reject(request: WebSocketRequest, refused: Refused, services: Services) -> None:
    services.metrics.connections_refused.labels(_REASONS.get(refused.status, "handshake")).inc()
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refused.retry_after is not None:
        headers.append((b"retry-after", refused.retry_after.encode()))
    await request.reject(refused.status, extra_headers=headers, body=refusal_body(refused))


def _send_away(refused: Refused, services: Services) -> bytes:
    """What a client that is refused on its open socket gets to hear."""
    services.metrics.connections_refused.labels("store" if refused.status == 503 else "credentials").inc()
    if refused.status == 503:
        detail = wire.ErrorDetail(type="server_error", code=refused.code, message=refused.message)
        return _last_error(detail) + close_frame(1013, refused.code)
    detail = wire.ErrorDetail(code=refused.code, message=refused.message)
    return _last_error(detail) + close_frame(BAD_KEY, f"invalid_request_error.{refused.code}")


def _last_error(detail: wire.ErrorDetail) -> bytes:
    return text_frame(wire.encode(wire.Error(error=detail), f"event_{uuid4().hex[:12]}"))


def _turn_away(services: Services) -> bytes:
    if services.draining.is_set():
        return close_frame(1012, "the server is restarting")
    services.metrics.connections_refused.labels("overload").inc()
    return close_frame(1013, "too many connections")


class _Connection:
    """An accepted connection and its session."""

    def __init__(
        self,
        ws: WebSocket,
        stream: BufferedStream,
        services: Services,
        replies: trio.Nursery,
        admission: Admission,
        principal: Principal,
    ) -> None:
        self._ws = ws
        self._stream = stream
        self._services = services
        self._settings = services.settings
        self._replies = replies
        self._principal = principal
        self._model = admission.model
        self._replay = admission.replay
        self._resumes = admission.conversation_id or principal.conversation_id
        self._outbox = Outbox(stream, ws)
        self._session = Session(principal.user_id, self._resumes or uuid4())
        self._limits = SessionLimits(services.settings, self._session.started)
        self._farewell = b""
        self._instance_id = services.presence.instance_id
        self._has_row = False  # or may have: the outcome of a begin can be unknown

    async def run(self) -> bytes:
        """The session from its begin to its end; returns what the peer should still hear."""
        self._services.registry.add(self._session)
        self._services.metrics.sessions_active.inc()
        try:
            with self._session.scope:
                await self._converse()
        except Exception:  # noqa: BLE001 - the session's boundary: it ends, and says why
            _log.exception("session_crashed", session_id=str(self._session.session_id))
            self._session.stop(EndReason.SERVER_ERROR)
        finally:
            await self._leave()
        return self._farewell

    async def _converse(self) -> None:
        opening = await self._begin()
        if opening is None:
            return
        async with trio.open_nursery() as helpers:
            inbox = Inbox(self._settings.inbox_events_max, self._settings.inbox_bytes_max)
            conversation = Conversation(
                self._session,
                opening,
                agent=self._services.agent,
                store=self._services.store,
                outbox=self._outbox,
                settings=self._settings,
                draining=self._services.draining,
                start_reply=self._replies.start_soon,
                rates=self._limits.rates,
                count=self._services.gate.count,
            )
            conversation.configure(parse_session(self._principal.session))
            conversation.greet()
            helpers.start_soon(conversation.run, inbox)
            helpers.start_soon(self._keep_alive)
            await self._read(inbox)
            helpers.cancel_scope.cancel()

    # --- begin

    async def _begin(self) -> Opening | None:
        """Commits the session's row and gathers what it starts with; None where that could not be done."""
        try:
            with trio.fail_after(self._settings.begin_seconds):
                return await self._open()
        except UnknownConversation:
            self._refuse("conversation_not_found", "There is no such conversation of this user.", EndReason.REFUSED)
        except CredentialRevoked:
            self._refuse("invalid_api_key", "The key or client secret was revoked.", EndReason.REFUSED, BAD_KEY)
        except (StoreError, trio.TooSlowError) as error:
            _log.warning("session_not_begun", error=repr(error))
            self._refuse("store_unavailable", "The server cannot begin a session now.", EndReason.SERVER_ERROR, 1013)
        return None

    async def _open(self) -> Opening:
        store, session, settings = self._services.store, self._session, self._settings
        history: Sequence[StoredItem] = ()
        if self._resumes is not None:
            if not self._principal.may_enter(self._resumes):
                raise UnknownConversation
            known = await store.load_history(session.conversation_id, session.user_id, settings.history_items_max)
            if known is None:
                raise UnknownConversation
            history = known
        facts = await store.recall(session.user_id, settings.recall_memories_max)
        start = SessionStart(
            session_id=session.session_id,
            conversation_id=session.conversation_id,
            user_id=session.user_id,
            instance_id=self._instance_id,
            started=session.started,
            credential_id=self._principal.credential_id,
        )
        self._has_row = True
        await store.begin_session(start, within=settings.begin_seconds)
        return Opening(
            model=self._model,
            instructions=settings.instructions,
            briefing=briefing(facts),
            history=history,
            # Less than what is loaded: the first of them names the one before it.
            expires_at=int(time.time() + settings.session_seconds),
            replay=min(self._replay, settings.history_items_max - 1),
        )

    def _refuse(self, code: str, message: str, reason: EndReason, close_code: int | None = None) -> None:
        kind: Literal["invalid_request_error", "server_error"] = (
            "server_error" if reason is EndReason.SERVER_ERROR else "invalid_request_error"
        )
        self._outbox.emit(wire.Error(error=wire.ErrorDetail(type=kind, code=code, message=message)))
        self._session.stop(reason, close_code=close_code)

    # --- while it lasts

    async def _read(self, inbox: Inbox) -> None:
        """Takes messages off the socket until it closes or the session's time is up. Never waits for anything else:
        pongs come this way too."""
        with trio.CancelScope() as timer:
            while True:
                timer.deadline = self._limits.deadline
                try:
                    message = await self._ws.get_message()
                except ConnectionClosed:
                    self._stop_as_closed()
                    return
                self._take(message, inbox)
        self._stop_as_late()

    def _take(self, message: str | bytes, inbox: Inbox) -> None:
        refused = self._limits.rate_refusal(message)
        if refused is not None:
            self._refuse_event(Limit.EVENT_RATE, refused)
            if self._limits.flooding:
                self._services.gate.count(Limit.FLOODING)
                self._session.stop(EndReason.FLOODING)
            return
        event = shape_refusal(message, self._settings)
        if event is not None:
            self._services.gate.count(Limit.JSON_SHAPE)
        if not inbox.put(event or _parse(message), len(message)):
            text = "Too many events are waiting; this one was not handled."
            detail = wire.ErrorDetail(code="too_many_events", message=text, event_id=event_id_of(message))
            self._refuse_event(Limit.INBOX, detail)

    def _refuse_event(self, limit: Limit, detail: wire.ErrorDetail) -> None:
        self._services.gate.count(limit)
        self._outbox.emit(wire.Error(error=detail))

    def _stop_as_late(self) -> None:
        """The session's time is up: says so, and why. Nothing to be done where it was stopped already."""
        if self._session.reason is None:
            limit, detail = self._limits.time_is_up()
            self._refuse_event(limit, detail)
            self._session.stop(EndReason.EXPIRED if limit is Limit.SESSION_TIME else EndReason.IDLE)

    def _stop_as_closed(self) -> None:
        """The socket is closed: names the reason."""
        closed = self._ws.closed
        code = closed.code if closed is not None else 1006
        if self._stream.stalled:
            self._services.gate.count(Limit.SLOW_READER)
            self._session.stop(EndReason.SLOW_READER)
        elif self._ws.too_big:
            self._services.gate.count(Limit.MESSAGE_BYTES)
            self._session.stop(EndReason.MESSAGE_TOO_BIG)
        elif self._ws.malformed:
            self._session.stop(EndReason.PROTOCOL_ERROR, close_code=code)
            self._farewell = close_frame(code)
        elif code == 1006:
            self._session.stop(EndReason.CLIENT_LOST)
        else:
            self._session.stop(EndReason.CLIENT_CLOSED, close_code=code)

    async def _keep_alive(self) -> None:
        """Finds a peer that is gone without a word. Its session ended with the last byte that came from it."""
        while True:
            # Counted from the last byte: a peer that goes between a ping and its pong would get a whole round more.
            await trio.sleep_until(self._stream.last_received + self._settings.ping_interval)
            asked = trio.current_time()
            try:
                with trio.move_on_after(max(self._settings.ping_timeout - STALL_SECONDS, 0.0)) as limit:
                    await self._ws.ping()
            except ConnectionClosed:
                return  # the reader is told so too, and knows better why
            if limit.cancelled_caught:
                # A stall of our own may have eaten the wait: the ping may not have left, the pong not been read.
                await trio.sleep(STALL_SECONDS)
            if limit.cancelled_caught and self._stream.last_received <= asked:
                self._session.stop(EndReason.CLIENT_VANISHED, ended=self._stream.last_received)

    # --- the exit path

    async def _leave(self) -> None:
        """Every ending comes through here, in this order; a step that fails or hangs costs nothing but itself.

        The row first: a dead peer must not eat the time of the database write. Memory is only announced: the closed
        row is its work order. The close handshake last and unshielded: whoever cancels us may not wait for a peer.
        Where somebody else has closed the row, there is nothing to write first, and the socket may not outlive it.
        """
        session, services = self._session, self._services
        services.registry.discard(session)
        services.metrics.sessions_active.dec()
        if session.reason is None:
            session.stop(EndReason.SERVER_ERROR)
        if session.reason in CLOSED_ALREADY:
            try:
                await self._close()
            finally:
                await self._end()
        else:
            await self._end()
            await self._close()

    async def _end(self) -> None:
        if self._session.row_closed:  # with all others at a shutdown
            self._note_end()
        elif self._has_row:  # else, in an outage, those who try to connect would fill the queue of the real ends
            await self._end_in_time()
        with self._step("announce_memory"):
            self._services.finalizer.wake()

    async def _close(self) -> None:
        with self._step("close"), trio.move_on_after(self._settings.close_seconds):
            await self._ws.aclose(self._session.close_code or 1000, self._session.reason)

    async def _end_in_time(self) -> None:
        seconds = self._settings.end_seconds
        with self._step("end_session"), trio.move_on_after(seconds, shield=True) as limit:
            await self._end_row()
        if limit.cancelled_caught:
            _log.error("end_not_confirmed", session_id=str(self._session.session_id), seconds=seconds)

    async def _end_row(self) -> None:
        session, services = self._session, self._services
        unfinished: Sequence[StoredItem] = ()
        with self._step("cut"):
            unfinished = session.cut()
        end = SessionEnd(
            session_id=session.session_id,
            instance_id=self._instance_id,
            ended=session.ended,
            reason=session.reason or EndReason.SERVER_ERROR,
            close_code=session.close_code,
            unfinished=unfinished,
        )
        await services.store.end_session(end)
        self._note_end()

    def _note_end(self) -> None:
        session, metrics = self._session, self._services.metrics
        reason = session.reason or EndReason.SERVER_ERROR
        metrics.end_seconds.observe(trio.current_time() - session.ended)
        metrics.sessions_ended.labels(reason.value).inc()
        _log.info(
            "session_ended",
            session_id=str(session.session_id),
            user_id=session.user_id,
            reason=reason.value,
            seconds=round(session.ended - session.started, 3),
        )

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        """A step of the exit path: its failure is logged, and the next step comes all the same."""
        try:
            yield
        except Exception:  # noqa: BLE001 - one step's failure must not cost the next
            _log.exception("exit_step_failed", step=name, session_id=str(self._session.session_id))


def _parse(message: str | bytes) -> AnyClientEvent | Rejected:
    try:
        return parse_event(message)
    except Rejected as rejection:
        return rejection
