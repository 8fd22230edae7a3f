"""However a connection ends, its row is closed at once, dated right, and its memory finalized: a crowd of each kind."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest
import trio
from lastcall.store.postgres import PostgresStore
from lastcall.store.records import StoredItem
from lastcall.store.store import Store
from trio_websocket import ConnectionClosed

from ..support.clients import Client, connect
from ..support.processes import run_server
from ..support.servers import open_server
from ..support.waiting import eventually

pytestmark = pytest.mark.alone

STAGGER_SECONDS = 0.01  # between the ends: their dates are compared one by one
END_ERROR_SECONDS_MAX = 0.1
MEMORY_SECONDS_MAX = 15.0
MESSAGE_BYTES_MAX = 10_000

Ending = Callable[[Client], Awaitable[None]]


async def close_frame(client: Client) -> None:
    await client.ws.aclose()


async def reset(client: Client) -> None:
    client.reset()


async def bad_frame(client: Client) -> None:
    await client.stream.send_all(b"\xff\xff\xff\xff")


async def oversize(client: Client) -> None:
    await client.send("x" * (MESSAGE_BYTES_MAX + 1))


async def nothing(client: Client) -> None:
    """What comes before an ending in the middle of whatever goes on."""


async def cancelled(client: Client) -> None:
    await client.send({"type": "response.cancel"})
    assert (await client.until("response.done"))["response"]["status"] == "cancelled"


async def failed(client: Client) -> None:
    assert (await client.until("response.done"))["response"]["status"] == "failed"


# what comes before the ending, the ending, the agent, whether it answers meanwhile, and the reason in the row
ENDINGS = [
    (nothing, close_frame, "echo", False, "client_closed"),
    (nothing, reset, "echo", False, "client_lost"),
    (nothing, bad_frame, "echo", False, "protocol_error"),
    (nothing, oversize, "echo", False, "message_too_big"),
    (nothing, reset, "tests.support.scripted_agents:Slow", True, "client_lost"),
    (nothing, close_frame, "tests.support.scripted_agents:Slow", True, "client_closed"),
    (cancelled, close_frame, "tests.support.scripted_agents:Slow", True, "client_closed"),
    (failed, close_frame, "tests.support.scripted_agents:Crashing", True, "client_closed"),
]


class Ledger:
    """When each session really ended, by the client that ended it, and when that client had seen the end."""

    def __init__(self, crowd: int) -> None:
        self.crowd = crowd
        self.ended: dict[str, float] = {}
        self.seen: dict[str, float] = {}
        self.everyone_speaks = trio.Event()
        self.speaking = 0

    async def run_clients(self, url: str, prelude: Ending, ending: Ending, *, responding: bool) -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as clients:
                for number in range(self.crowd):
                    clients.start_soon(self._run_client, url, number, prelude, ending, responding)

    async def _run_client(self, url: str, number: int, prelude: Ending, ending: Ending, responding: bool) -> None:
        async with connect(url, user=f"user-{number}") as client:
            await client.say(f"My name is Ada {number}.")
            if responding:
                await client.send({"type": "response.create"})
                await client.until("response.output_text.delta")
            self.speaking += 1
            if self.speaking == self.crowd:
                self.everyone_speaks.set()
            await self.everyone_speaks.wait()
            await trio.sleep(number * STAGGER_SECONDS)
            await prelude(client)
            self.ended[client.session_id] = time.time()
            try:
                await ending(client)
                await client.closed()
            except (ConnectionClosed, trio.ClosedResourceError):
                pass
            self.seen[client.session_id] = time.time()


SESSIONS = """
    SELECT session_id, is_active, end_reason, memory_status, duration_seconds,
           extract(epoch FROM session_end)::float8 AS ended, extract(epoch FROM session_start)::float8 AS started,
           (SELECT count(*) FROM messages m WHERE m.session_id = s.session_id AND status = 'incomplete') AS cut_off
      FROM conversation_sessions s"""


async def settled(store: PostgresStore) -> list[Any]:
    """The rows, once every session is ended and remembered."""
    return await eventually(
        lambda: store.select(SESSIONS),
        lambda rows: rows and all(not row["is_active"] and row["memory_status"] == "done" for row in rows),
        within=MEMORY_SECONDS_MAX,
    )


async def memories(store: PostgresStore) -> int:
    return int((await store.select("SELECT count(*) FROM user_memories"))[0][0])


@pytest.mark.parametrize(("prelude", "ending", "agent", "responding", "reason"), ENDINGS)
async def test_connections_leave_closed_rows_and_finalized_memory(
    prelude: Ending,
    ending: Ending,
    agent: str,
    responding: bool,
    reason: str,
    crowd: int,
    database_url: str,
    postgres_store: PostgresStore,
) -> None:
    """However connections end, their rows have the right reason and dates."""
    ledger = Ledger(crowd)
    flags = ("--database-url", database_url, "--agent", agent, "--message-bytes-max", str(MESSAGE_BYTES_MAX))
    with run_server(*flags) as server:
        await ledger.run_clients(server.url, prelude, ending, responding=responding)
        found = await settled(postgres_store)
    assert len(found) == crowd
    assert {row["end_reason"] for row in found} == {reason}
    for row in found:
        assert abs(row["ended"] - ledger.ended[row["session_id"].hex]) <= END_ERROR_SECONDS_MAX
        assert row["duration_seconds"] == pytest.approx(row["ended"] - row["started"], abs=1e-5)
        assert row["cut_off"] == (1 if responding else 0)
    assert await memories(postgres_store) == crowd


class FragileStore:
    """The real store, but for one word that crashes whoever wants to store it."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append_items(self, items: Sequence[StoredItem], *, within: float) -> None:
        if items[0].content == "crash":
            raise RuntimeError("the handler is broken")
        await self._store.append_items(items, within=within)


async def handler_crash(client: Client) -> None:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "crash"}]}
    await client.send({"type": "conversation.item.create", "item": item})
    assert await client.closed() == 1011


async def test_crashed_handlers_leave_closed_rows_and_finalized_memory(
    crowd: int,
    postgres_store: PostgresStore,
) -> None:
    """The rows are dated when their handlers crashed."""
    ledger = Ledger(crowd)
    async with open_server(cast("Store", FragileStore(postgres_store))) as server:
        await ledger.run_clients(server.url, nothing, handler_crash, responding=False)
        found = await settled(postgres_store)
    assert len(found) == crowd
    assert {row["end_reason"] for row in found} == {"server_error"}
    for row in found:  # it ended when its handler crashed: after the client spoke, and before it saw the close
        session = row["session_id"].hex
        earliest, latest = ledger.ended[session] - END_ERROR_SECONDS_MAX, ledger.seen[session] + END_ERROR_SECONDS_MAX
        assert earliest <= row["ended"] <= latest
    assert await memories(postgres_store) == crowd
