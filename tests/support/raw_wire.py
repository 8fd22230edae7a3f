"""The real server, listener and HTTP side included, over in-memory streams in virtual time; and frames by hand.

One world per example: `in_a_world` runs it to its end under a clock that jumps, beside a bystander who must not notice
anything, and then asks for what holds whatever a client sent.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import structlog.testing
import trio
from lastcall.agents.agent import Agent
from lastcall.agents.echo import EchoAgent
from lastcall.auth.authenticator import Authenticator
from lastcall.config import Settings
from lastcall.limits.gate import Gate
from lastcall.listener import Listener
from lastcall.memory.finalizer import Finalizer
from lastcall.realtime.services import Services, server_metrics
from lastcall.sessions.instance import InstanceLease
from lastcall.sessions.registry import Registry
from lastcall.sessions.upkeep.reconciler import Reconciler
from lastcall.store.proof import CommitProof
from lastcall.transport.http.http1 import HttpServer
from lastcall.transport.stream import LINGER_SECONDS
from lastcall.web.app import create_app
from lastcall.web.middleware import REQUEST_SECONDS
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked
from trio_websocket import WebSocketConnection, wrap_client_stream

from .fake_rows import SessionRecord
from .fake_store import FakeStore

T = TypeVar("T")
Event = dict[str, Any]
Stream = trio.abc.HalfCloseableStream

SETTINGS = Settings()
QUEUE_MESSAGES = 10_000
SOCKETS_MAX = 1_000
WORLD_SECONDS = 10_000.0  # virtual: far beyond every bound under test
SILENCE_SECONDS = (  # a client that says nothing more is gone within these, whatever it said before
    max(
        SETTINGS.handshake_seconds + REQUEST_SECONDS,
        SETTINGS.ping_interval + SETTINGS.ping_timeout + SETTINGS.begin_seconds,
    )
    + SETTINGS.end_seconds
    + SETTINGS.close_seconds
    + SETTINGS.send_seconds
    + LINGER_SECONDS
)
STRICT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)  # what strict clients check every event with

KEY, ACCEPT = b"dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # the example of RFC 6455, section 1.3
HANDSHAKE = (
    b"GET /v1/realtime?user=fuzz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"
)
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class _Socket:
    """What Hypercorn asks a socket for."""

    family = socket.AF_INET

    def getpeername(self) -> tuple[str, int]:
        return "127.0.0.1", 50_000

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 8_000


class World:
    """A server without a port. open: connections that it serves; left: set when the next one ends."""

    def __init__(self, nursery: trio.Nursery, agent: Agent, **changes: Any) -> None:
        self.store = FakeStore()
        self.settings = replace(SETTINGS, **changes)
        self.registry = Registry()
        self.lease = InstanceLease(self.store, self.settings, self.registry)
        self.open = 0
        self.left = trio.Event()
        self._nursery = nursery
        finalizer = Finalizer(self.store, agent, self.settings)
        metrics = server_metrics()
        self._services = services = Services(
            self.lease,
            self.settings,
            self.store,
            agent,
            finalizer,
            self.registry,
            metrics,
            Authenticator(self.store, self.settings),
            Gate(self.settings, metrics.count_refusal),
            Reconciler(self.store, self.lease, self.registry, metrics),
            CommitProof(self.store),
        )
        self._listener = Listener(services, HttpServer(create_app(services)), SOCKETS_MAX)

    async def serve_all(self) -> None:
        async with self._services.running():
            await trio.sleep_forever()

    def dial(self) -> Stream:
        """A new connection; what is returned is the client's end."""
        theirs, ours = memory_stream_pair()
        cast("Any", ours).socket, cast("Any", ours).address = _Socket(), "127.0.0.1"
        cast("Any", ours).close = lambda: None  # whoever serves it has closed it
        self._nursery.start_soon(self._serve, ours)
        return theirs

    async def _serve(self, transport: Stream) -> None:
        self.open += 1
        await self._listener._serve(cast("Any", transport))
        self.open -= 1
        self.left.set()
        self.left = trio.Event()

    async def emptied(self) -> None:
        """Waits until only the bystander is left, for as long as a silent client may take."""
        with trio.move_on_after(SILENCE_SECONDS):
            while self.open > 1:
                await self.left.wait()
        await wait_all_tasks_blocked()

    def rows_of(self, user_id: str) -> list[SessionRecord]:
        return [row for row in self.store.sessions.values() if row.user_id == user_id]


class Client:
    """A well-behaved client, who keeps all that it hears in `heard`."""

    def __init__(self, ws: WebSocketConnection) -> None:
        self.ws = ws
        self.heard: list[Event] = []

    async def send(self, event: Event | str) -> None:
        await self.ws.send_message(event if isinstance(event, str) else json.dumps(event))

    async def until(self, kind: str) -> Event:
        with trio.fail_after(1.0):  # virtual: nothing here waits for time to pass
            while True:
                event: Event = json.loads(await self.ws.get_message())
                self.heard.append(event)
                if event["type"] == kind:
                    return event

    async def ask(self, text: str) -> Event:
        content = [{"type": "input_text", "text": text}]
        await self.send({"type": "conversation.item.create", "item": {"role": "user", "content": content}})
        await self.until("conversation.item.done")
        await self.send({"type": "response.create"})
        return await self.until("response.done")


async def connect(world: World, nursery: trio.Nursery, query: str) -> Client:
    """A client that has received its session.created."""
    ws = await wrap_client_stream(
        nursery, cast("Any", world.dial()), "localhost", f"/v1/realtime?{query}", message_queue_size=QUEUE_MESSAGES
    )
    client = Client(ws)
    await client.until("session.created")
    return client


def in_a_world(scenario: Callable[[World], Awaitable[T]], agent: Agent | None = None, **changes: Any) -> T:
    """Runs a scenario in a world of its own; `changes` are settings.

    Asserts that every connection has ended with the scenario; that no row stayed active and no session registered;
    that nothing was logged as an error; and that a bystander, connected all the while, heard nothing and was answered
    afterwards.
    """

    async def run() -> T:
        async with trio.open_nursery() as nursery:
            world = World(nursery, agent or EchoAgent(), **changes)
            await world.lease.register()
            nursery.start_soon(world.serve_all)
            with trio.fail_after(WORLD_SECONDS):
                bystander = await connect(world, nursery, "user=bystander")
                await bystander.until("conversation.created")
                heard, (row,) = len(bystander.heard), world.rows_of("bystander")
                result = await scenario(world)
                left = world.open - 1
                answer = await bystander.ask("after")
                await bystander.ws.aclose()
                await wait_all_tasks_blocked()
            problems.extend(_problems(world, left, bystander.heard[heard:], answer, row))
            nursery.cancel_scope.cancel()
        return result

    problems: list[str] = []
    with _logged() as logged:
        result = trio.run(run, clock=MockClock(autojump_threshold=0.0))
    assert not logged
    assert not problems
    return result


def _problems(world: World, left: int, heard: list[Event], answer: Event, bystander: SessionRecord) -> Iterator[str]:
    if left:
        yield f"{left} connections outlived their bounds"
    if len(world.registry):
        yield "a session is still registered"
    yield from (f"the row of {row.user_id} is active" for row in world.store.sessions.values() if row.is_active)
    kinds = [event["type"] for event in heard]
    # the user's item, and an answer to it in several deltas; nothing before, between or after them
    if kinds[:2] != ["conversation.item.added", "conversation.item.done"] or "error" in kinds:
        yield f"the bystander heard {kinds}"
    said = [part["text"] for item in answer["response"]["output"] for part in item["content"]]
    if said != ["You said: after"]:
        yield f"the bystander was answered {answer}"
    if (bystander.end_reason, bystander.close_code) != ("client_closed", 1000):
        yield f"the bystander's row is {bystander}"
    if len(world.store.items(bystander.conversation_id)) != 2:
        yield "the bystander's conversation is not what was said in it"


class _Keeping(logging.Handler):
    def __init__(self, found: list[object]) -> None:
        super().__init__(logging.WARNING)
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        self._found.append(record.getMessage())


@contextmanager
def _logged() -> Iterator[list[object]]:
    """What is logged as an error, by structlog or the standard library."""
    found: list[object] = []
    handler = _Keeping(found)
    logging.getLogger().addHandler(handler)
    try:
        with structlog.testing.capture_logs() as logs:
            yield found
        found.extend(logs)
    finally:
        logging.getLogger().removeHandler(handler)


# --- frames ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """A client's frame, right or wrong. length_bytes: of the extended length; None for as many as it takes."""

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0
    masked: bool = True
    mask: bytes = b"\x01\x02\x03\x04"
    length_bytes: int | None = None

    @property
    def least_length_bytes(self) -> int:
        return 0 if len(self.payload) < 126 else 2 if len(self.payload) < 65_536 else 8

    def encode(self) -> bytes:
        size, extended = len(self.payload), max(self.length_bytes or 0, self.least_length_bytes)
        short = {0: size, 2: 126, 8: 127}[extended]
        head = bytes(((self.fin << 7) | (self.rsv << 4) | self.opcode, (self.masked << 7) | short))
        head += size.to_bytes(extended, "big") if extended else b""
        if not self.masked:
            return head + self.payload
        key = (self.mask * (size // 4 + 1))[:size]
        return head + self.mask + bytes(a ^ b for a, b in zip(self.payload, key, strict=True))


def text(message: str | Event) -> Frame:
    return Frame(TEXT, (message if isinstance(message, str) else json.dumps(message)).encode())


def close(code: int, reason: bytes = b"") -> Frame:
    return Frame(CLOSE, code.to_bytes(2, "big") + reason)


def frames_from_server(data: bytes) -> list[tuple[int, bytes]]:
    """Opcode and payload of every frame. Asserts that each is whole, final and unmasked, and the last if a close."""
    frames: list[tuple[int, bytes]] = []
    while data:
        first, size, start = data[0], data[1], 2
        if size in (126, 127):
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        assert first & 0xF0 == 0x80, "final, no reserved bit"
        assert len(data) >= start + size, "a torn frame"
        assert all(opcode != CLOSE for opcode, _ in frames), "a frame after the close frame"
        frames.append((first & 0x0F, data[start : start + size]))
        data = data[start + size :]
    return frames


def events_from(frames: list[tuple[int, bytes]]) -> list[Event]:
    """The events among a server's frames. Asserts that strict clients would take each."""
    events = [payload for opcode, payload in frames if opcode == TEXT]
    for event in events:
        STRICT.validate_json(event)
    return [json.loads(event) for event in events]
