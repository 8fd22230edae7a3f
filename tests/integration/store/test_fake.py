"""The fake keeps to what the real store does, where no test can hold both to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from lastcall.store.errors import StoreUnavailable
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.fake_store import ANSWER_SECONDS, FakeStore
from tests.support.instances import instance

from .world import MemoryWorld, end, item


def _failing(times: int) -> Callable[[str], None]:
    """A fault of the fake's: `StoreUnavailable` so many times."""
    left = [times]

    def fail(_: str) -> None:
        if left[0]:
            left[0] -= 1
            raise StoreUnavailable("down")

    return fail


async def _fake_world() -> MemoryWorld:
    world = MemoryWorld(FakeStore())
    await world.store.register_instance(instance(world.instance_id))
    return world


@pytest.mark.parametrize("fault", ["fail_before", "fail_after"])
async def test_the_fake_tries_a_write_again_and_it_lands_once(autojump_clock: MockClock, fault: str) -> None:
    world = await _fake_world()
    start = await world.begin()
    stored = item(start)
    setattr(world.store, fault, _failing(3))
    await world.append(stored)
    assert world.store.items(start.conversation_id) == [stored]
    setattr(world.store, fault, _failing(1))
    with pytest.raises(StoreUnavailable):
        await world.store.keys_exist()


async def test_the_fake_drops_a_write_that_nobody_waits_for_any_more(autojump_clock: MockClock) -> None:
    world = await _fake_world()
    start = await world.begin()
    world.store.fail_before = _failing(10**6)
    began = trio.current_time()
    with pytest.raises(StoreUnavailable):
        await world.store.append_items([item(start)], within=3.0)
    assert trio.current_time() - began == 3.0
    world.store.fail_before = _failing(0)
    assert await world.store.end_session(end(start)) is True
    assert world.store.items(start.conversation_id) == []


async def test_the_fake_commits_in_order_although_one_write_takes_long(autojump_clock: MockClock) -> None:
    world = await _fake_world()
    start = await world.begin()
    stored = item(start)
    world.store.delay = lambda name: 2.0 if name == "append_items" else 0.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.append, stored)
        await wait_all_tasks_blocked()
        assert await world.store.end_session(end(start)) is True
    assert world.store.items(start.conversation_id) == [stored]


async def test_the_fake_does_not_answer_later_than_the_real_store_would(autojump_clock: MockClock) -> None:
    world = await _fake_world()
    world.store.delay = lambda _: 3600.0
    began = trio.current_time()
    with pytest.raises(StoreUnavailable):
        await world.store.recall("ada", 1)
    assert trio.current_time() - began == ANSWER_SECONDS
