"""One response of the agent: from `response.create` to `response.done`, in the canonical order of events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Protocol

import structlog
import trio

from . import wire
from .agent import Agent, AgentFailed, Turn
from .config import Settings
from .containment import contained
from .store import SessionClosed, StoreError

_log = structlog.get_logger(__name__)


class Outbox(Protocol):
    """Where events go. `emit` never blocks; `room` waits for a client that lags behind."""

    def emit(self, event: wire.ServerEvent) -> None: ...

    async def room(self) -> None: ...


class ActiveResponse:
    """A response under way. It owns its item until `response.done`.

    previous_item_id: of the item before the answer's.
    commit: stores the finished item and returns once it is committed.
    rates: what is left of the client's rate of events.
    """

    def __init__(
        self,
        response: wire.Response,
        item: wire.MessageItem,
        previous_item_id: str | None,
        outbox: Outbox,
        commit: Callable[[], Awaitable[None]],
        rates: Callable[[], wire.RateLimitsUpdated],
    ) -> None:
        self.response = response
        self.item = item
        self.pieces: list[str] = []
        self._previous_item_id = previous_item_id
        self._outbox = outbox
        self._commit = commit
        self._rates = rates
        self._generation = trio.CancelScope()
        self._cancelled = False

    @property
    def text(self) -> str:
        # PostgreSQL's text holds every character but NUL.
        return "".join(self.pieces).replace("\0", "")

    def cancel(self) -> None:
        """Ends the generation; what was said so far stays, as `incomplete`. A finished generation is not touched."""
        self._cancelled = True
        self._generation.cancel()

    async def run(self, agent: Agent, turn: Turn, settings: Settings) -> None:
        """The whole response. Raises nothing but cancellation and `SessionClosed`."""
        self._announce()
        await self._generate(agent, turn, settings)
        self._settle_item()
        closing = self._closing_events()
        self._outbox.emit(wire.TextDone(response_id=self.response.id, item_id=self.item.id, text=self.text))
        self._outbox.emit(
            wire.ContentPartDone(response_id=self.response.id, item_id=self.item.id, part=wire.TextPart(text=self.text))
        )
        try:
            await self._commit()
        except SessionClosed:
            raise
        except StoreError as error:
            _log.warning("response_not_stored", error=str(error))
            self._fail("store_unavailable", "The answer could not be stored. Please try again.")
            self._settle_item()
            closing = closing[-1:]  # an item's `done` would acknowledge what is not stored
        for event in closing:
            self._outbox.emit(event)

    def _announce(self) -> None:
        response_id, item_id = self.response.id, self.item.id
        self._outbox.emit(wire.ResponseCreated(response=self.response))
        self._outbox.emit(self._rates())
        self._outbox.emit(wire.OutputItemAdded(response_id=response_id, item=self.item))
        self._outbox.emit(wire.ItemAdded(previous_item_id=self._previous_item_id, item=self.item))
        self._outbox.emit(wire.ContentPartAdded(response_id=response_id, item_id=item_id, part=wire.TextPart(text="")))

    async def _generate(self, agent: Agent, turn: Turn, settings: Settings) -> None:
        """Streams the agent's answer and leaves the outcome in `response.status`."""
        try:
            with self._generation:
                self._generation.deadline = trio.current_time() + settings.reply_seconds
                with contained():
                    await self._stream(agent, turn, settings.reply_chars_max)
        except AgentFailed as failure:
            self._fail(failure.code, str(failure))
        except Exception:  # noqa: BLE001 - whatever an agent raises is this response's failure
            _log.exception("agent_raised", response_id=self.response.id)
            self._fail("agent_error", "The agent failed to answer.")
        else:
            self._conclude()

    async def _stream(self, agent: Agent, turn: Turn, chars_max: int) -> None:
        chars = 0
        async with aclosing(agent.reply(turn)) as pieces:
            async for raw in pieces:
                piece = _encodable(raw)
                if not piece:
                    continue
                chars += len(piece)
                if chars > chars_max:
                    raise AgentFailed("answer_too_long", f"The answer exceeded {chars_max} characters.")
                self.pieces.append(piece)
                self._outbox.emit(wire.TextDelta(response_id=self.response.id, item_id=self.item.id, delta=piece))
                await self._outbox.room()

    def _conclude(self) -> None:
        if not self._generation.cancelled_caught:
            self.response.status = "completed"
        elif self._cancelled:
            self.response.status = "cancelled"
            self.response.status_details = wire.StatusDetails(type="cancelled", reason="client_cancelled")
        else:
            self._fail("agent_timeout", "The agent took too long to answer.")

    def _fail(self, code: str, message: str) -> None:
        self.response.status = "failed"
        failure = wire.Failure(code=_encodable(code), message=_encodable(message))
        self.response.status_details = wire.StatusDetails(type="failed", error=failure)

    def _settle_item(self) -> None:
        self.item.status = "completed" if self.response.status == "completed" else "incomplete"
        self.item.content = [wire.OutputText(self.text)]
        self.response.output = [self.item]

    def _closing_events(self) -> list[wire.ServerEvent]:
        return [
            wire.OutputItemDone(response_id=self.response.id, item=self.item),
            wire.ItemDone(previous_item_id=self._previous_item_id, item=self.item),
            wire.ResponseDone(response=self.response),
        ]


def _encodable(text: str) -> str:
    """Half a surrogate pair, which JSON from a model's server may hold where it cuts a character, fits no UTF-8."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
