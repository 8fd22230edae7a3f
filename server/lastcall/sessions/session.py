"""One connection's session and its state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

import trio

from ..limits.memory import MemoryAccount
from ..protocol.ids import new_uuid, public_id
from ..store.records import EndReason, StoredRow
from .close_codes import CLOSE_CODES


class ImpossibleTransition(Exception):
    """A session was told of something that cannot happen in its state: a bug in the server."""


class Session:
    """One connection's session. It alone changes its state; everything else reports events and reads properties.

    The order of a full life: `began`, `row_was_stored`, any number of responses, `stop`, `take_unfinished`,
    `row_was_closed`, `left`. Where a shutdown has closed the row, `say_goodbye` comes before `stop`.

    Attributes:
        scope: Everything that the session does runs inside it. Only the exit path runs after it.
        started: When it was created, on Trio's clock (seconds). memory: What it holds in memory.
        key_id: The key that opened it, by itself or by its client secret.
    """

    __slots__ = (
        "_answered",
        "_close_code",
        "_ended",
        "_has_left",
        "_has_row",
        "_reason",
        "_responses",
        "_row_closed",
        "_row_stored",
        "_send_close_frame",
        "_spoke",
        "_stop_responses",
        "_unfinished",
        "conversation_id",
        "key_id",
        "memory",
        "scope",
        "session_id",
        "started",
        "user_id",
    )

    def __init__(self, user_id: str, conversation_id: UUID, memory: MemoryAccount | None = None) -> None:
        self.user_id, self.conversation_id = user_id, conversation_id
        self.key_id: UUID | None = None
        self.memory = memory or MemoryAccount()
        self.session_id = new_uuid()
        self.started = self._ended = trio.current_time()
        self.scope = trio.CancelScope()
        self._has_row = self._row_stored = self._row_closed = self._spoke = self._has_left = False
        self._responses = 0
        self._answered: trio.Event | None = None  # where somebody waits until no response is running
        self._stop_responses: Callable[[], Sequence[StoredRow]] | None = None
        self._send_close_frame: Callable[[], None] | None = None
        self._unfinished: Sequence[StoredRow] | None = None
        self._reason: EndReason | None = None
        self._close_code: int | None = None

    # --- state

    @property
    def public_id(self) -> str:
        return public_id("sess", self.session_id)

    @property
    def has_row(self) -> bool:
        """Whether a row exists, or may: the outcome of a begin can be unknown."""
        return self._has_row

    @property
    def row_stored(self) -> bool:
        """Whether its row is known to have been committed: if there is none now, somebody has deleted it."""
        return self._row_stored

    @property
    def spoke(self) -> bool:
        """Whether the user said something, so that there may be something to remember."""
        return self._spoke

    @property
    def answering(self) -> bool:
        """Whether a response is running."""
        return self._responses > 0

    @property
    def reason(self) -> EndReason | None:
        """Why the session was stopped; None while it goes on."""
        return self._reason

    @property
    def close_code(self) -> int | None:
        """The WebSocket close code that the client gets; None: no close frame."""
        return self._close_code

    @property
    def ended(self) -> float:
        """When the session ended, on Trio's clock (seconds); before `stop`, when it started."""
        return self._ended

    @property
    def row_closed(self) -> bool:
        """Whether the row's end is known to be in the database, whoever wrote it."""
        return self._row_closed

    async def wait_answered(self) -> None:
        """Returns when no response is running."""
        if self._responses:
            if self._answered is None:
                self._answered = trio.Event()
            await self._answered.wait()

    # --- transitions

    def began(self) -> None:
        """From now on the session has a row, or may have one. To be called before the row is written.

        Raises:
            ImpossibleTransition: It began before, or was stopped.
        """
        self._refuse_if(self._has_row, "it began already")
        self._refuse_if(self._reason is not None, "it was stopped")
        self._has_row = True

    def row_was_stored(self) -> None:
        """The begin is committed.

        Raises:
            ImpossibleTransition: It did not begin.
        """
        self._refuse_if(not self._has_row, "it has no row")
        self._row_stored = True

    def stop_responses_with(self, stop_responses: Callable[[], Sequence[StoredRow]]) -> None:
        """Sets what `take_unfinished` calls: it stops all responses and returns their unfinished items and figures.

        A shutdown may have taken them while the begin was under way: then there will be no responses at all.

        Raises:
            ImpossibleTransition: It was set before, or the session left.
        """
        self._refuse_if(self._stop_responses is not None, "its responses have an owner already")
        self._refuse_if(self._has_left, "it left already")
        self._stop_responses = stop_responses
        if self._unfinished is not None:
            stop_responses()

    def say_goodbye_with(self, send_close_frame: Callable[[], None]) -> None:
        """Sets what `say_goodbye` calls: it sends the close frame, and never waits."""
        self._send_close_frame = send_close_frame

    def user_spoke(self) -> None:
        """The user says something, so that the row's end will make memory pending.

        Raises:
            ImpossibleTransition: The session has no row.
        """
        self._refuse_if(not self._has_row, "it has no row")
        self._spoke = True

    def response_began(self) -> None:
        """A response is running now. Several may run at once.

        Raises:
            ImpossibleTransition: The unfinished items were taken, so this response's would be lost.
        """
        self._refuse_if(self._unfinished is not None, "its unfinished items were taken")
        self._responses += 1

    def response_ended(self) -> None:
        """A response is over.

        Raises:
            ImpossibleTransition: No response is running.
        """
        self._refuse_if(self._responses == 0, "no response is running")
        self._responses -= 1
        if self._responses == 0 and self._answered is not None:
            self._answered.set()
            self._answered = None

    def stop(self, reason: EndReason, *, close_code: int | None = None, ended: float | None = None) -> None:
        """Ends the session. Synchronous, and possible at any time: the first caller's reason stands.

        Args:
            reason: Written to the row, unless somebody else closes it first.
            close_code: The WebSocket close code. By default the one of the reason.
            ended: When the session ended, on Trio's clock (seconds). By default now; never before its start.
        """
        self._end_as(reason, close_code, ended)
        self.scope.cancel()

    def say_goodbye(self, reason: EndReason) -> None:
        """Sends the close frame ahead of the exit path, which `stop` must begin: for thousands that end at once.

        Raises:
            ImpossibleTransition: The row is not closed; no close frame is sent before.
        """
        self._refuse_if(not self._row_closed, "its row is not closed")
        if self._reason is None and self._send_close_frame is not None:
            self._end_as(reason)
            self._send_close_frame()

    def _end_as(self, reason: EndReason, close_code: int | None = None, ended: float | None = None) -> None:
        if self._reason is None:
            self._reason = reason
            self._close_code = close_code if close_code is not None else CLOSE_CODES.get(reason)
            self._ended = max(self.started, ended if ended is not None else trio.current_time())

    def take_unfinished(self) -> Sequence[StoredRow]:
        """Stops all responses for good and returns what must still be stored of them: the same answer each time."""
        if self._unfinished is None:
            self._unfinished = tuple(self._stop_responses()) if self._stop_responses is not None else ()
        return self._unfinished

    def row_was_closed(self) -> None:
        """The row's end is in the database.

        Raises:
            ImpossibleTransition: The session has no row, or its end is known already.
        """
        self._refuse_if(not self._has_row, "it has no row")
        self._refuse_if(self._row_closed, "its row is closed already")
        self._row_closed = True

    def left(self) -> None:
        """The exit path is over. Breaks the reference cycle with the conversation, which no collection need find.

        Raises:
            ImpossibleTransition: It was not stopped, or left before.
        """
        self._refuse_if(self._reason is None, "it was not stopped")
        self._refuse_if(self._has_left, "it left already")
        self._unfinished = self._unfinished or ()
        self._has_left, self._stop_responses, self._send_close_frame = True, None, None

    def _refuse_if(self, impossible: bool, why: str) -> None:
        if impossible:
            raise ImpossibleTransition(f"session {self.session_id}: {why}")
