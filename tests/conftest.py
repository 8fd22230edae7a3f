"""Fixtures: a real PostgreSQL, stores on it and beside it, and servers in this process and in one of their own."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import trio

from server import embedded, logs
from server.agent import Agent
from server.agents import EchoAgent
from server.config import Settings
from server.main import listen, serve_sessions, url_of
from server.postgres import PostgresStore, open_store
from server.shutdown import Signals
from server.store import Store

from .browser import open_browser
from .processes import ServerProcess, run_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Fresh examples in every run, also where hypothesis would choose its own profile for CI, which repeats the same ones.
hypothesis.settings.register_profile("ci", deadline=None, derandomize=False, print_blob=True)
hypothesis.settings.load_profile("ci")

START_SECONDS = 10.0
SETTINGS = Settings(port=0, agent="echo", drain_seconds=5.0, memory_sweep_seconds=1.0)
TABLES = "client_secrets, api_keys, user_memories, messages, conversation_sessions, conversations, server_instances"


@pytest.fixture(autouse=True)
def quiet_logs() -> None:
    """The server's own logging, for problems only: the default of structlog draws pictures of every traceback."""
    logs.configure(json_logs=False, level="error")


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    """The URL of an embedded PostgreSQL that all tests of this run share."""
    with tempfile.TemporaryDirectory(prefix="lastcall-") as directory:
        # pytest's own temporary folders are private, and as root PostgreSQL runs as another user.
        Path(directory).chmod(0o755)
        try:
            yield embedded.start(Path(directory))
        finally:
            embedded.stop(Path(directory))


@pytest.fixture
async def postgres_store(database_url: str) -> AsyncIterator[PostgresStore]:
    """The real store, on empty tables."""
    async with open_store(database_url) as store:
        await empty(store)
        yield store


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
        """Shuts down as a signal would, and waits for the end."""
        self.signals.begin()
        await self.ended.wait()


OpenServer = Callable[..., AbstractAsyncContextManager[TestServer]]


@asynccontextmanager
async def open_server(store: Store, agent: Agent | None = None, **changes: object) -> AsyncIterator[TestServer]:
    """A server in this process on a free port; `changes` are settings. Leaving the block shuts it down."""
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    sockets = await listen(settings)
    server = TestServer(url_of(settings, sockets), store, Signals(settings.drain_seconds))
    ready = trio.Event()

    async def run() -> None:
        await serve_sessions(settings, store, agent or EchoAgent(), sockets, server.signals, ready.set)
        server.ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        with trio.fail_after(START_SECONDS):
            await ready.wait()
        try:
            yield server
        finally:
            server.signals.begin()


@pytest.fixture
async def server(postgres_store: PostgresStore) -> AsyncIterator[TestServer]:
    """A server in this process, on the real store, with the echo agent."""
    async with open_server(postgres_store) as running:
        yield running


@pytest.fixture
def running_server(database_url: str) -> Iterator[ServerProcess]:
    """`lastcall serve` in a process of its own, with the echo agent."""
    with run_server("--database-url", database_url, "--agent", "echo") as process:
        yield process


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser, for a module's tests."""
    with open_browser() as browser:
        yield browser
