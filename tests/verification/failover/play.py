"""Clients that chat, a primary that breaks under them, and what is left of what they were told was stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import msgspec
import trio
from trio_websocket import ConnectionClosed

from tests.support.clients import Client, connect, user_item
from tests.support.databases import psql
from tests.support.processes import ServerProcess, run_server
from tests.support.replication import Fault, Pair

CLIENTS = 20
TURNS_BEFORE = 3  # of each client, before the primary breaks
TURNS_AFTER = 3
RUN_SECONDS = 90.0
PAUSE_SECONDS = 0.05  # between two turns, and before a try again
BROKEN = (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, OSError)


class Outcome(msgspec.Struct):
    """What came of a failover.

    back_seconds: from the fault until each client had had a whole turn again. acknowledged: items of which clients were
        told that they are stored. lost: how many of these the new primary does not have. disconnects: connections that
        broke or were refused. active_rows: left once the server had ended.
    """

    fault: Fault
    synchronous: bool
    back_seconds: float
    acknowledged: int
    lost: int
    disconnects: int
    active_rows: int
    exit_code: int


@dataclass
class Ledger:
    """What the clients saw. turns: how many each of them has completed since the last `clear`."""

    acknowledged: set[str] = field(default_factory=set)
    turns: dict[int, int] = field(default_factory=dict)
    disconnects: int = 0
    changed: trio.Event = field(default_factory=trio.Event)

    def completed(self, number: int) -> None:
        self.turns[number] = self.turns.get(number, 0) + 1
        self.changed.set()

    async def until(self, turns: int) -> None:
        """Waits until each client has completed so many."""
        while len(self.turns) < CLIENTS or min(self.turns.values()) < turns:
            self.changed = trio.Event()
            await self.changed.wait()


class Talker:
    """A user who chats, and comes back to the same conversation whenever the connection is lost."""

    def __init__(self, url: str, number: int, ledger: Ledger) -> None:
        self._url = url
        self._number = number
        self._ledger = ledger
        self._query = {"user": f"user-{number}"}

    async def run(self) -> None:
        while True:
            try:
                async with connect(self._url, **self._query) as client:
                    self._query["conversation"] = client.conversation_id
                    while True:
                        await self._turn(client)
                        await trio.sleep(PAUSE_SECONDS)
            except* BROKEN:
                self._ledger.disconnects += 1
            await trio.sleep(PAUSE_SECONDS)

    async def _turn(self, client: Client) -> None:
        item_id = f"item_{uuid4().hex[:12]}"
        while not await self._stored(client, item_id):  # noqa: ASYNC110 - a server has no event to wait for
            await trio.sleep(PAUSE_SECONDS)
        self._ledger.acknowledged.add(item_id)
        await client.send({"type": "response.create"})
        response = (await client.until("response.done"))["response"]
        if response["status"] == "completed":
            self._ledger.acknowledged.update(item["id"] for item in response["output"])
            self._ledger.completed(self._number)

    async def _stored(self, client: Client, item_id: str) -> bool:
        """Whether the item is stored; where it could not be, it is sent again, with the same id."""
        await client.send(user_item(f"Words of {item_id}", item_id))
        while (event := await client.receive())["type"] != "error":
            if event["type"] == "conversation.item.done" and event["item"]["id"] == item_id:
                return True
        return bool(event["error"]["code"] == "item_create_duplicate_item_id")


def play(fault: Fault, *, synchronous: bool, tell: Callable[[str], None] = lambda _: None) -> Outcome:
    """One failover, on two clusters of its own. Raises `AssertionError` where turns do not work again."""
    with TemporaryDirectory(prefix="lastcall-pair-") as folder:
        Path(folder).chmod(0o711)  # PostgreSQL's user has to get in
        tell("starting a primary and its standby")
        pair = Pair(Path(folder), synchronous=synchronous)
        try:
            with run_server("--database-url", pair.url, "--agent", "echo") as server:
                return trio.run(_play, pair, server, fault, synchronous, tell)
        finally:
            pair.remove()


async def _play(
    pair: Pair, server: ServerProcess, fault: Fault, synchronous: bool, tell: Callable[[str], None]
) -> Outcome:
    ledger, back_seconds = Ledger(), float("inf")
    with trio.move_on_after(RUN_SECONDS):
        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(Talker(server.url, number, ledger).run)
            await ledger.until(TURNS_BEFORE)
            tell(f"{fault} of the primary under {CLIENTS} clients")
            began = trio.current_time()
            await trio.to_thread.run_sync(pair.break_primary, fault)
            await trio.to_thread.run_sync(pair.promote)
            ledger.turns.clear()  # those that were on their way count, which the new primary has to have taken
            await ledger.until(1)
            back_seconds = trio.current_time() - began
            await ledger.until(TURNS_AFTER)
            nursery.cancel_scope.cancel()
    exit_code = await trio.to_thread.run_sync(server.stop)
    stored = set(psql(pair.standby.url, "SELECT item_id FROM messages").splitlines())
    active = psql(pair.standby.url, "SELECT count(*) FROM conversation_sessions WHERE is_active")
    return Outcome(
        fault,
        synchronous,
        back_seconds,
        len(ledger.acknowledged),
        len(ledger.acknowledged - stored),
        ledger.disconnects,
        int(active),
        exit_code,
    )
