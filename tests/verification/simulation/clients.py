"""People of a world: each makes its visits one after the other, and notes what it saw and what it did to end them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import msgspec
import trio

from .clock import until
from .network import CLOSE, HEAD, PING, PONG, TEXT, Frame, Wire, masked_frame
from .plan import Manner, Person
from .world import Server, World

PATIENCE_SECONDS = 5.0  # for an answer, and for the server to end what the client does not
CLOSE_SECONDS = 3.0  # for the server's close frame
TORN_SECONDS = 0.001
LATE_SECONDS = 1.2  # in the middle of a handshake that just comes in time
TALK_SECONDS = 0.5  # between the words of one who does not read
GARBAGE = bytes((0x83, 0x85)) + b"\0\0\0\0later"  # a reserved opcode
UNANSWERED_SECONDS = 2.2  # a little more than until a ping, of one who will not answer it
LOOK_SECONDS = 0.2  # of one who finds no server
SMALL_BYTES = 1_024  # a receive buffer that a long answer does not fit in
OVERSIZE_CHARS = 5_000  # of a message; above the world's limit
FLOOD_EVENTS = 40  # twice a burst of the world's limit, and more
SESSION_UPDATE = b'{"type":"session.update","session":{"type":"realtime"}}'
LAST_WORDS = {
    "oversize": masked_frame(TEXT, b"x" * OVERSIZE_CHARS),
    "garbage": GARBAGE,
    "close": masked_frame(CLOSE, (1000).to_bytes(2, "big")),
    "flood": masked_frame(TEXT, SESSION_UPDATE) * FLOOD_EVENTS,
}

TOOLS = {"tools": [{"type": "function", "name": "look_up", "parameters": {"type": "object"}}]}

NOWHERE = UUID(int=0)
NOTED = frozenset({
    b"session.created", b"conversation.item.done", b"conversation.item.deleted", b"conversation.item.retrieved",
    b"response.done", b"error",
})  # fmt: skip
TYPE_STARTS = len(b'{"type":"')  # where an event's kind stands

_decode: Callable[[bytes], dict[str, Any]] = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """An item that the server said is stored."""

    at: float
    item_id: str
    role: str
    text: str


def acknowledged(item: dict[str, Any]) -> Acknowledged:
    """What an item of any kind is to the store."""
    if item["type"] == "function_call":
        role, text = "assistant", item["arguments"]
    elif item["type"] == "function_call_output":
        role, text = "tool", item["output"]
    else:
        role, text = item["role"], "".join(part["text"] for part in item["content"])
    return Acknowledged(trio.current_time(), item["id"], role, text)


class Watcher(Protocol):
    """Who looks at what clients hear, the moment that it is on the wire."""

    def begun(self, visit: Visit) -> None:
        """It has a session."""
        ...

    def acknowledged(self, visit: Visit, ack: Acknowledged) -> None:
        """An item is stored."""
        ...

    def deleted(self, visit: Visit, item_id: str) -> None:
        """An item is deleted."""
        ...

    def said_outside(self, visit: Visit, item_id: str) -> None:
        """An item was said outside the conversation."""
        ...


@dataclass(eq=False, slots=True)
class Visit:
    """What a client saw of one connection, and what it did to end it. Times are virtual seconds.

    causes: what ended it from the client's side, as (when, what). `closed_at`, `close_code`: of the server's close
    frame. Everything is noted when it is on the wire, however late the client reads it.
    silences: its last bytes before it said nothing for so long that a ping may have found nobody.
    said_at: when it sent each of its events.
    deleting: the ids of items that it wanted deleted. deleted: when it was told that they are.
    """

    name: str
    user: str
    server: Server
    manner: Manner
    opened_at: float
    watcher: Watcher
    wire: Wire | None = None
    status: int = 0
    session_id: UUID | None = None
    conversation: str = ""
    conversation_id: UUID = NOWHERE
    created_at: float | None = None
    acks: list[Acknowledged] = field(default_factory=list)
    deleting: set[str] = field(default_factory=set)
    deleted: dict[str, float] = field(default_factory=dict)
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
    order: str | None = None

    @property
    def served(self) -> bool:
        """Whether it is a session now, as far as the client can tell."""
        return (
            self.session_id is not None
            and not self.causes
            and self.closed_at is None
            and self.wire is not None
            and self.wire.ended is None
            and not self.over
        )

    def cause(self, what: str) -> None:
        at = trio.current_time()
        if what in ("vanish", "slow") and self.wire is not None:
            at = self.wire.delivered_at if what == "vanish" else at
        self.causes.append((at, what))
        self.server.world.trace.add(self.name, "ends", what)
        self.server.world.count("ending", what)

    def end_now(self, how: str) -> None:
        """Has the client end the visit in another manner than it meant to, at once."""
        self.order = how
        self.scope.cancel()

    # --- what comes on the wire

    def on_frame(self, frame: Frame) -> None:
        opcode, payload = frame
        if opcode == TEXT:
            if payload[TYPE_STARTS : payload.find(b'"', TYPE_STARTS)] in NOTED:
                self._on_event(_decode(payload))
        elif opcode == HEAD:
            self.status = int(payload[9:12])
        elif opcode == CLOSE:
            self.closed_at = trio.current_time()
            self.close_code = int.from_bytes(payload[:2], "big") if payload else 1005
            self.server.world.trace.add(self.name, "hears close", self.close_code)

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
            self.watcher.begun(self)
        elif kind == "conversation.item.done":
            self.done_items.add(event["item"]["id"])
            self._ack(event["item"])
        elif kind == "conversation.item.deleted":
            self._on_deleted(event["item_id"])
        elif kind == "conversation.item.retrieved":
            self._request("retrieve")
            self.watcher.acknowledged(self, acknowledged(event["item"]))
        elif kind == "response.done" and event["response"]["status"] in ("completed", "cancelled"):
            self._on_response(event["response"])
        elif kind == "error":
            self.errors.append(event["error"]["code"])
            self.server.world.trace.add(self.name, "hears error", event["error"]["code"])
            self.server.world.count("error", event["error"]["code"])

    def _on_response(self, response: dict[str, Any]) -> None:
        if response["conversation_id"] is None:
            self._request("out_of_band")
            for item in response["output"]:
                self.watcher.said_outside(self, item["id"])
            return
        for item in response["output"]:
            self._ack(item)
            if item["type"] == "function_call":
                self._request("tool")

    def _on_deleted(self, item_id: str) -> None:
        self._request(self.manner.request)
        self.deleted[item_id] = trio.current_time()
        self.server.world.trace.add(self.name, "deleted", item_id)
        self.watcher.deleted(self, item_id)

    def _request(self, name: str) -> None:
        self.server.world.count("request", name)

    def _ack(self, item: dict[str, Any]) -> None:
        ack = acknowledged(item)
        self.acks.append(ack)
        self.server.world.trace.add(self.name, "acknowledged", f"{ack.item_id} {ack.role}")
        self.watcher.acknowledged(self, ack)


class Client:
    """The program behind a visit: sends, listens, answers pings, and ends as it is told."""

    def __init__(self, world: World, visit: Visit, wire: Wire) -> None:
        self._world = world
        self._visit = visit
        self._wire = wire
        self._said: str | None = None  # the item that was created last

    async def run(self, going_on: str) -> None:
        visit = self._visit
        with visit.scope:
            await self._talk(going_on)
        if self._wire.ended is None and visit.closed_at is None:
            await self._end(visit.order or visit.manner.ending)
        # Whoever has vanished leaves a connection behind that knows nothing of it.
        if not any(what == "vanish" for _, what in visit.causes):
            if self._wire.ended is None and visit.closed_at is None:
                visit.causes.append((trio.current_time(), "fin"))
            self._wire.fin()
        visit.over = True

    # --- talking

    async def _talk(self, going_on: str) -> None:
        manner = self._visit.manner
        await self._shake_hands(going_on)
        if await self._hear("session.created") is None:
            return
        for number, mark in enumerate(manner.turns):
            last = number == len(manner.turns) - 1
            if not await self._say(number, mark):
                continue
            await self._ask_for_answer(manner.request if last else "")
            if last and manner.during != "after":
                if manner.during == "answering":
                    await self._hear("response.output_text.delta")
                return
            if last and manner.interrupts:
                await self._hear("response.output_text.delta")
                await self._send_event({"type": "response.cancel"})
            done = await self._hear("response.done", _in_conversation)
            if last and done is not None:
                await self._go_on(manner.request, done["response"]["output"])
            await self._listen(manner.thinks)

    async def _ask_for_answer(self, request: str) -> None:
        """The answer to what was said, and what is asked for besides."""
        if request == "retrieve" and self._said is not None:
            await self._send_event({"type": "conversation.item.retrieve", "item_id": self._said})
        if request == "out_of_band":
            words = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Aside"}]}]
            await self._send_event({"type": "response.create", "response": {"conversation": "none", "input": words}})
        await self._send_event({"type": "response.create"} | ({"response": TOOLS} if request == "tool" else {}))
        if request == "delete_open":
            shown = await self._hear("response.output_item.added")
            if shown is not None:
                await self._delete(shown["item"]["id"])

    async def _go_on(self, request: str, output: list[dict[str, Any]]) -> None:
        """What follows the answer: the called tool's output, and another answer; or a deletion."""
        if request == "delete" and self._said is not None:
            await self._delete(self._said)
            await self._hear("conversation.item.deleted")
        calls = [item["call_id"] for item in output if item["type"] == "function_call"]
        for call_id in calls:
            item = {"type": "function_call_output", "call_id": call_id, "output": "Sunny"}
            await self._send_event({"type": "conversation.item.create", "item": item})
        if calls:
            await self._ask_for_answer("")
            await self._hear("response.done")

    async def _delete(self, item_id: str) -> None:
        self._visit.deleting.add(item_id)
        await self._send_event({"type": "conversation.item.delete", "item_id": item_id})

    async def _shake_hands(self, going_on: str) -> None:
        visit, opening = self._visit, self._visit.manner.opening
        if opening == "foreign":
            going_on = "conv_" + "0" * 32
        path = "/v1/elsewhere" if opening == "lost" else "/v1/realtime"
        query = f"?user={visit.user}" + (f"&conversation={going_on}" if going_on else "")
        request = (
            f"GET {path}{query} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        if opening == "silent":
            return
        if opening == "half":
            request = request[: len(request) // 2]
        if opening == "late":
            self._wire.send(request[:1])
            await trio.sleep(LATE_SECONDS)
            request = request[1:]
        await self._send(request, torn=opening == "torn")

    async def _say(self, number: int, mark: str) -> bool:
        """Creates a user's item; whether it was acknowledged."""
        visit = self._visit
        visit.marks += mark
        if mark:
            self._world.count("agent", mark)
        words = {"type": "input_text", "text": f"{visit.name} says {number} {mark}"}
        item = {"type": "message", "role": "user", "content": [words]}
        await self._send_event({"type": "conversation.item.create", "item": item})
        before = len(visit.errors)
        done = await self._hear("conversation.item.done", lambda event: event["item"].get("content") == [words])
        self._said = None if done is None else done["item"]["id"]
        return len(visit.errors) == before

    async def _send_event(self, event: dict[str, Any]) -> None:
        await self._send(masked_frame(TEXT, msgspec.json.encode(event)), torn=self._visit.manner.torn)
        self._visit.said_at.append(trio.current_time())

    async def _send(self, data: bytes, *, torn: bool) -> None:
        if torn:
            cut = self._world.random.randrange(1, len(data))
            self._wire.send(data[:cut])
            await trio.sleep(self._world.random.choice((0, TORN_SECONDS)))
            data = data[cut:]
        self._wire.send(data)

    async def _listen(self, seconds: float) -> None:
        if self._visit.manner.busy:
            await trio.sleep(seconds)
        elif seconds:
            await self._hear("nothing", seconds=seconds)

    async def _hear(
        self,
        kind: str,
        wanted: Callable[[dict[str, Any]], bool] = lambda _: True,
        seconds: float = PATIENCE_SECONDS,
    ) -> dict[str, Any] | None:
        """The next event of a kind; None after an error, where there is none in time, or the connection ended."""
        name = f'{{"type":"{kind}"'.encode()
        with trio.move_on_after(seconds):
            while (frame := await self._next()) is not None:
                opcode, payload = frame
                if opcode == TEXT:
                    if payload.startswith(name) and wanted(event := _decode(payload)):
                        return event
                    if payload.startswith(b'{"type":"error"') and kind != "nothing":
                        return None
        return None

    async def _next(self) -> Frame | None:
        """The next frame; None at the end. Answers pings and close frames as libraries do."""
        while (frame := self._wire.take()) is None:
            if self._wire.ended is not None:
                return None
            await self._wire.news()
        opcode, payload = frame
        if opcode == PING:
            self._wire.send(masked_frame(PONG, payload))
        elif opcode == CLOSE:
            self._wire.send(masked_frame(CLOSE, payload[:2]))
            return None
        return frame

    # --- ending

    async def _end(self, how: str) -> None:
        visit, wire = self._visit, self._wire
        if how == "stay" or (visit.session_id is None and visit.status != 101):
            await self._hear("nothing")
            if wire.ended is not None or visit.closed_at is not None:
                return
            how = "close" if visit.status == 101 else "fin"
        if how == "vanish" and visit.manner.busy:
            await trio.sleep(UNANSWERED_SECONDS)
            if wire.ended is not None or visit.closed_at is not None:
                visit.cause("vanish")  # a ping came sooner than it thought: it was silent for too long already
                return
            visit.silences.append(wire.delivered_at)
            self._world.count("state", "spoke past a ping")
            self._wire.send(masked_frame(TEXT, SESSION_UPDATE))
            visit.said_at.append(trio.current_time())
        if how == "slow":
            await self._read_no_more()
        else:
            self._do(how)
        if how in ("close", "oversize", "garbage", "flood", "fin"):
            await self._hear("nothing", seconds=CLOSE_SECONDS)

    def _do(self, how: str) -> None:
        self._wire.send(LAST_WORDS.get(how, b""))
        self._visit.cause(how)
        if how == "reset":
            self._wire.reset()
        elif how == "fin":
            self._wire.fin()

    async def _read_no_more(self) -> None:
        """Asks for more than its buffers hold, and reads nothing of it."""
        visit = self._visit
        visit.marks += "#flood"
        self._wire.down_bytes_max = SMALL_BYTES
        words = {"type": "input_text", "text": f"{visit.name} says much #flood"}
        item = {"type": "message", "role": "user", "content": [words]}
        await self._send_event({"type": "conversation.item.create", "item": item})
        await self._send_event({"type": "response.create"})
        visit.cause("slow")
        with trio.move_on_after(2 * PATIENCE_SECONDS):
            while self._wire.ended is None:
                if visit.manner.busy:  # one that still talks is not given up as silent
                    self._wire.send(masked_frame(PONG, b""))
                with trio.move_on_after(TALK_SECONDS):
                    await self._wire._for_client.park()


def _in_conversation(event: dict[str, Any]) -> bool:
    return event["response"]["conversation_id"] is not None


class Crowd:
    """All people of a world, and their visits."""

    def __init__(self, world: World, watcher: Watcher) -> None:
        self._world = world
        self._watcher = watcher
        self.visits: list[Visit] = []

    async def live(self, person: Person) -> None:
        """One person's visits, from first to last."""
        await trio.sleep(person.comes)
        going_on = ""
        for number, manner in enumerate(person.visits):
            visit = await self._visit(f"{person.name}.{number}", person.name, manner, going_on)
            going_on = visit.conversation if visit is not None and manner.returns else ""
            await trio.sleep(manner.thinks)

    async def _visit(self, name: str, user: str, manner: Manner, going_on: str) -> Visit | None:
        server = await self._find_server()
        if server is None:
            return None
        visit = Visit(name, user, server, manner, trio.current_time(), self._watcher)
        visit.wire = server.connect(visit.on_frame, visit.on_end)
        if visit.wire is None:
            return None
        self.visits.append(visit)
        self._world.count("opening", manner.opening)
        self._world.trace.add(name, "connects to", server.name)
        await Client(self._world, visit, visit.wire).run(going_on)
        return visit

    async def _find_server(self) -> Server | None:
        def accepting() -> list[Server]:
            return [server for server in self._world.servers if server.accepting]

        found = await until(lambda: bool(accepting()), PATIENCE_SECONDS, LOOK_SECONDS)
        return self._world.random.choice(accepting()) if found else None
