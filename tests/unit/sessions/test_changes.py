"""Who catches up with what others have changed, and when."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast
from uuid import UUID, uuid4

import trio
from lastcall.sessions import changes
from lastcall.sessions.changes import MISSED_ITEMS_MAX, Changes, Missed
from lastcall.sessions.session import Session
from lastcall.store.errors import StoreUnavailable
from lastcall.store.store import Store
from trio.testing import MockClock, wait_all_tasks_blocked


class Marked:
    """A store in which some sessions are marked as shared. alone: the others are not. failures: before it answers."""

    def __init__(self) -> None:
        self.shared: list[UUID] = []
        self.alone = False
        self.joined: list[UUID] = []
        self.failures = 0

    async def share_conversation(self, session_id: UUID) -> bool:
        await trio.lowlevel.checkpoint()
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("locked")
        self.joined.append(session_id)
        return not self.alone

    async def shared_among(self, session_ids: Sequence[UUID]) -> Sequence[UUID]:
        await trio.lowlevel.checkpoint()
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("away")
        return [key for key in session_ids if key in self.shared]


class Follower:
    """Records what it is asked to catch up with. busy: until it is set, that takes time."""

    def __init__(self) -> None:
        self.missed: list[Missed] = []
        self.failures = 0
        self.free = trio.Event()
        self.free.set()

    async def catch_up(self, missed: Missed, _readers: trio.CapacityLimiter) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("away")
        self.missed.append(missed)
        await self.free.wait()


class World:
    def __init__(self) -> None:
        self.store, self.session, self.follower = Marked(), Session("ada", uuid4()), Follower()
        self.changes = Changes(cast("Store", self.store))

    def follow(self, *, resumes: bool = False) -> None:
        self.changes.follow(self.session, self.follower.catch_up, resumes=resumes)


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.changes.run)
        yield world
        nursery.cancel_scope.cancel()


async def test_who_resumes_looks_for_everything_and_who_does_not_for_nothing() -> None:
    for resumes, expected in ((True, [None]), (False, [])):
        async with running() as world:
            world.follow(resumes=resumes)
            await wait_all_tasks_blocked()
            assert world.follower.missed == expected


async def test_who_resumes_joins_once_also_where_that_does_not_work_at_once(autojump_clock: MockClock) -> None:
    async with running() as world:
        world.store.failures = 2
        world.follow(resumes=True)
        await trio.sleep(2 * changes.RETRY_SECONDS + 0.01)
        assert world.follower.missed == [None]
        world.changes.changed(world.session.session_id, None)
        await wait_all_tasks_blocked()
        assert world.follower.missed == [None, None]
        assert world.store.joined == [world.session.session_id]


async def test_who_is_alone_looks_for_nothing() -> None:
    async with running() as world:
        world.store.alone = True
        world.follow(resumes=True)
        await wait_all_tasks_blocked()
        assert world.follower.missed == []


async def test_what_comes_while_a_session_catches_up_is_taken_up_together() -> None:
    async with running() as world:
        world.follow()
        world.follower.free = trio.Event()
        first, second, third = uuid4(), uuid4(), uuid4()
        for each in (first, second, third, second):
            world.changes.changed(world.session.session_id, [each])
            await wait_all_tasks_blocked()
        world.follower.free.set()
        await wait_all_tasks_blocked()
        assert world.follower.missed == [{first}, {second, third}]


async def test_more_than_is_kept_is_looked_for_as_a_whole() -> None:
    async with running() as world:
        world.follow()
        for _ in range(MISSED_ITEMS_MAX + 1):
            world.changes.changed(world.session.session_id, [uuid4()])
        await wait_all_tasks_blocked()
        assert world.follower.missed == [None]


async def test_what_could_not_be_read_is_tried_again(autojump_clock: MockClock) -> None:
    async with running() as world:
        world.follower.failures = 2
        world.follow()
        missed = uuid4()
        world.changes.changed(world.session.session_id, [missed])
        await trio.sleep(2 * changes.RETRY_SECONDS + 0.01)
        assert world.follower.missed == [{missed}]


async def test_after_a_time_without_notifications_all_that_are_not_alone_look_for_everything(
    autojump_clock: MockClock,
) -> None:
    async with running() as world:
        alone, other = Session("ada", uuid4()), Follower()
        world.changes.follow(alone, other.catch_up, resumes=False)
        world.follow()
        world.store.shared, world.store.failures = [world.session.session_id], 2
        world.changes.heard_nothing()
        await trio.sleep(2 * changes.RETRY_SECONDS + 0.01)
        assert (world.follower.missed, other.missed) == ([None], [])


async def test_who_has_left_is_not_asked_any_more() -> None:
    async with running() as world:
        world.follow(resumes=True)
        world.changes.leave(world.session)
        world.changes.changed(world.session.session_id, [uuid4()])
        world.changes.heard_nothing()
        await wait_all_tasks_blocked()
        assert world.follower.missed == []
        world.changes.leave(world.session)
