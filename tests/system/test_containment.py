"""A shutdown, whatever agents and silent clients do, takes no longer than its budget."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

import pytest
import trio
from lastcall.cli.serve import COLLECTION_THRESHOLDS

from ..support.clients import connect
from ..support.processes import ServerProcess, run_server

DRAIN_SECONDS = 20.0
HURRY_WITHIN_SECONDS = 4.0
EXIT_WITHIN_SECONDS = 5.0

Serve = Callable[..., AbstractContextManager[ServerProcess]]


@pytest.fixture
def serve(database_url: str) -> Serve:
    def start(agent: str = "echo") -> AbstractContextManager[ServerProcess]:
        settings = ("--agent", agent, "--drain-seconds", str(DRAIN_SECONDS))
        return run_server("--database-url", database_url, *settings)

    return start


async def ended(wait: Callable[[], int]) -> tuple[int, float]:
    """The exit code, and how long the exit took in seconds."""
    began = trio.current_time()
    code = await trio.to_thread.run_sync(wait)
    return code, trio.current_time() - began


async def test_a_second_signal_does_not_wait_for_memory_that_hangs(serve: Serve) -> None:
    with serve("tests.support.scripted_agents:HangingMemory") as server:
        async with connect(server.url) as client:
            await client.say("My name is Ada.")
            server.process.send_signal(signal.SIGTERM)
            assert await client.closed() == 1012
        await trio.to_thread.run_sync(server.hurry)
        code, took = await ended(server.process.wait)
    assert code == 0
    assert took < HURRY_WITHIN_SECONDS


async def test_a_silent_connection_does_not_delay_the_exit(serve: Serve) -> None:
    with serve() as server:
        parts = urlsplit(server.url)
        assert parts.hostname is not None
        assert parts.port is not None
        async with await trio.open_tcp_stream(parts.hostname, parts.port):
            async with connect(server.url) as client:  # accepted after the silent one
                await client.say("Hello")
            code, took = await ended(server.stop)
    assert code == 0
    assert took < EXIT_WITHIN_SECONDS


async def test_garbage_collections_are_rare_and_skip_what_start_up_created(serve: Serve) -> None:
    with serve("tests.support.scripted_agents:Introspective") as server:
        async with connect(server.url) as client:
            answer = (await client.ask("Hello"))["response"]["output"][0]["content"][0]["text"]
    frozen, scanned, threshold = map(int, answer.split())
    assert frozen > 10 * scanned
    assert threshold == COLLECTION_THRESHOLDS[0]
