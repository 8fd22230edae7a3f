"""The budget of memory: who is refused, who is ended, and that freed memory is free, though the process keeps it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
import trio
from lastcall.conversation.timeline import Timeline
from lastcall.limits import memory
from lastcall.limits.memory import (
    CHECK_SECONDS,
    MIB,
    ROOM_SHARE,
    SHARE_BYTES_MIN,
    MemoryAccount,
    MemoryBudget,
    json_bytes,
)
from lastcall.protocol.items import InputText, MessageItem
from lastcall.protocol.json_bounds import JsonBounds
from lastcall.protocol.parsing import parse_event
from trio.testing import MockClock

BASE, LIMIT = 50, 150  # MiB


class Process:
    """A process that holds what is counted, and keeps what is freed, and so much more."""

    def __init__(self) -> None:
        self.freed = self.more = 0
        self.most = 0
        self.budget: MemoryBudget | None = None

    def resident(self) -> int:
        if self.budget is None:
            return BASE * MIB
        self.most = max(self.most, self.budget.held)
        return BASE * MIB + (self.most if self.freed else self.budget.held) + self.more * MIB


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    monkeypatch.setattr(memory, "release_free_memory", lambda: None)
    return Process()


@pytest.fixture
def budget(process: Process, autojump_clock: MockClock) -> MemoryBudget:
    process.budget = MemoryBudget(LIMIT, process.resident)
    return process.budget


class Holders:
    """Accounts by name, and who was ended."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.accounts: dict[str, MemoryAccount] = {}
        self.ended: list[str] = []

    def open(self, name: str, mib: float = 0) -> MemoryAccount:
        def end() -> None:
            self.ended.append(name)

        account = self.accounts[name] = self._budget.account(end)
        account.add(int(mib * MIB))
        return account


async def test_where_memory_is_short_only_large_ones_are_refused_more(
    budget: MemoryBudget, autojump_clock: MockClock
) -> None:
    holders = Holders(budget)
    small, large = holders.open("small", 0.01), holders.open("large", 70)
    assert not large.refuses(MIB)
    large.add(8 * MIB)
    assert large.refuses(1)
    assert not small.refuses(10_000)
    assert small.refuses(2 * MIB)
    assert holders.ended == []


async def test_beyond_the_limit_the_largest_are_ended_until_there_is_room(
    budget: MemoryBudget, autojump_clock: MockClock
) -> None:
    holders = Holders(budget)
    for name, mib in (("a", 20), ("b", 30), ("c", 10), ("d", 0.01)):
        holders.open(name, mib)
    assert holders.ended == []
    holders.accounts["c"].add(41 * MIB)
    assert holders.ended == ["c"]
    assert budget.held == sum(holders.accounts[name].held for name in "abd")
    holders.accounts["a"].add(60 * MIB)
    assert holders.ended == ["c", "a"]
    assert not budget.exceeded()


async def test_endings_make_more_room_than_the_next_bytes_take(budget: MemoryBudget, autojump_clock: MockClock) -> None:
    """Else each further message would end one more session."""
    holders = Holders(budget)
    for number in range(33):
        holders.open(str(number), 3)
    holders.open("last", 2)
    assert len(holders.ended) == 3
    assert budget.used <= ROOM_SHARE * LIMIT * MIB
    small = holders.open("small", 3)
    small.add(4 * MIB)
    assert len(holders.ended) == 3


async def test_small_ones_are_not_ended_whatever_the_process_holds(
    budget: MemoryBudget, process: Process, autojump_clock: MockClock
) -> None:
    holders = Holders(budget)
    for number in range(100):
        holders.open(str(number), SHARE_BYTES_MIN / MIB)
    process.more = 1_000
    await trio.sleep(CHECK_SECONDS)
    assert budget.exceeded()
    assert holders.ended == []


async def test_freed_memory_that_the_process_keeps_ends_nobody_else(
    budget: MemoryBudget, process: Process, autojump_clock: MockClock
) -> None:
    process.freed = True
    holders = Holders(budget)
    for number in range(9):
        holders.open(str(number), 10)
    holders.open("last", 20)
    assert holders.ended == ["last"]
    for number in range(6):
        holders.accounts[str(number)].close()
    for _ in range(10):
        await trio.sleep(CHECK_SECONDS)
        assert not budget.exceeded(), "new ones are let in"
    assert process.resident() > (LIMIT - 20) * MIB
    holders.open("new", 40)
    assert holders.ended == ["last"]


async def test_memory_that_others_took_is_not_taken_for_freed(
    budget: MemoryBudget, process: Process, autojump_clock: MockClock
) -> None:
    holders = Holders(budget)
    holders.open("gone", 60).close()
    await trio.sleep(CHECK_SECONDS)
    assert not budget.exceeded()
    process.more = 120
    await trio.sleep(CHECK_SECONDS)
    assert budget.exceeded()


async def test_growth_is_noticed_without_waiting_for_the_time_of_a_look(
    budget: MemoryBudget, process: Process, autojump_clock: MockClock
) -> None:
    holders = Holders(budget)
    account = holders.open("a")
    assert not account.refuses(1)
    for _ in range(20):
        account.add(5 * MIB)
    assert not holders.ended
    account.add(5 * MIB)
    assert holders.ended == ["a"]


async def test_what_is_counted_after_the_end_counts_for_nobody(budget: MemoryBudget, autojump_clock: MockClock) -> None:
    holders = Holders(budget)
    account = holders.open("a", 5)
    account.close()
    account.close()
    account.add(MIB)
    assert budget.held == 0
    assert not account.refuses(LIMIT * MIB)


async def test_a_request_cannot_be_ended_and_so_its_turn_never_comes(
    budget: MemoryBudget, autojump_clock: MockClock
) -> None:
    holders = Holders(budget)
    holders.open("a", 5)
    budget.account().add(96 * MIB)
    assert holders.ended == ["a"]
    assert not budget.account().fits(5 * MIB)
    assert budget.account().fits(3 * MIB)


async def test_without_a_limit_that_is_known_nobody_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "memory_bytes", lambda: None)
    endless = MemoryBudget(None, lambda: None)
    account = endless.account()
    account.add(10**15)
    assert not endless.exceeded()
    assert not account.refuses(1)


# --- the estimates


def taken(make: Callable[[], object]) -> tuple[int, object]:
    """The bytes that an object takes."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        made = make()
        return tracemalloc.get_traced_memory()[0] - before, made
    finally:
        tracemalloc.stop()


def message(text: str, parts: int, n: int) -> MessageItem:
    """A message of so many parts, each with a text of its own."""
    content = [InputText(copy(text)) for _ in range(parts)]
    return MessageItem(id=f"item_{n:032}", status="completed", role="user", content=list(content))


def copy(text: str) -> str:
    made = (text + "x")[:-1]
    made.encode()
    return made


@pytest.mark.parametrize("parts", [1, 2, 200])
@pytest.mark.parametrize("text", ["", "x" * 50, "é" * 1_000, "\U0001f4a5" * 1_000])
def test_a_timeline_counts_about_what_its_items_take(text: str, parts: int) -> None:
    held: list[int] = []
    items = Timeline(held=held.append)
    count = 1_000 // parts

    def fill() -> None:
        for n in range(count):
            items.add(items.place(message(text, parts, n)))

    size, _ = taken(fill)
    assert 0.5 * size < sum(held) < 2.5 * size
    for n in range(count):
        entry = items.get(f"item_{n:032}")
        assert entry is not None
        items.remove(entry)
    assert sum(held) == 0


@pytest.mark.parametrize(
    "value", ["{},", "[],", '"a":1,', '"":"",', "0,", '{"a":{"b":[1,2,3]}},', '{"type":"function","name":"x"},']
)
def test_events_of_many_values_count_what_they_take_when_parsed(value: str) -> None:
    values = (value * (15_000 // value.count(","))).rstrip(",")
    tools = f"{{{values}}}" if value.startswith('"') else f'{{"list":[{values}]}}'
    text = f'{{"type":"session.update","session":{{"type":"realtime","tools":[{tools}]}}}}'
    size, _ = taken(lambda: parse_event(text, JsonBounds(10**9, 10**9)))
    assert size < 1.5 * json_bytes(text)
