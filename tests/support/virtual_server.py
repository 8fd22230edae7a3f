"""One server's connections in virtual time: real connection code over in-memory streams, a fake store and clock."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import trio
import trio.testing
from lastcall.agents.agent import Agent
from lastcall.auth.authenticator import Authenticator
from lastcall.config import Settings
from lastcall.limits.gate import Gate
from lastcall.memory.finalizer import Finalizer
from lastcall.realtime.connection import serve_websocket
from lastcall.realtime.services import Services, server_metrics
from lastcall.runtime.timer import Timer
from lastcall.sessions.instance import InstanceLease
from lastcall.sessions.registry import Registry
from lastcall.sessions.upkeep.reconciler import Reconciler
from lastcall.store.proof import CommitProof
from lastcall.transport.flusher import Flusher
from lastcall.transport.http.request_head import RequestHead, parse_head
from lastcall.transport.stream import BufferedStream
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from tests.support.fake_store import FakeStore

SETTINGS = Settings()
QUEUE_MESSAGES = 10_000
REPLY_SECONDS = 1_000.0  # virtual


class World:
    """A server's services without a server: one connection at a time, in virtual time."""

    def __init__(self, store: FakeStore, agent: Agent, **changes: Any) -> None:
        self.store = store
        self.settings = replace(SETTINGS, **changes)
        finalizer = Finalizer(store, agent, self.settings)
        registry = Registry()
        self.lease = InstanceLease(store, self.settings, registry)
        metrics = server_metrics()
        self.services = Services(
            self.lease,
            self.settings,
            store,
            agent,
            finalizer,
            registry,
            metrics,
            Authenticator(store, self.settings),
            Gate(self.settings, metrics.count_refusal),
            Reconciler(store, self.lease, registry, metrics),
            CommitProof(store),
        )
        self.over = trio.Event()

    @asynccontextmanager
    async def connected(self, query: str = "", subprotocols: Sequence[str] = ()) -> AsyncIterator[Peer]:
        """A client whose server side runs in a nursery of its own."""
        if self.lease.instance_id not in self.store.instances:
            await self.lease.register()
        theirs, ours = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve, ours)
            async with trio.open_nursery() as client:
                # A client that reads on while its user is silent: its queue holds all that the server says here.
                ws = await wrap_client_stream(
                    client,
                    cast("Any", theirs),
                    "localhost",
                    f"/v1/realtime{query}",
                    subprotocols=subprotocols,
                    message_queue_size=QUEUE_MESSAGES,
                )
                yield Peer(ws, theirs, ours)
                client.cancel_scope.cancel()

    async def _serve(self, transport: trio.abc.HalfCloseableStream) -> None:
        async with trio.open_nursery() as tasks:
            services = replace(self.services, flusher=Flusher(), timer=Timer())  # each connection runs its own
            tasks.start_soon(services.flusher.run)
            tasks.start_soon(services.timer.run)
            stream = BufferedStream(
                transport,
                tasks,
                services.flusher,
                send_seconds=self.settings.send_seconds,
                bytes_high=self.settings.outbox_bytes_high,
                bytes_max=self.settings.outbox_bytes_max,
            )
            try:
                await stream.finish(await serve_websocket(stream, await received_head(stream), "", services, tasks))
            finally:
                await stream.close_now()
            tasks.cancel_scope.cancel()
        self.over.set()

    @property
    def row(self) -> Any:
        (row,) = self.store.sessions.values()
        return row


async def received_head(stream: BufferedStream) -> RequestHead:
    """The first request, as the listener would read it."""
    data = b""
    while (head := parse_head(data)) is None:
        data += await stream.receive_some()
    return head


class Peer:
    """The client's end. `theirs` and `ours` are the two ends of the wire."""

    def __init__(self, ws: WebSocketConnection, theirs: Any, ours: Any) -> None:
        self.ws = ws
        self.theirs = theirs
        self.ours = ours
        self.last_words: list[str] = []

    async def receive(self, kind: str) -> dict[str, Any]:
        with trio.fail_after(REPLY_SECONDS):
            while (event := json.loads(await self.ws.get_message()))["type"] != kind:
                pass
        return dict(event)

    async def send(self, **event: Any) -> None:
        await self.ws.send_message(json.dumps(event))

    async def say(self, text: str) -> None:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        await self.send(type="conversation.item.create", item=item)
        await self.receive("conversation.item.done")

    async def closed(self) -> int:
        try:
            while True:
                self.last_words.append(json.loads(await self.ws.get_message())["type"])
        except ConnectionClosed as closed:
            return closed.reason.code if closed.reason else 0

    def vanish(self) -> None:
        """From now on nothing that the server sends is read or answered, and nothing is closed."""
        self.theirs.receive_stream.receive_some_hook = None
        self.ws._reader_running = False
        self.ours.send_stream.send_all_hook = None


SOCKETS_MAX = 1_000
HANDSHAKE = (
    b"GET /v1/realtime HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
