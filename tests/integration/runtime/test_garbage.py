"""A session that has ended is freed by reference counting alone: nothing waits for a garbage collection."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import h11
import pytest
import trio
from lastcall.auth.identity import Presented
from lastcall.realtime.admission import Admission
from lastcall.sessions.session import Session
from lastcall.store.records import EndReason
from lastcall.transport.http.request_head import RequestHead
from wsproto.events import Request
from wsproto.handshake import H11Handshake

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


async def test_an_idle_session_keeps_nothing_of_its_handshake(server: TestServer) -> None:
    """A request's head, its parsers and what was made of it would be a fifth of a session's memory."""
    gc.collect()
    before = handshakes_in_memory()
    async with connect(server.url, padding="x") as client:
        await client.send({"type": "session.update", "session": {"type": "realtime"}})
        await client.until("session.updated")
        assert handshakes_in_memory() - before == Counter()


def handshakes_in_memory() -> Counter[type]:
    """Those of servers. A request that the library's reader still holds counts for its headers."""
    return Counter(type(each) for each in gc.get_objects() if is_of_a_handshake(each))


def is_of_a_handshake(thing: object) -> bool:
    match thing:
        case Request():
            return bool(thing.extra_headers)
        case H11Handshake():
            return not thing.client
        case h11.Connection():
            return thing.our_role is h11.SERVER
    return isinstance(thing, (RequestHead, Admission, Presented))
