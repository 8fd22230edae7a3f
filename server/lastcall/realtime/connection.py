"""One WebSocket connection, from its handshake through its session to the exit path."""

from __future__ import annotations

import time

import structlog
import trio
import wsproto.utilities
from trio_websocket import ConnectionClosed

from ..auth.identity import Principal
from ..conversation.configuration import Opening
from ..conversation.conversation import Conversation
from ..limits.limit import Limit
from ..limits.quota import Caller
from ..limits.session_limits import SessionLimits
from ..logs import name_lines
from ..memory.recall import recall
from ..protocol.errors import RequestRefused, error_event
from ..protocol.ids import new_uuid
from ..protocol.parsing import parse_session
from ..sessions.session import Session
from ..store.errors import CredentialRevoked, StoreError
from ..store.records import EndReason, Recollection, SessionStart
from ..transport.http.request_head import RequestHead
from ..transport.stream import BufferedStream
from ..transport.websocket import WebSocket
from .admission import Admission
from .exit_path import ExitPath
from .handshake import BAD_KEY, Rejected, refuse_on_socket, refuse_overloaded, shake_hands
from .history import History, NoMemory, UnknownConversation
from .log_names import log_names
from .mailbox import Inbox, Outbox
from .reader import Reader
from .services import Services
from .watch import SessionWatch

REASON_SECONDS = 0.1  # of the time to begin, for the store to say why it has not

_log = structlog.get_logger(__name__)


async def serve_websocket(
    stream: BufferedStream, head: RequestHead, peer: str, services: Services, tasks: trio.Nursery
) -> bytes:
    """Serves one WebSocket connection from its handshake to its end.

    Args:
        stream: A session's exit path finishes it, but the transport below is left to the caller.
        head: The request, which asks for a WebSocket. peer: The address at the other end of the socket.
        services: What all connections share.
        tasks: Where its reader and its responses run. The end of the session stops them; none is waited for.

    Returns the last bytes for a client that was refused. Raises nothing but cancellation: whatever goes wrong in here
    ends this one connection.
    """
    places: list[Caller] = []
    try:
        connection = await _open(stream, head, peer, services, tasks, places)
        del head
        if isinstance(connection, bytes):
            return connection
        await connection.run()
    except (ConnectionClosed, wsproto.utilities.ProtocolError, OSError, UnicodeError) as gone:
        _log.debug("connection_lost", error=repr(gone))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        _log.debug("connection_broken")
    except Exception:  # noqa: BLE001 - one connection's failure ends no other
        _log.exception("connection_crashed")
    finally:
        for place in places:
            place.leave()
    return b""


async def _open(
    stream: BufferedStream, head: RequestHead, peer: str, services: Services, tasks: trio.Nursery, places: list[Caller]
) -> _Connection | bytes:
    """An accepted connection, or the last bytes for a client that was refused."""
    try:
        ws, admission, principal = await shake_hands(stream, head, peer, services, tasks, places)
    except Rejected as rejected:
        return rejected.reply
    if isinstance(principal, RequestRefused):
        return refuse_on_socket(principal, services)
    if services.draining.is_set() or services.gate.session(len(services.registry)):
        return refuse_overloaded(services)
    return _Connection(ws, stream, services, tasks, admission, principal)


class _Connection:
    """An accepted connection and its session."""

    def __init__(
        self,
        ws: WebSocket,
        stream: BufferedStream,
        services: Services,
        tasks: trio.Nursery,
        admission: Admission,
        principal: Principal,
    ) -> None:
        self._ws, self._stream = ws, stream
        self._services = services
        self._settings = services.settings
        self._tasks = tasks
        self._principal = principal
        self._model, self._replay, self._traceparent = admission.model, admission.replay, admission.traceparent
        self._resumes = admission.conversation_id or principal.conversation_id
        self._outbox = Outbox(stream, ws)
        memory = services.gate.memory.account(self._make_room)
        self._session = Session(principal.user_id, self._resumes or new_uuid(), memory)
        self._session.key_id = principal.key_id
        self._history = History(self._session, services)
        ws.count_bytes(memory.add)
        stream.count_bytes(memory.add)
        self._limits = SessionLimits(services.settings, self._session.started, principal.valid_until)
        self._reader = Reader(ws, stream, self._session, self._limits, self._outbox, services)
        late = self._reader.stop_as_late
        self._watch = SessionWatch(ws, stream, self._session, self._limits, services.settings, services.timer, late)
        self._instance_id = services.lease.instance_id
        self._names = log_names(self._session, principal, admission.presented.address, self._instance_id)

    async def run(self) -> None:
        """The session from its begin to its end."""
        name_lines(self._names)
        self._services.registry.add(self._session)
        self._services.metrics.sessions_active.inc()
        try:
            with self._session.scope:
                if (opening := await self._begin()) is not None:
                    conversation, inbox = self._greet(opening)
                    del opening  # a resumed one has the whole history
                    await conversation.run(inbox)
        except Exception:  # noqa: BLE001 - one session's failure ends no other
            _log.exception("session_crashed", session_id=str(self._session.session_id))
            self._session.stop(EndReason.SERVER_ERROR)
        finally:
            self._watch.end()
            try:
                await ExitPath(self._session, self._instance_id, self._close_socket, self._services).run()
            finally:
                self._session.memory.close()

    def _make_room(self) -> None:
        """Called when the server's memory is used up and this session is one of the largest."""
        self._services.gate.count(Limit.MEMORY)
        message = "The server's memory is used up, and this session holds more of it than others. Please reconnect."
        self._outbox.emit(error_event("overloaded", message))
        self._session.stop(EndReason.OVERLOADED)

    def _send_close_frame(self) -> None:
        self._stream.put_now(self._ws.begin_close(self._session.close_code or 1000, self._session.reason))

    async def _close_socket(self) -> None:
        """The close frame and the closing handshake, then the last bytes; each within its bound."""
        try:
            if not self._ws.answered:
                with trio.move_on_after(self._settings.close_seconds):
                    await self._ws.aclose(self._session.close_code or 1000, self._session.reason)
            await self._stream.finish(self._reader.farewell, linger=not self._ws.answered)
        except trio.Cancelled:
            await self._stream.close_now()  # memory, beside this, may take a second more; a cancelled socket need not
            raise

    def _greet(self, opening: Opening) -> tuple[Conversation, Inbox]:
        self._services.metrics.sessions_started.inc()
        _log.info("session_started", resumed=self._resumes is not None)
        inbox = Inbox(self._settings.inbox_events_max, self._settings.inbox_bytes_max, self._session.memory)
        self._history.release()  # from here on, the items are counted
        conversation = Conversation(
            self._session,
            opening,
            agent=self._services.traces.session_began(self._services.agent, self._names, self._traceparent),
            store=self._services.store,
            encode=self._services.encode,
            outbox=self._outbox,
            settings=self._settings,
            draining=self._services.draining,
            start_reply=self._tasks.start_soon,
            rates=self._limits.rates,
            count=self._services.gate.count,
            response_ended=self._services.metrics.count_response,
        )
        conversation.configure(parse_session(self._principal.session))
        conversation.send_created()
        self._reader.start(inbox)
        self._session.say_goodbye_with(self._send_close_frame)
        self._watch.begin()
        self._services.lease.changes.follow(self._session, conversation.catch_up, resumes=self._resumes is not None)
        return conversation, inbox

    async def _begin(self) -> Opening | None:
        """Commits the session's row and loads what the conversation starts with; None where that failed."""
        try:
            with trio.fail_after(self._settings.begin_seconds):
                return await self._open()
        except UnknownConversation:
            self._refuse("conversation_not_found", "There is no such conversation of this user.", EndReason.REFUSED)
        except NoMemory:
            self._services.gate.count(Limit.MEMORY)
            message = "The server has too little memory for this conversation now. Please try again later."
            self._refuse("overloaded", message, EndReason.REFUSED, 1013)
        except CredentialRevoked:
            self._refuse("invalid_api_key", "The key or client secret was revoked.", EndReason.REFUSED, BAD_KEY)
        except (StoreError, trio.TooSlowError) as error:
            _log.warning("session_not_begun", error=repr(error))
            self._refuse("store_unavailable", "The server cannot begin a session now.", EndReason.SERVER_ERROR, 1013)
        return None

    async def _open(self) -> Opening:
        services, session, settings = self._services, self._session, self._settings
        if self._resumes is not None:
            if not self._principal.may_enter(self._resumes):
                raise UnknownConversation
            await self._history.load()
        start = SessionStart(
            session_id=session.session_id,
            conversation_id=session.conversation_id,
            user_id=session.user_id,
            instance_id=self._instance_id,
            started=session.started,
            credential_id=self._principal.credential_id,
            memories_max=settings.recall_memories_max,
        )
        await trio.lowlevel.checkpoint_if_cancelled()  # a session that was stopped meanwhile begins no row
        # Less than `_begin` waits, so that the log gets the store's reason.
        within = max(trio.current_effective_deadline() - trio.current_time() - REASON_SECONDS, 0.0)

        async def begin() -> Recollection | None:
            session.began()
            recalled = await services.store.begin_session(start, within=within)
            session.row_was_stored()
            return recalled

        return Opening(
            model=self._model,
            instructions=settings.instructions,
            known=await recall(services.store, services.registry, session.user_id, settings.recall_memories_max, begin),
            history=self._history.items,
            older=self._history.older,
            # Less than what is loaded: the first of them names the one before it.
            expires_at=int(time.time() + self._limits.expires - trio.current_time()),
            replay=min(self._replay, settings.history_items_max - 1),
        )

    def _refuse(self, code: str, message: str, reason: EndReason, close_code: int | None = None) -> None:
        self._outbox.emit(error_event(code, message))
        self._session.stop(reason, close_code=close_code)
