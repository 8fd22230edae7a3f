"""Visits: what a client saw of one connection, and what it did to end it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol
from uuid import UUID

import msgspec
import trio

from .fakes.network import CLOSE, HEAD, TEXT, Frame, Wire
from .plan import Behaviour
from .server import Server

NO_CONVERSATION = UUID(int=0)
NOTED = frozenset({
    b"session.created", b"conversation.item.done", b"conversation.item.deleted", b"conversation.item.retrieved",
    b"response.done", b"error",
})  # fmt: skip
TYPE_STARTS = len(b'{"type":"')  # where an event's type stands

decode: Callable[[bytes], dict[str, Any]] = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """An item that the server acknowledged as stored."""

    at: float
    item_id: str
    role: str
    text: str


def acknowledged(item: dict[str, Any]) -> Acknowledged:
    """The role and text with which an item of any kind is stored."""
    if item["type"] == "function_call":
        role, text = "assistant", item["arguments"]
    elif item["type"] == "function_call_output":
        role, text = "tool", item["output"]
    else:
        role, text = item["role"], "".join(part["text"] for part in item["content"])
    return Acknowledged(trio.current_time(), item["id"], role, text)


class Observer(Protocol):
    """Is called for what a client receives, at the moment that it is on the wire."""

    def begun(self, visit: Visit) -> None:
        """The client was told of its session."""
        ...

    def acknowledged(self, visit: Visit, ack: Acknowledged) -> None:
        """The client was told that an item is stored."""
        ...

    def deleted(self, visit: Visit, item_id: str) -> None:
        """The client was told that an item is deleted."""
        ...

    def answered_outside(self, visit: Visit, item_id: str) -> None:
        """The client received an answer outside its conversation."""
        ...


@dataclass(eq=False, slots=True)
class Visit:
    """One connection, as its client saw it. Times are virtual seconds, of when something was on the wire.

    causes: what ended it from the client's side, as (when, what). closed_at, close_code: of the server's close frame.
    silences: when it sent its last bytes before a silence long enough to miss a ping.
    said_at: when it sent each of its events.
    deleting: the ids of items that it asked to delete. deleted: when the server confirmed each. Both without those that
        were created again since. again: the ids of items that it asked to create again.
    ending: what it does instead of the behaviour's ending. over: the client has left.
    """

    name: str
    user: str
    server: Server
    behaviour: Behaviour
    opened_at: float
    observer: Observer
    wire: Wire | None = None
    status: int = 0
    session_id: UUID | None = None
    conversation: str = ""
    conversation_id: UUID = NO_CONVERSATION
    created_at: float | None = None
    acks: list[Acknowledged] = field(default_factory=list)
    deleting: set[str] = field(default_factory=set)
    deleted: dict[str, float] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    causes: list[tuple[float, str]] = field(default_factory=list)
    silences: list[float] = field(default_factory=list)
    said_at: list[float] = field(default_factory=list)
    marks: str = ""
    done_items: set[str] = field(default_factory=set)
    closed_at: float | None = None
    close_code: int | None = None
    over: bool = False
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ending: str | None = None

    @property
    def served(self) -> bool:
        """Whether its session is open, as far as the client can tell."""
        return (
            self.session_id is not None
            and not self.causes
            and self.closed_at is None
            and self.wire is not None
            and self.wire.ended is None
            and not self.over
        )

    @property
    def ended_at(self) -> float:
        """When the client saw it end; infinite where it never did."""
        assert self.wire is not None
        closed_at = self.closed_at if self.closed_at is not None else inf
        return min(closed_at, self.wire.ended_at if self.wire.ended else inf)

    def cause(self, what: str) -> None:
        """The client ends it now, or is about to."""
        at = trio.current_time()
        if what in ("vanish", "slow") and self.wire is not None:
            at = self.wire.delivered_at if what == "vanish" else at
        self.causes.append((at, what))
        self.server.world.trace.add(self.name, "ends", what)
        self.server.world.count("ending", what)

    def end_now(self, how: str) -> None:
        """Has the client end the visit at once, and in this way."""
        self.ending = how
        self.scope.cancel()

    # --- what the server sends

    def on_frame(self, frame: Frame) -> None:
        opcode, payload = frame
        if opcode == TEXT:
            if payload[TYPE_STARTS : payload.find(b'"', TYPE_STARTS)] in NOTED:
                self._on_event(decode(payload))
        elif opcode == HEAD:
            self.status = int(payload[9:12])
        elif opcode == CLOSE:
            self.closed_at = trio.current_time()
            self.close_code = int.from_bytes(payload[:2], "big") if payload else 1005
            self.server.world.trace.add(self.name, "receives close", self.close_code)

    def on_end(self, how: str) -> None:
        self.server.world.trace.add(self.name, "connection ended", how)

    def _on_event(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "session.created":
            self.session_id = UUID(event["session"]["id"].removeprefix("sess_"))
            self.conversation = event["session"]["conversation_id"]
            self.conversation_id = UUID(self.conversation.removeprefix("conv_"))
            self.created_at = trio.current_time()
            self.server.world.trace.add(self.name, "session", self.session_id)
            self.observer.begun(self)
        elif kind == "conversation.item.done":
            self.done_items.add(event["item"]["id"])
            if self.deleted.pop(event["item"]["id"], None) is not None:
                self.deleting.discard(event["item"]["id"])
            self._ack(event["item"])
        elif kind == "conversation.item.deleted":
            self._on_deleted(event["item_id"])
        elif kind == "conversation.item.retrieved":
            self._request("retrieve")
            self.observer.acknowledged(self, acknowledged(event["item"]))
        elif kind == "response.done" and event["response"]["status"] in ("completed", "cancelled"):
            self._on_response(event["response"])
        elif kind == "error":
            self.errors.append(event["error"]["code"])
            self.server.world.trace.add(self.name, "receives error", event["error"]["code"])
            self.server.world.count("error", event["error"]["code"])

    def _on_response(self, response: dict[str, Any]) -> None:
        if response["conversation_id"] is None:
            self._request("out_of_band")
            for item in response["output"]:
                self.observer.answered_outside(self, item["id"])
            return
        for item in response["output"]:
            self._ack(item)
            if item["type"] == "function_call":
                self._request("tool")

    def _on_deleted(self, item_id: str) -> None:
        if item_id in self.deleting:  # else another session has deleted it, which may have created it again by now
            self._request(self.behaviour.request)
            self.deleted[item_id] = trio.current_time()
        self.server.world.trace.add(self.name, "deleted", item_id)
        self.observer.deleted(self, item_id)

    def _request(self, name: str) -> None:
        self.server.world.count("request", name)

    def _ack(self, item: dict[str, Any]) -> None:
        ack = acknowledged(item)
        self.acks.append(ack)
        self.server.world.trace.add(self.name, "acknowledged", f"{ack.item_id} {ack.role}")
        self.observer.acknowledged(self, ack)
