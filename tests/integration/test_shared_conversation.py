"""One conversation in two sessions, on two servers of one database: both are in step within a moment."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from random import Random
from typing import Any

import pytest
import trio
from lastcall.agents.agent import Turn
from lastcall.store.postgres import PostgresStore
from trio_websocket import ConnectionClosed

from ..support.clients import Client, Event, connect, user_item
from ..support.scripted_agents import ScriptedAgent
from ..support.servers import open_server

frames = pytest.importorskip("tests.system.official.frames", reason="the official client's types are not installed")

IN_STEP_SECONDS = 1.0  # what is promised, once the machine has time for it
LEASES = "FROM pg_stat_activity WHERE application_name = 'lastcall guard'"


class Listening(ScriptedAgent):
    """Says which messages it was shown; waits before it does, where a test says so."""

    def __init__(self) -> None:
        self.free = trio.Event()
        self.free.set()

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        yield " ".join(message.text for message in turn.messages)
        await self.free.wait()


class Tab(Client):
    """A client that reads all the time, and keeps what it would show, as the events tell it."""

    def __init__(self, client: Client) -> None:
        super().__init__(client.ws, client.stream)
        self.created = client.created
        self.order: list[str] = []  # ids of items
        self.items: dict[str, Event] = {}
        self.acknowledged: list[str] = []
        self._changed = trio.Event()

    async def read(self) -> None:
        with suppress(ConnectionClosed, trio.ClosedResourceError):
            await self._read()

    async def _read(self) -> None:
        while True:
            event: Event = json.loads(await self.ws.get_message())
            frames.check(event)
            self.events.append(event)
            self._take(event)
            changed, self._changed = self._changed, trio.Event()
            changed.set()

    async def receive(self) -> Event:
        raise NotImplementedError("its own task reads")

    def _take(self, event: Event) -> None:
        if event["type"] == "conversation.item.added":
            item_id, previous = event["item"]["id"], event["previous_item_id"]
            assert item_id not in self.order, f"{item_id} came twice: {self.events[-20:]}"
            self.order.insert(self.order.index(previous) + 1 if previous else 0, item_id)
        elif event["type"] == "conversation.item.done":
            self.items[event["item"]["id"]] = event["item"]
            self.acknowledged.append(event["item"]["id"])
        elif event["type"] == "conversation.item.deleted":
            assert event["item_id"] in self.order, f"{event['item_id']} went twice"
            self.order.remove(event["item_id"])

    @property
    def shown(self) -> list[str]:
        """The texts of what is acknowledged, in order."""
        said = [self.items[each]["content"] for each in self.order if each in self.items]
        return ["".join(part["text"] for part in content) for content in said]

    async def shows(self, *expected: str) -> None:
        """Waits, within a bound, until it shows this."""
        await self.until_true(lambda: self.shown == list(expected), lambda: f"{self.shown} are not {list(expected)}")

    async def until_true(self, condition: Callable[[], bool], or_else: Callable[[], str] = str) -> None:
        with trio.move_on_after(10 * IN_STEP_SECONDS):
            while not condition():
                await self._changed.wait()
        assert condition(), or_else()

    async def speak(self) -> None:
        """The first event of a client, at which items are replayed."""
        await self.send({"type": "session.update", "session": {"type": "realtime"}})

    async def create(self, text: str, item_id: str, after: str | None = None) -> None:
        event = user_item(text, item_id)
        await self.send(event if after is None else {**event, "previous_item_id": after})

    async def delete(self, item_id: str) -> None:
        await self.send({"type": "conversation.item.delete", "item_id": item_id})


class Tabs:
    """Two servers, and tabs of one conversation."""

    def __init__(self, urls: list[str], stack: AsyncExitStack, tasks: trio.Nursery, agent: Listening) -> None:
        self.urls, self.agent = urls, agent
        self._stack, self.tasks = stack, tasks

    async def open(self, server: int, conversation: str | None = None, *, speaks: bool = True) -> Tab:
        asked = {"user": "ada", **({"conversation": conversation} if conversation else {})}
        tab = Tab(await self._stack.enter_async_context(connect(self.urls[server], **asked)))
        self.tasks.start_soon(tab.read)
        if speaks:
            await tab.speak()
        return tab

    async def two(self) -> tuple[Tab, Tab]:
        """Two tabs on two servers, in step."""
        one = await self.open(0)
        await one.create("before", "item_before")
        await one.shows("before")
        other = await self.open(1, one.conversation_id)
        await other.shows("before")
        return one, other


@asynccontextmanager
async def opened(store: PostgresStore, **changes: Any) -> AsyncIterator[Tabs]:
    agent = Listening()
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(open_server(store, agent, **changes)) for _ in range(2)]
        tasks = await stack.enter_async_context(trio.open_nursery())
        async with AsyncExitStack() as clients:
            yield Tabs([server.url for server in servers], clients, tasks, agent)
            tasks.cancel_scope.cancel()


async def test_each_hears_what_the_other_says_deletes_and_edits(postgres_store: PostgresStore) -> None:
    async with opened(postgres_store) as tabs:
        one, other = await tabs.two()
        await one.create("from one", "item_1")
        await other.shows("before", "from one")
        await other.create("from the other", "item_2")
        await one.shows("before", "from one", "from the other")
        await one.delete("item_2")
        await other.shows("before", "from one")
        await other.delete("item_1")
        await other.create("edited", "item_1", after="item_before")
        await one.shows("before", "edited")
        await one.create("between", "item_3", after="item_before")
        await other.shows("before", "between", "edited")
        await one.create("first", "item_4", after="root")
        await other.shows("first", "before", "between", "edited")
        await one.shows(*other.shown)


async def test_the_agent_of_each_is_told_what_was_said_to_the_other(postgres_store: PostgresStore) -> None:
    async with opened(postgres_store) as tabs:
        one, other = await tabs.two()
        await one.create("one", "item_1")
        await other.shows("before", "one")
        await other.send({"type": "response.create"})
        await other.shows("before", "one", "before one")
        await one.shows("before", "one", "before one")
        assert [item["role"] for item in one.items.values()] == ["user", "user", "assistant"]
        await one.delete("item_1")
        await other.shows("before", "before one")
        await other.send({"type": "response.create"})
        await one.shows("before", "before one", "before before one")


async def test_an_answer_that_is_cut_off_comes_as_it_was_kept(postgres_store: PostgresStore) -> None:
    async with opened(postgres_store) as tabs:
        one, other = await tabs.two()
        tabs.agent.free = trio.Event()
        await one.send({"type": "response.create"})
        await one.until_true(lambda: any(event["type"] == "response.output_text.delta" for event in one.events))
        await other.create("meanwhile", "item_1")
        await one.until_true(lambda: "item_1" in one.items)
        await one.send({"type": "response.cancel"})
        await other.until_true(lambda: len(other.items) == 3)
        (answer,) = (item for item in other.items.values() if item["role"] == "assistant")
        assert answer["status"] == "incomplete"
        assert answer["content"][0]["text"] == "before"
        for tab in (one, other):
            await tab.shows("before", "before", "meanwhile")


async def test_what_a_session_leaves_unfinished_at_its_end_is_heard_by_the_other(postgres_store: PostgresStore) -> None:
    async with opened(postgres_store) as tabs:
        one, other = await tabs.two()
        tabs.agent.free = trio.Event()
        await one.send({"type": "response.create"})
        await one.until_true(lambda: any(event["type"] == "response.output_text.delta" for event in one.events))
        one.reset()
        await other.shows("before", "before")


async def test_nothing_is_lost_while_notifications_are(postgres_store: PostgresStore) -> None:
    """Also where it was the first one that a session would have heard, so that its server did not know of the other."""
    async with opened(postgres_store) as tabs:
        one, other = await tabs.two()
        await postgres_store.select(f"SELECT pg_terminate_backend(pid) {LEASES}")
        for number in range(3):
            await one.create(f"one {number}", f"item_1{number}")
            await other.create(f"other {number}", f"item_2{number}")
        await other.delete("item_before")
        everything = {f"{who} {number}" for who in ("one", "other") for number in range(3)}
        for tab in (one, other):
            await tab.until_true(lambda: set(tab.shown) == everything, lambda: str(tab.shown))  # noqa: B023
        assert one.shown == other.shown


async def test_a_third_that_comes_while_two_talk_misses_nothing(postgres_store: PostgresStore) -> None:
    async with opened(postgres_store) as tabs:
        one, other = await tabs.two()
        said = {name: [f"{name} {number}" for number in range(20)] for name in ("one", "other")}

        async def talk(tab: Tab, name: str) -> None:
            for text in said[name]:
                await tab.create(text, f"item_{text}")
                await tab.until_true(lambda: f"item_{text}" in tab.acknowledged)  # noqa: B023

        tabs.tasks.start_soon(talk, one, "one")
        tabs.tasks.start_soon(talk, other, "other")
        await one.until_true(lambda: len(one.items) > len(said["one"]) // 2)
        third = await tabs.open(0, one.conversation_id)
        everything = {"before", *said["one"], *said["other"]}
        for tab in (one, other, third):
            await tab.until_true(lambda: set(tab.shown) == everything, lambda: str(everything - set(tab.shown)))  # noqa: B023
        assert one.shown == other.shown == third.shown


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_two_do_at_once_both_show_what_the_database_has(
    postgres_store: PostgresStore, seed: int
) -> None:
    async with opened(postgres_store) as tabs:
        random = Random(seed)
        both = await tabs.two()

        async def act(tab: Tab, name: str) -> None:
            for number in range(15):
                known = [each for each in tab.order if each in tab.items]
                if random.random() < 0.3 and known:
                    await tab.send({"type": "conversation.item.delete", "item_id": random.choice(known)})
                else:
                    after = random.choice([*known, None, "root"])
                    await tab.create(f"{name} {number}", f"item_{random.choice(['same', name])}_{number}", after=after)
                await trio.sleep(random.random() / 100)  # so that the orders differ

        for tab in both:
            tab._take = _lenient(tab)  # type: ignore[method-assign, assignment]
        async with trio.open_nursery() as nursery:
            for tab, name in zip(both, ("one", "two"), strict=True):
                nursery.start_soon(act, tab, name)
        query = "SELECT content FROM messages WHERE deleted_at IS NULL ORDER BY position, message_id"
        last: list[str] = []
        with trio.move_on_after(10 * IN_STEP_SECONDS):
            while not (last and all(tab.shown == last for tab in both)):
                await trio.sleep(0.05)
                last = [row["content"] for row in await postgres_store.select(query)]
        assert both[0].shown == last
        assert both[1].shown == last


def _lenient(tab: Tab) -> Callable[[Event], None]:
    """Both may delete one item at once: each is answered, and may hear of the other's deletion beside."""
    take = tab._take

    def _take(event: Event) -> None:
        if event["type"] != "conversation.item.deleted" or event["item_id"] in tab.order:
            take(event)

    return _take


async def test_nothing_is_told_before_a_client_speaks_and_then_all_of_it(postgres_store: PostgresStore) -> None:
    async with opened(postgres_store) as tabs:
        one, other = await tabs.two()
        silent = await tabs.open(1, one.conversation_id, speaks=False)
        await one.create("meanwhile", "item_1")
        await one.delete("item_before")
        await other.shows("meanwhile")  # and so its server has heard of it
        assert {event["type"] for event in silent.events} <= {"conversation.created"}
        await silent.speak()
        await silent.shows("meanwhile")


async def test_a_session_that_is_full_is_told_so_and_the_other_goes_on(postgres_store: PostgresStore) -> None:
    async with opened(postgres_store, items_max=3) as tabs:
        one, other = await tabs.two()
        for number in range(2):
            await one.create(str(number), f"item_{number}")
            await other.create(f"other {number}", f"item_other_{number}")
        await one.until_true(lambda: any(event["type"] == "error" for event in one.events))
        codes = {event["error"]["code"] for event in one.events if event["type"] == "error"}
        assert codes == {"conversation_full"}
