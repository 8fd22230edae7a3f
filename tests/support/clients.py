"""A Realtime client for tests. It can also end a connection in ways that official clients cannot."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlencode, urlsplit

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import Ping

Event = dict[str, Any]
REPLY_SECONDS = 10.0
DEAF_BUFFER_BYTES = 16_384


def user_item(text: str, item_id: str) -> Event:
    """The event that creates a user's message."""
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "id": item_id, "role": "user", "content": content}
    return {"type": "conversation.item.create", "event_id": f"create_{item_id}", "item": item}


def texts(events: Sequence[Event]) -> list[str]:
    """The text of each event's item."""
    return [event["item"]["content"][0]["text"] for event in events]


def answer_text(done: Event) -> str:
    """The text of a `response.done`."""
    return str(done["response"]["output"][0]["content"][0]["text"])


class Connection(WebSocketConnection):
    """trio-websocket's client connection, which survives a ping that crosses its own close frame (its issue 184)."""

    async def _handle_ping_event(self, event: Ping) -> None:
        # No pong may follow a close frame: the library would try, and raise in the reader.
        if self._wsproto.state is ConnectionState.OPEN:
            await super()._handle_ping_event(event)


class Client:
    """One connection. `created` is its session.created event, `events` has every event received."""

    def __init__(self, ws: WebSocketConnection, stream: trio.SocketStream) -> None:
        self.ws = ws
        self.stream = stream
        self.events: list[Event] = []
        self.created: Event = {}
        self.close_code = 0

    @property
    def session_id(self) -> str:
        return str(self.created["session"]["id"]).removeprefix("sess_")

    @property
    def conversation_id(self) -> str:
        return str(self.created["session"]["conversation_id"])

    async def send(self, event: Event | str) -> None:
        await self.ws.send_message(event if isinstance(event, str) else json.dumps(event))

    async def receive(self) -> Event:
        with trio.fail_after(REPLY_SECONDS):
            event: Event = json.loads(await self.ws.get_message())
        self.events.append(event)
        return event

    async def until(self, kind: str) -> Event:
        """Receives until the next event of this type, and returns it."""
        while (event := await self.receive())["type"] != kind:
            pass
        return event

    async def say(self, text: str, item_id: str | None = None) -> Event:
        """Creates a user's message and waits for its acknowledgement."""
        item: Event = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        if item_id:
            item["id"] = item_id
        await self.send({"type": "conversation.item.create", "item": item})
        while (event := await self.until("conversation.item.done"))["item"].get("content") != item["content"]:
            pass  # another session's
        return event

    async def ask(self, text: str) -> Event:
        """A whole turn; returns `response.done`."""
        await self.say(text)
        await self.send({"type": "response.create"})
        return await self.until("response.done")

    async def replayed(self) -> list[Event]:
        """Sends the connection's first event, and returns the items that were replayed before its answer."""
        await self.send({"type": "session.update", "session": {"type": "realtime"}})
        await self.until("session.updated")
        return [event for event in self.events if event["type"] == "conversation.item.done"]

    async def closed(self) -> int:
        """Reads to the end and returns the close code."""
        try:
            while True:
                await self.receive()
        except ConnectionClosed as closed:
            return closed.reason.code if closed.reason else 0

    def deafen(self) -> None:
        """Stops reading from the socket for good; sending still works."""
        self.ws._reader_running = False
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DEAF_BUFFER_BYTES)

    def reset(self) -> None:
        """Drops the connection with a RST."""
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()


def connect(url: str, **query: str) -> AbstractAsyncContextManager[Client]:
    """Connects to a server's base URL (http://…) and receives session.created; closes the WebSocket on leaving."""
    return connect_with(url, query)


@asynccontextmanager
async def connect_with(
    url: str, query: Mapping[str, str], key: str | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Client]:
    """The same with an API key, and with TLS where it is said how to check the server's certificate."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    tcp = await trio.open_tcp_stream(parts.hostname, parts.port)
    stream = tcp if tls is None else trio.SSLStream(tcp, tls, server_hostname=parts.hostname, https_compatible=True)
    headers = [] if key is None else [(b"Authorization", f"Bearer {key}".encode())]
    try:
        async with trio.open_nursery() as nursery:
            ws = Connection(
                stream,
                WSConnection(ConnectionType.CLIENT),
                host=parts.netloc,
                path=f"/v1/realtime?{urlencode(query)}",
                client_extra_headers=headers,
            )
            nursery.start_soon(ws._reader_task)
            await ws._open_handshake.wait()
            client = Client(ws, tcp)
            client.created = await client.receive()
            yield client
            with trio.move_on_after(REPLY_SECONDS), suppress(trio.ClosedResourceError, OSError):
                await ws.aclose()
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)
