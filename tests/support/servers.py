"""Servers in the process of the tests, on any store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

import trio
from lastcall.agents.agent import Agent
from lastcall.agents.echo import EchoAgent
from lastcall.config import Settings
from lastcall.main import serve_sessions
from lastcall.memory.meaning.encoder import Encode
from lastcall.memory.meaning.turns import with_meanings
from lastcall.memory.reading import read_in_process
from lastcall.shutdown import Signals
from lastcall.store.postgres import PostgresStore
from lastcall.store.store import Store
from lastcall.transport.port import open_port, url_of

START_SECONDS = 10.0
SETTINGS = Settings(port=0, agent="echo", drain_seconds=5.0, memory_sweep_seconds=1.0)
TABLES = (
    "audit_log, server_census, session_counts, response_counts, agent_responses, unfinished_revocations,"
    " client_secrets, api_keys, user_memories, superseded_memories, memory_tombstones, forgotten_turns, recall_lexemes,"
    " recall_passages, messages, conversation_sessions, conversations, server_instances,"
    " webhook_endpoints, webhook_deliveries"
)


async def empty(store: PostgresStore) -> None:
    await store.select(f"TRUNCATE {TABLES}")


class TestServer:
    """A server in this process. `signals.stop.set()` is its SIGTERM."""

    __test__ = False

    def __init__(self, url: str, store: Store, signals: Signals) -> None:
        self.url = url
        self.store = store
        self.signals = signals
        self.ended = trio.Event()

    @property
    def ws_url(self) -> str:
        return self.url.replace("http", "ws", 1) + "/v1/realtime"

    async def stop(self) -> None:
        """Shuts down as a signal would, and waits until the server has ended."""
        self.signals.begin()
        await self.ended.wait()


OpenServer = Callable[..., AbstractAsyncContextManager[TestServer]]


@asynccontextmanager
async def open_server(
    store: Store, agent: Agent | None = None, encode: Encode | None = None, **changes: object
) -> AsyncIterator[TestServer]:
    """A server in this process on a free port; `changes` are settings. Leaving the block shuts it down.

    encode: with it, turns of the past are found by meaning, too.
    """
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    async with open_port(settings.host, settings.port) as port:
        server = TestServer(url_of(settings, port.number), store, Signals(settings.drain_seconds))
        ready = trio.Event()

        async def run() -> None:
            read = read_in_process if encode is None else with_meanings(read_in_process, encode)
            announce, signals = ready.set, server.signals
            await serve_sessions(
                settings, store, agent or EchoAgent(), port.listen, signals, announce, read=read, encode=encode
            )
            server.ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            with trio.fail_after(START_SECONDS):
                await ready.wait()
            try:
                yield server
            finally:
                server.signals.begin()
