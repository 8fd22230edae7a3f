"""The links between the servers of `scripts/chaos` and their database, which are cut on purpose."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from .chaos.links import Links, open_links

QUIET_SECONDS = 0.2  # in which nothing comes, as far as a test can tell
WAIT_SECONDS = 20.0


@pytest.fixture
async def links(tmp_path: Path) -> AsyncIterator[Links]:
    """Links to a database that says everything twice."""
    with trio.socket.socket(socket.AF_UNIX) as listening:
        await listening.bind(str(tmp_path / "socket"))
        listening.listen(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, listening, nursery)
            async with open_links(tmp_path / "socket", tmp_path) as links:
                with trio.fail_after(WAIT_SECONDS):
                    yield links
            nursery.cancel_scope.cancel()


async def serve(listening: trio.socket.SocketType, nursery: trio.Nursery) -> None:
    while True:
        connection, _ = await listening.accept()
        nursery.start_soon(echo, trio.SocketStream(connection))


async def echo(stream: trio.SocketStream) -> None:
    async with stream:
        async for data in stream:
            await stream.send_all(bytes(data) * 2)


Connect = Callable[[str], Awaitable[trio.SocketStream]]


@pytest.fixture
async def connect(links: Links) -> AsyncIterator[Connect]:
    """Connects by the name of a link."""
    async with AsyncExitStack() as streams:

        async def connect_to(name: str) -> trio.SocketStream:
            return await streams.enter_async_context(await trio.open_tcp_stream("127.0.0.1", links.ports[name]))

        yield connect_to


async def ask(stream: trio.SocketStream) -> bytes:
    await stream.send_all(b"a")
    return bytes(await stream.receive_some())


async def test_an_open_link_passes_everything_and_ends(links: Links, connect: Connect) -> None:
    await links.open(["one"])
    stream = await connect("one")
    assert await ask(stream) == b"aa"
    await stream.send_eof()
    assert await stream.receive_some() == b""


async def test_a_reset_link_resets_what_exists_and_what_is_new_until_it_is_open(links: Links, connect: Connect) -> None:
    await links.open(["one"])
    before = await connect("one")
    assert await ask(before) == b"aa"

    await links.set("one", "reset")

    with pytest.raises(trio.BrokenResourceError):
        await before.receive_some()
    with pytest.raises((OSError, trio.BrokenResourceError)):
        await ask(await connect("one"))
    await links.set("one", "open")
    assert await ask(await connect("one")) == b"aa"


async def test_through_a_stalled_link_nothing_moves_until_it_is_open(links: Links, connect: Connect) -> None:
    await links.open(["one"])
    before = await connect("one")
    assert await ask(before) == b"aa"

    await links.set("one", "stalled")

    after = await connect("one")
    for stream in (before, after):
        with trio.move_on_after(QUIET_SECONDS) as limit:
            await ask(stream)
        assert limit.cancelled_caught
    await links.set("one", "open")
    assert await before.receive_some() == b"aa"
    assert await after.receive_some() == b"aa"


async def test_a_link_that_hangs_resets_what_exists_and_never_answers_what_is_new(
    links: Links, connect: Connect
) -> None:
    await links.open(["one"])
    before = await connect("one")
    assert await ask(before) == b"aa"

    await links.set("one", "hung")

    with pytest.raises(trio.BrokenResourceError):
        await before.receive_some()
    with trio.move_on_after(QUIET_SECONDS) as limit:
        await ask(await connect("one"))
    assert limit.cancelled_caught


async def test_the_state_of_one_link_is_not_that_of_another(links: Links, connect: Connect) -> None:
    await links.open(["one", "two"])
    await links.set("one", "stalled")

    assert await ask(await connect("two")) == b"aa"
