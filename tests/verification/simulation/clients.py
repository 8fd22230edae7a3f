"""Clients: each makes its visits one after the other, and behaves as its plan says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import trio

from .fakes.clock import until
from .fakes.network import CLOSE, PING, PONG, TEXT, Frame, Wire, masked_frame
from .plan import Behaviour, ClientPlan
from .server import Server
from .visits import Observer, Visit, decode
from .world import World

PATIENCE_SECONDS = 5.0  # for an answer, and for the server to end what the client does not
CLOSE_SECONDS = 3.0  # for the server's close frame
TORN_SECONDS = 0.001  # between the two parts of a torn write
LATE_SECONDS = 1.2  # in the middle of a handshake that just comes in time
TALK_SECONDS = 0.5  # between two writes of a client that does not read
GARBAGE = bytes((0x83, 0x85)) + b"\0\0\0\0later"  # a reserved opcode
UNANSWERED_SECONDS = 2.2  # of silence before vanishing: a little longer than the server waits before a ping
LOOK_SECONDS = 0.2  # between two looks for a server
SMALL_BYTES = 1_024  # a receive buffer that a long answer does not fit into
OVERSIZE_CHARS = 5_000  # of a message; above the world's limit
FLOOD_EVENTS = 40  # more than twice a burst of the world's limit
SESSION_UPDATE = b'{"type":"session.update","session":{"type":"realtime"}}'
LAST_WORDS = {
    "oversize": masked_frame(TEXT, b"x" * OVERSIZE_CHARS),
    "garbage": GARBAGE,
    "close": masked_frame(CLOSE, (1000).to_bytes(2, "big")),
    "flood": masked_frame(TEXT, SESSION_UPDATE) * FLOOD_EVENTS,
}
TOOLS = {"tools": [{"type": "function", "name": "look_up", "parameters": {"type": "object"}}]}


class Client:
    """Makes one visit: sends, listens, answers pings, and ends it as planned."""

    def __init__(self, world: World, visit: Visit, wire: Wire) -> None:
        self._world = world
        self._visit = visit
        self._wire = wire
        self._said: str | None = None  # the item that was created last

    async def run(self, conversation: str) -> None:
        visit = self._visit
        with visit.scope:
            await self._talk(conversation)
        if self._wire.ended is None and visit.closed_at is None:
            await self._end(visit.ending or visit.behaviour.ending)
        # A client that vanished leaves a half-open connection behind.
        if not any(what == "vanish" for _, what in visit.causes):
            if self._wire.ended is None and visit.closed_at is None:
                visit.causes.append((trio.current_time(), "fin"))
            self._wire.fin()
        visit.over = True

    # --- talking

    async def _talk(self, conversation: str) -> None:
        behaviour = self._visit.behaviour
        await self._shake_hands(conversation)
        if await self._receive("session.created") is None:
            return
        for number, mark in enumerate(behaviour.turns):
            last = number == len(behaviour.turns) - 1
            if not await self._say(number, mark):
                continue
            await self._ask_for_answer(behaviour.request if last else "")
            if last and behaviour.during != "after":
                if behaviour.during == "answering":
                    await self._receive("response.output_text.delta")
                return
            if last and behaviour.interrupts:
                await self._receive("response.output_text.delta")
                await self._send_event({"type": "response.cancel"})
            done = await self._receive("response.done", _in_conversation)
            if last and done is not None:
                await self._follow_up(behaviour.request, done["response"]["output"])
            await self._listen(behaviour.thinks)

    async def _ask_for_answer(self, request: str) -> None:
        """Asks for an answer, and for what its behaviour requests besides."""
        if request == "retrieve" and self._said is not None:
            await self._send_event({"type": "conversation.item.retrieve", "item_id": self._said})
        if request == "out_of_band":
            words = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Aside"}]}]
            await self._send_event({"type": "response.create", "response": {"conversation": "none", "input": words}})
        await self._send_event({"type": "response.create"} | ({"response": TOOLS} if request == "tool" else {}))
        if request == "delete_open":
            shown = await self._receive("response.output_item.added")
            if shown is not None:
                await self._delete(shown["item"]["id"])

    async def _follow_up(self, request: str, output: list[dict[str, Any]]) -> None:
        """Follows the answer up: with the called tool's output and another answer, or with a deletion or an edit."""
        if request == "delete" and self._said is not None:
            await self._delete(self._said)
            await self._receive("conversation.item.deleted")
        if request == "edit" and self._said is not None:
            self._visit.again.add(self._said)
            await self._delete(self._said)
            words = {"type": "input_text", "text": f"{self._visit.name} says less"}
            item = {"type": "message", "id": self._said, "role": "user", "content": [words]}
            await self._send_event({"type": "conversation.item.create", "item": item})
            await self._receive("conversation.item.done")
        calls = [item["call_id"] for item in output if item["type"] == "function_call"]
        for call_id in calls:
            item = {"type": "function_call_output", "call_id": call_id, "output": "Sunny"}
            await self._send_event({"type": "conversation.item.create", "item": item})
        if calls:
            await self._ask_for_answer("")
            await self._receive("response.done")

    async def _delete(self, item_id: str) -> None:
        self._visit.deleting.add(item_id)
        await self._send_event({"type": "conversation.item.delete", "item_id": item_id})

    async def _shake_hands(self, conversation: str) -> None:
        visit, opening = self._visit, self._visit.behaviour.opening
        if opening == "foreign":
            conversation = "conv_" + "0" * 32
        path = "/v1/elsewhere" if opening == "lost" else "/v1/realtime"
        query = f"?user={visit.user}" + (f"&conversation={conversation}" if conversation else "")
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
        """Creates a user's item. Returns whether it was acknowledged."""
        visit = self._visit
        visit.marks += mark
        if mark:
            self._world.count("agent", mark)
        words = {"type": "input_text", "text": f"{visit.name} says {number} {mark}"}
        item = {"type": "message", "role": "user", "content": [words]}
        await self._send_event({"type": "conversation.item.create", "item": item})
        before = len(visit.errors)
        done = await self._receive("conversation.item.done", lambda event: event["item"].get("content") == [words])
        self._said = None if done is None else done["item"]["id"]
        return len(visit.errors) == before

    async def _send_event(self, event: dict[str, Any]) -> None:
        await self._send(masked_frame(TEXT, msgspec.json.encode(event)), torn=self._visit.behaviour.torn)
        self._visit.said_at.append(trio.current_time())

    async def _send(self, data: bytes, *, torn: bool) -> None:
        if torn:
            cut = self._world.random.randrange(1, len(data))
            self._wire.send(data[:cut])
            await trio.sleep(self._world.random.choice((0, TORN_SECONDS)))
            data = data[cut:]
        self._wire.send(data)

    async def _listen(self, seconds: float) -> None:
        if self._visit.behaviour.busy:
            await trio.sleep(seconds)
        elif seconds:
            await self._receive("nothing", seconds=seconds)

    async def _receive(
        self,
        kind: str,
        wanted: Callable[[dict[str, Any]], bool] = lambda _: True,
        seconds: float = PATIENCE_SECONDS,
    ) -> dict[str, Any] | None:
        """The next event of a type; None after an error, after `seconds`, or when the connection ended."""
        name = f'{{"type":"{kind}"'.encode()
        with trio.move_on_after(seconds):
            while (frame := await self._next()) is not None:
                opcode, payload = frame
                if opcode == TEXT:
                    if payload.startswith(name) and wanted(event := decode(payload)):
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
            await self._receive("nothing")
            if wire.ended is not None or visit.closed_at is not None:
                return
            how = "close" if visit.status == 101 else "fin"
        if how == "vanish" and visit.behaviour.busy:
            await trio.sleep(UNANSWERED_SECONDS)
            if wire.ended is not None or visit.closed_at is not None:
                visit.cause("vanish")  # a ping came sooner than expected: it was silent for too long already
                return
            visit.silences.append(wire.delivered_at)
            self._world.count("state", "spoke past a ping")
            self._wire.send(masked_frame(TEXT, SESSION_UPDATE))
            visit.said_at.append(trio.current_time())
        if how == "slow":
            await self._stop_reading()
        else:
            self._do(how)
        if how in ("close", "oversize", "garbage", "flood", "fin"):
            await self._receive("nothing", seconds=CLOSE_SECONDS)

    def _do(self, how: str) -> None:
        self._wire.send(LAST_WORDS.get(how, b""))
        self._visit.cause(how)
        if how == "reset":
            self._wire.reset()
        elif how == "fin":
            self._wire.fin()

    async def _stop_reading(self) -> None:
        """Asks for a longer answer than its buffers hold, and reads none of it."""
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
                if visit.behaviour.busy:  # it still sends, so that it is not closed as silent
                    self._wire.send(masked_frame(PONG, b""))
                with trio.move_on_after(TALK_SECONDS):
                    await self._wire._for_client.park()


def _in_conversation(event: dict[str, Any]) -> bool:
    return event["response"]["conversation_id"] is not None


class Clients:
    """All clients of a world, and their visits."""

    def __init__(self, world: World, observer: Observer) -> None:
        self._world = world
        self._observer = observer
        self.visits: list[Visit] = []

    async def run(self, plan: ClientPlan) -> None:
        """Makes one client's visits, from first to last."""
        await trio.sleep(plan.comes)
        conversation = ""
        for number, behaviour in enumerate(plan.visits):
            visit = await self._visit(f"{plan.name}.{number}", plan.name, behaviour, conversation)
            conversation = visit.conversation if visit is not None and behaviour.returns else ""
            await trio.sleep(behaviour.thinks)

    async def _visit(self, name: str, user: str, behaviour: Behaviour, conversation: str) -> Visit | None:
        server = await self._find_server()
        if server is None:
            return None
        visit = Visit(name, user, server, behaviour, trio.current_time(), self._observer)
        visit.wire = server.connect(visit.on_frame, visit.on_end)
        if visit.wire is None:
            return None
        self.visits.append(visit)
        self._world.count("opening", behaviour.opening)
        self._world.trace.add(name, "connects to", server.name)
        await Client(self._world, visit, visit.wire).run(conversation)
        return visit

    async def _find_server(self) -> Server | None:
        def accepting() -> list[Server]:
            return [server for server in self._world.servers if server.accepting]

        found = await until(lambda: bool(accepting()), PATIENCE_SECONDS, LOOK_SECONDS)
        return self._world.random.choice(accepting()) if found else None
