"""What a session leaves behind when it is over: nothing that would have to wait for the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from lastcall.runtime import start_up
from lastcall.sessions.session import Session
from lastcall.store.records import EndReason

from tests.support.clients import connect
from tests.support.servers import TestServer
from tests.support.waiting import eventually

WITHIN = 5.0


@contextmanager
def no_collections() -> Iterator[None]:
    gc.collect()
    with start_up.no_collections():
        yield


async def sessions_in_memory() -> list[EndReason | None]:
    return [each.reason for each in gc.get_objects() if type(each) is Session]


@pytest.mark.parametrize("lost", [False, True])
async def test_a_session_that_is_over_is_freed_without_a_garbage_collection(server: TestServer, lost: bool) -> None:
    with no_collections():
        async with connect(server.url) as client:
            await client.ask("hello")
            assert await sessions_in_memory() == [None]
            if lost:
                client.reset()
        await eventually(sessions_in_memory, lambda found: not found, within=WITHIN)
        await trio.lowlevel.checkpoint()


async def test_a_commit_leaves_nothing_to_the_garbage_collector(server: TestServer) -> None:
    async with connect(server.url) as client:
        await client.ask("hello")
        with no_collections():
            before = retries_in_memory()
            await client.ask("hello again")
            assert retries_in_memory() <= before


def retries_in_memory() -> int:
    """Of tenacity's, each of which is part of a cycle. There may be others than the writer's in this process."""
    return sum(type(each).__name__ == "IterState" for each in gc.get_objects())
