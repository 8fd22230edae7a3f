"""Shutdown by signal, of a real process: all rows closed, clients told, exit 0, within the budget."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import trio
from lastcall.store.postgres import PostgresStore

from ..support.clients import Client, connect
from ..support.processes import ServerProcess, run_server
from ..support.waiting import eventually

pytestmark = pytest.mark.alone

DRAIN_SECONDS = 6.0
START_UP_AND_EXIT_SECONDS = 1.5  # for the interpreter, beside the budget of the shutdown
SLOW, FLOODING = "tests.support.scripted_agents:Slow", "tests.support.scripted_agents:Flooding"
ROWS = """
    SELECT is_active, end_reason, memory_status, extract(epoch FROM session_end)::float8 AS ended,
           (SELECT count(*) FROM messages m WHERE m.session_id = s.session_id AND role = 'assistant'
               AND status = 'incomplete' AND content <> '') AS cut_off
      FROM conversation_sessions s"""

Serve = Callable[..., AbstractContextManager[ServerProcess]]


@pytest.fixture
def serve(database_url: str) -> Serve:
    def start(agent: str = "echo", drain_seconds: float = DRAIN_SECONDS) -> AbstractContextManager[ServerProcess]:
        return run_server("--database-url", database_url, "--agent", agent, "--drain-seconds", str(drain_seconds))

    return start


async def answering(url: str, number: int, clients: list[Client], nursery: trio.Nursery) -> None:
    """Connects a client, lets it speak, and leaves it in the middle of an answer, to be closed by the server."""
    started = trio.Event()

    async def run() -> None:
        async with connect(url, user=f"user-{number}") as client:
            await client.say(f"My name is Ada {number}.")
            await client.send({"type": "response.create"})
            await client.until("response.output_text.delta")
            clients.append(client)
            started.set()
            client.close_code = await client.closed()

    nursery.start_soon(run)
    await started.wait()


async def terminate(server: ServerProcess, number: signal.Signals = signal.SIGTERM) -> tuple[int, float, float]:
    """Exit code, the time of the signal (epoch seconds), and how long the exit took (seconds)."""
    sent = time.time()
    code = await trio.to_thread.run_sync(server.stop, number)
    return code, sent, time.time() - sent


async def hurry(server: ServerProcess) -> float:
    """Sends a second signal; how long the exit took from there, in seconds."""
    await trio.to_thread.run_sync(server.hurry)
    sent = time.time()
    await trio.to_thread.run_sync(server.process.wait)
    return time.time() - sent


async def rows(store: PostgresStore) -> list[Any]:
    return await store.select(ROWS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_clients_in_mid_response_are_closed_in_bulk_with_1012(
    number: signal.Signals, crowd: int, serve: Serve, postgres_store: PostgresStore
) -> None:
    clients: list[Client] = []
    with serve(SLOW) as server:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for user in range(crowd):
                    await answering(server.url, user, clients, nursery)
                code, sent, took = await terminate(server, number)
    assert code == 0
    assert took < DRAIN_SECONDS + START_UP_AND_EXIT_SECONDS
    assert {client.close_code for client in clients} == {1012}
    found = await rows(postgres_store)
    assert len(found) == crowd
    assert not any(row["is_active"] for row in found)
    assert {row["end_reason"] for row in found} == {"shutdown"}
    assert {row["memory_status"] for row in found} == {"done"}
    assert {row["cut_off"] for row in found} == {1}
    ends = {row["ended"] for row in found}
    assert len(ends) == 1, "one statement closed them all"
    grace = 0.4 * DRAIN_SECONDS
    assert ends.pop() == pytest.approx(sent + grace, abs=1.0)


async def test_clients_that_never_read_cost_a_shutdown_nothing_but_its_budget(
    crowd: int, serve: Serve, postgres_store: PostgresStore
) -> None:
    with serve(FLOODING) as server:
        with trio.fail_after(90):
            async with trio.open_nursery() as nursery:
                for user in range(crowd):
                    await connect_deaf(server.url, nursery, user)
                await eventually(lambda: all_spoke(postgres_store, crowd), bool, within=30)
                code, _, took = await terminate(server)
                nursery.cancel_scope.cancel()
    assert code == 0
    assert took < DRAIN_SECONDS + START_UP_AND_EXIT_SECONDS
    found = await rows(postgres_store)
    assert len(found) == crowd
    assert not any(row["is_active"] for row in found)
    assert {row["memory_status"] for row in found} == {"done"}


async def all_spoke(store: PostgresStore, crowd: int) -> bool:
    count = await store.select("SELECT count(DISTINCT session_id) FROM messages WHERE role = 'user'")
    return bool(count[0][0] == crowd)


async def connect_deaf(url: str, nursery: trio.Nursery, number: int) -> None:
    """A client that speaks, asks for a flood of words, and never reads again."""
    speaking = trio.Event()

    async def run() -> None:
        async with connect(url, user=f"user-{number}") as client:
            client.deafen()
            await client.send(
                {
                    "type": "conversation.item.create",
                    "item": {
                        "type": "message",
                        "role": "user",
                        "content": [{"type": "input_text", "text": f"My name is Ada {number}."}],
                    },
                }
            )
            await client.send({"type": "response.create"})
            speaking.set()
            await trio.sleep_forever()

    nursery.start_soon(run)
    await speaking.wait()


async def test_a_second_signal_skips_the_waiting_but_not_the_bulk_close(
    serve: Serve, postgres_store: PostgresStore
) -> None:
    clients: list[Client] = []
    with serve(SLOW, drain_seconds=60.0) as server:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                await answering(server.url, 1, clients, nursery)
                server.process.send_signal(signal.SIGTERM)
                await trio.to_thread.run_sync(server.wait_for, "shutdown_began")
                took = await hurry(server)
    code = server.process.returncode
    assert code == 0
    assert took < 5.0
    assert clients[0].close_code == 1012
    (row,) = await rows(postgres_store)
    assert not row["is_active"]
    assert row["end_reason"] == "shutdown"


async def test_an_answer_that_ends_within_the_grace_is_completed(serve: Serve, postgres_store: PostgresStore) -> None:
    with serve("tests.support.scripted_agents:Brief") as server:
        async with connect(server.url) as client:
            await client.say("Hello")
            await client.send({"type": "response.create"})
            await client.until("response.output_text.delta")
            server.process.send_signal(signal.SIGTERM)
            done = await client.until("response.done")
            assert done["response"]["status"] == "completed"
            assert await client.closed() == 1012
        assert await trio.to_thread.run_sync(server.process.wait) == 0
    items = await postgres_store.select("SELECT status FROM messages WHERE role = 'assistant'")
    assert [item["status"] for item in items] == ["completed"]


async def test_an_agent_that_ignores_cancellation_delays_no_row_and_no_exit(
    serve: Serve, postgres_store: PostgresStore
) -> None:
    clients: list[Client] = []
    with serve("tests.support.scripted_agents:Unstoppable", drain_seconds=1.0) as server:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                await answering(server.url, 1, clients, nursery)
                server.process.send_signal(signal.SIGTERM)
                await eventually(
                    lambda: rows(postgres_store), lambda found: not any(row["is_active"] for row in found), within=3
                )
                code = await trio.to_thread.run_sync(server.process.wait)
    assert code == 70, "the watchdog ended what was stuck"
    (row,) = await rows(postgres_store)
    assert row["end_reason"] == "shutdown"
