"""A session that has ended is freed by reference counting alone: nothing waits for a garbage collection."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from lastcall.sessions.session import Session
from lastcall.store.records import EndReason

from tests.support.clients import connect
from tests.support.servers import TestServer
from tests.support.waiting import eventually

WITHIN = 5.0


@contextmanager
def no_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def sessions_in_memory() -> list[EndReason | None]:
    return [each.reason for each in gc.get_objects() if type(each) is Session]


@pytest.mark.parametrize("lost", [False, True])
async def test_an_ended_session_is_freed_without_a_garbage_collection(server: TestServer, lost: bool) -> None:
    with no_collections():
        async with connect(server.url) as client:
            await client.ask("hello")
            assert await sessions_in_memory() == [None]
            if lost:
                client.reset()
        await eventually(sessions_in_memory, lambda found: not found, within=WITHIN)
        await trio.lowlevel.checkpoint()


async def test_a_commit_leaves_no_cycles(server: TestServer) -> None:
    """Each of tenacity's retry states is part of one; there may be some of other tests in this process."""
    async with connect(server.url) as client:
        await client.ask("hello")
        with no_collections():
            before = retry_states_in_memory()
            await client.ask("hello again")
            assert retry_states_in_memory() <= before


def retry_states_in_memory() -> int:
    return sum(type(each).__name__ == "IterState" for each in gc.get_objects())
