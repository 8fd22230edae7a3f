"""The buffered stream: what is put leaves whole, in few sends, and a peer that does not read is let go."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from lastcall.transport.direct import DirectSocketStream
from lastcall.transport.flusher import FLUSHES_PER_STEP, PASSES_MAX, Flusher
from lastcall.transport.stream import CHUNK_BYTES, LINGER_SECONDS, BufferedStream
from trio.testing import (
    MemoryReceiveStream,
    MemorySendStream,
    MockClock,
    lockstep_stream_pair,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from tests.support.examples import examples

SEND_SECONDS = 10.0
BYTES_HIGH = 1_000
BYTES_MAX = 200_000


def counted() -> tuple[trio.abc.HalfCloseableStream, list[bytes]]:
    """A transport that takes everything, and the list of what each of its sends carried."""
    sends: list[bytes] = []

    async def note() -> None:
        sends.append(bytes(outgoing.get_data_nowait()))

    outgoing = MemorySendStream(send_all_hook=note)
    return trio.StapledStream(outgoing, MemoryReceiveStream()), sends


@asynccontextmanager
async def buffered(
    transport: trio.abc.HalfCloseableStream, *, bytes_high: int = BYTES_HIGH, bytes_max: int = BYTES_MAX
) -> AsyncIterator[BufferedStream]:
    """A stream over the transport, and the nursery for its tasks."""
    async with trio.open_nursery() as tasks:
        flusher = Flusher()
        tasks.start_soon(flusher.run)
        stream = BufferedStream(
            transport, tasks, flusher, send_seconds=SEND_SECONDS, bytes_high=bytes_high, bytes_max=bytes_max
        )
        yield stream
        await stream.close_now()
        tasks.cancel_scope.cancel()


async def read_all(peer: trio.abc.ReceiveStream) -> bytes:
    """Everything until the other side's end."""
    data = b""
    while chunk := await peer.receive_some(100_000):
        data += chunk
    return data


async def noticed_closed(stream: BufferedStream) -> None:
    """Waits for the transport's end as the libraries notice it: they cannot receive any more."""
    with pytest.raises((trio.ClosedResourceError, trio.BrokenResourceError)):
        await stream.receive_some()


async def is_closed(transport: trio.abc.AsyncResource) -> bool:
    assert isinstance(transport, trio.abc.SendStream)
    try:
        await transport.send_all(b"x")
    except trio.ClosedResourceError:
        return True
    return False


@asynccontextmanager
async def started(run: Callable[[], Awaitable[object]]) -> AsyncIterator[trio.Event]:
    """A task and the event of its end."""
    done = trio.Event()

    async def task() -> None:
        await run()
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(task)
        await wait_all_tasks_blocked()
        yield done
        nursery.cancel_scope.cancel()


# --- sending --------------------------------------------------------------------------------------------------------


async def test_what_is_put_while_nobody_waits_leaves_as_one_send() -> None:
    ours, sends = counted()
    async with buffered(ours) as stream:
        for number in range(100):
            stream.put(b"%d," % number)
        await wait_all_tasks_blocked()
        stream.put(b"later")
        await wait_all_tasks_blocked()
    assert sends == [b"".join(b"%d," % number for number in range(100)), b"later"]


async def test_no_send_is_larger_than_a_chunk() -> None:
    ours, sends = counted()
    async with buffered(ours) as stream:
        stream.put(b"x" * (2 * CHUNK_BYTES + 5))
        await wait_all_tasks_blocked()
    assert [len(sent) for sent in sends] == [CHUNK_BYTES, CHUNK_BYTES, 5]


@examples(50)
@given(pieces=st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=30), data=st.data())
async def test_bytes_arrive_once_and_in_order_however_puts_and_reads_interleave(
    pieces: list[bytes], data: st.DataObject
) -> None:
    ours, peer = lockstep_stream_pair()
    received = bytearray()
    async with buffered(ours, bytes_high=100) as stream:
        for piece in pieces:
            stream.put(piece)
            if data.draw(st.booleans()):
                received += await peer.receive_some(data.draw(st.integers(1, 200)))
        while len(received) < len(b"".join(pieces)):
            received += await peer.receive_some(500)
        await wait_all_tasks_blocked()
        assert stream.open
    assert bytes(received) == b"".join(pieces)


async def test_a_cancelled_send_all_leaves_its_bytes_whole_and_in_their_place(autojump_clock: MockClock) -> None:
    ours, peer = lockstep_stream_pair()
    async with buffered(ours) as stream:
        with trio.move_on_after(1) as limit:
            await stream.send_all(b"a" * 5_000)
        assert limit.cancelled_caught
        stream.put(b"end")
        received = b""
        while not received.endswith(b"end"):
            received += await peer.receive_some(7)
    assert received == b"a" * 5_000 + b"end"


async def test_send_all_in_a_cancelled_scope_still_queues_its_bytes() -> None:
    ours, sends = counted()
    async with buffered(ours) as stream:
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.send_all(b"a close frame")
        assert scope.cancelled_caught
        await wait_all_tasks_blocked()
    assert sends == [b"a close frame"]


async def test_send_all_returns_before_its_bytes_are_sent_while_there_is_room() -> None:
    ours, _peer = lockstep_stream_pair()
    async with buffered(ours) as stream:
        await stream.send_all(memoryview(b"x" * BYTES_HIGH))


async def test_send_all_reports_an_ended_and_a_broken_stream() -> None:
    ours, _peer = memory_stream_pair()
    async with buffered(ours) as ended, buffered(ours, bytes_max=10) as broken:
        await ended.aclose()
        broken.put(b"x" * 11)
        with pytest.raises(trio.ClosedResourceError):
            await ended.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await broken.send_all(b"x")


async def test_the_librarys_send_eof_ends_nothing() -> None:
    ours, peer = memory_stream_pair()
    async with buffered(ours) as stream:
        await stream.send_eof()
        await stream.send_all(b"more")
        assert await peer.receive_some(10) == b"more"


# --- peers that do not read -----------------------------------------------------------------------------------------


async def test_a_peer_that_takes_nothing_for_send_seconds_is_let_go(autojump_clock: MockClock) -> None:
    ours, _peer = lockstep_stream_pair()
    async with buffered(ours) as stream:
        began = trio.current_time()
        stream.put(b"hello")
        await noticed_closed(stream)
        assert trio.current_time() - began == SEND_SECONDS
        assert (stream.stalled, stream.broken, stream.open) == (True, True, False)
        assert await is_closed(ours)


async def test_a_peer_that_reads_slowly_but_in_time_is_kept(autojump_clock: MockClock) -> None:
    ours, peer = lockstep_stream_pair()
    async with buffered(ours) as stream:
        for _ in range(5):
            stream.put(b"hello")
            await trio.sleep(SEND_SECONDS - 1)
            assert await peer.receive_some(10) == b"hello"
        assert not stream.stalled
        assert stream.open


async def test_a_peer_that_is_gone_is_no_slow_reader() -> None:
    ours, peer = memory_stream_pair()
    async with buffered(ours) as stream:
        await peer.receive_stream.aclose()
        stream.put(b"hello")
        await noticed_closed(stream)
        assert (stream.broken, stream.stalled) == (True, False)
        assert await is_closed(ours)


@pytest.mark.parametrize("blocked", [False, True], ids=["idle", "blocked"])
async def test_too_many_unsent_bytes_let_the_peer_go_at_once(blocked: bool, autojump_clock: MockClock) -> None:
    ours, _peer = lockstep_stream_pair()
    async with buffered(ours) as stream:
        if blocked:
            stream.put(b"x")
            await wait_all_tasks_blocked()
        began = trio.current_time()
        stream.put(b"x" * BYTES_MAX)
        assert stream.open is not blocked
        stream.put(b"x")
        assert stream.stalled
        await noticed_closed(stream)
        assert trio.current_time() == began
        assert await is_closed(ours)


async def test_a_process_that_was_stopped_blames_no_peer_that_takes_its_bytes(mock_clock: MockClock) -> None:
    """As after SIGSTOP: when it goes on, the chunk's time is up and the socket is writable, at once."""
    sent: list[bytes] = []

    async def stopped() -> None:
        sent.append(bytes(outgoing.get_data_nowait()))
        mock_clock.jump(2 * SEND_SECONDS)
        await trio.lowlevel.cancel_shielded_checkpoint()

    outgoing = MemorySendStream(send_all_hook=stopped)
    async with buffered(trio.StapledStream(outgoing, MemoryReceiveStream())) as stream:
        for word in (b"one", b"two"):
            stream.put(word)
            await wait_all_tasks_blocked()
        assert stream.open
    assert sent == [b"one", b"two"]


async def test_what_is_put_after_the_end_is_dropped() -> None:
    ours, sends = counted()
    async with buffered(ours) as stream:
        await stream.aclose()
        stream.put(b"late")
        assert not stream.open
        await wait_all_tasks_blocked()
    assert sends == []


async def test_a_cancelled_writer_leaves_nobody_waiting() -> None:
    ours, _peer = lockstep_stream_pair()
    async with trio.open_nursery() as waiters:
        async with trio.open_nursery() as tasks:
            flusher = Flusher()
            tasks.start_soon(flusher.run)
            stream = BufferedStream(
                ours, tasks, flusher, send_seconds=SEND_SECONDS, bytes_high=BYTES_HIGH, bytes_max=BYTES_MAX
            )
            stream.put(b"x" * (BYTES_HIGH + 1))
            waiters.start_soon(stream.room)
            await wait_all_tasks_blocked()
            assert waiters.child_tasks
            tasks.cancel_scope.cancel()
        with trio.fail_after(1):
            await wait_all_tasks_blocked()
        assert not waiters.child_tasks
    assert stream.broken


# --- room -----------------------------------------------------------------------------------------------------------


async def test_there_is_room_up_to_the_mark_and_none_above_it() -> None:
    ours, _peer = lockstep_stream_pair()
    async with buffered(ours) as stream:
        stream.put(b"x" * BYTES_HIGH)
        async with started(stream.room) as done:
            assert done.is_set()
        stream.put(b"x")
        async with started(stream.wait_send_all_might_not_block) as done:
            assert not done.is_set()


async def test_all_who_wait_for_room_get_it_when_the_peer_has_read(autojump_clock: MockClock) -> None:
    ours, peer = lockstep_stream_pair()
    async with buffered(ours) as stream, trio.open_nursery() as waiters:
        stream.put(b"x" * (CHUNK_BYTES + BYTES_HIGH + 1))
        got = 0

        async def wait() -> None:
            nonlocal got
            await stream.room()
            got += 1

        for _ in range(3):
            waiters.start_soon(wait)
        await wait_all_tasks_blocked()
        assert len(await peer.receive_some(CHUNK_BYTES)) == CHUNK_BYTES
        waiters.start_soon(wait)  # one who comes between two chunks
        await wait_all_tasks_blocked()
        assert got == 0
        with trio.fail_after(SEND_SECONDS / 2):
            while got < 4:
                await peer.receive_some(100)
                await wait_all_tasks_blocked()


async def test_who_waits_for_room_is_let_go_with_the_peer(autojump_clock: MockClock) -> None:
    ours, _peer = lockstep_stream_pair()
    async with buffered(ours) as stream:
        began = trio.current_time()
        stream.put(b"x" * (BYTES_HIGH + 1))
        async with trio.open_nursery() as waiters:
            for _ in range(3):
                waiters.start_soon(stream.room)
        assert trio.current_time() - began == SEND_SECONDS
        assert stream.broken


# --- receiving ------------------------------------------------------------------------------------------------------


async def test_bytes_given_back_are_received_before_new_ones() -> None:
    ours, peer = memory_stream_pair()
    async with buffered(ours) as stream:
        await peer.send_all(b"new")
        stream.unread(b"second,")
        stream.unread(b"first,")
        received = await stream.receive_some() + await stream.receive_some()
    assert received == b"first,second,new"


@pytest.mark.parametrize("max_bytes", [1, 3])
async def test_no_more_is_received_than_was_asked_for(max_bytes: int) -> None:
    ours, peer = memory_stream_pair()
    async with buffered(ours) as stream:
        stream.unread(b"abcd")
        await peer.send_all(b"efgh")
        received = b""
        while len(received) < 8:
            piece = await stream.receive_some(max_bytes)
            assert 1 <= len(piece) <= max_bytes
            received += piece
    assert received == b"abcdefgh"


async def test_the_time_of_the_last_bytes_is_kept(autojump_clock: MockClock) -> None:
    ours, peer = memory_stream_pair()
    async with buffered(ours) as stream:
        began = stream.last_received
        await trio.sleep(3)
        stream.unread(b"old")
        await stream.receive_some()
        assert stream.last_received == began
        await peer.send_all(b"new")
        await stream.receive_some()
        await trio.sleep(3)
        assert stream.last_received == began + 3


async def test_the_peers_end_is_received_as_such() -> None:
    ours, peer = memory_stream_pair()
    await peer.send_eof()
    async with buffered(ours) as stream:
        assert await stream.receive_some() == b""


async def test_the_librarys_end_wakes_whoever_receives() -> None:
    ours, peer = memory_stream_pair()
    async with buffered(ours) as stream:
        async with started(lambda: noticed_closed(stream)) as done:
            assert not done.is_set()
            await stream.aclose()
            await done.wait()
        stream.unread(b"x")
        await noticed_closed(stream)
        await peer.send_all(b"the transport itself is still open")
        assert await ours.receive_some(3) == b"the"


async def test_a_cancelled_receive_loses_nothing(autojump_clock: MockClock) -> None:
    ours, peer = memory_stream_pair()
    async with buffered(ours) as stream:
        with trio.move_on_after(1):
            await stream.receive_some()
        await peer.send_all(b"hello")
        assert await stream.receive_some() == b"hello"


async def test_a_reader_that_need_not_be_woken_is_not_and_gets_nothing_more(autojump_clock: MockClock) -> None:
    ours, peer = memory_stream_pair()

    async def read() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive()

    async with buffered(ours) as stream, started(read) as read_all_that_it_gets:
        await stream.aclose()
        await wait_all_tasks_blocked()
        assert not read_all_that_it_gets.is_set()
        async with started(lambda: stream.finish(b"farewell")) as done:
            assert await read_all(peer) == b"farewell"
            await peer.send_all(b"late")
            await read_all_that_it_gets.wait()
            await peer.send_all(b"later")
            await wait_all_tasks_blocked()
            assert not done.is_set(), "it reads on until the peer's end"
            await peer.send_eof()
            await done.wait()


# --- finish ---------------------------------------------------------------------------------------------------------


async def test_finish_sends_what_is_pending_then_the_farewell_then_the_end(autojump_clock: MockClock) -> None:
    ours, peer = memory_stream_pair()
    async with buffered(ours) as stream:
        stream.put(b"x" * (2 * CHUNK_BYTES))
        await stream.aclose()
        async with started(lambda: stream.finish(b"farewell")) as done:
            received = await read_all(peer)
            assert not done.is_set()
            await peer.aclose()
            await done.wait()
    assert received == b"x" * (2 * CHUNK_BYTES) + b"farewell"
    assert not stream.stalled


async def test_finish_waits_no_longer_than_the_linger_for_a_peer_that_does_not_close(autojump_clock: MockClock) -> None:
    ours, peer = memory_stream_pair()
    async with buffered(ours) as stream:
        began = trio.current_time()
        await peer.send_all(b"still talking")
        await stream.finish()
        assert trio.current_time() - began == LINGER_SECONDS
        assert await read_all(peer) == b""


async def test_finish_does_not_linger_once_the_peer_has_closed(autojump_clock: MockClock) -> None:
    ours, peer = memory_stream_pair()
    async with buffered(ours) as stream:
        began = trio.current_time()
        await peer.send_eof()
        await stream.finish(b"bye")
        assert trio.current_time() == began
    assert await read_all(peer) == b"bye"


async def test_finish_ends_in_time_with_a_peer_that_never_reads(autojump_clock: MockClock) -> None:
    ours, _peer = lockstep_stream_pair()
    async with buffered(ours) as stream:
        began = trio.current_time()
        stream.put(b"x" * 10)
        await stream.finish(b"farewell")
        assert trio.current_time() - began <= SEND_SECONDS + LINGER_SECONDS


async def test_after_finish_nothing_more_is_taken() -> None:
    ours, peer = memory_stream_pair()
    async with buffered(ours) as stream:
        await peer.send_eof()
        await stream.finish(b"bye")
        stream.put(b"late")
        assert not stream.open
    assert await read_all(peer) == b"bye"


@pytest.mark.parametrize("how", ["overflow", "peer gone", "writer ended"])
async def test_finish_of_a_broken_stream_returns_in_time(how: str, autojump_clock: MockClock) -> None:
    ours, peer = memory_stream_pair()
    async with buffered(ours) as stream:
        began = trio.current_time()
        if how == "overflow":
            stream.put(b"x" * (BYTES_MAX + 1))
        elif how == "peer gone":
            await peer.aclose()
            stream.put(b"x")
        else:
            stream.broken = True
        await stream.finish(b"farewell")
        assert trio.current_time() - began <= LINGER_SECONDS


@asynccontextmanager
async def full_socket() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """Two ends of a socket that takes no more bytes from the first, until the second one reads."""
    near, far = socket.socketpair()
    near.setblocking(False)
    try:
        while True:
            near.send(b"x" * CHUNK_BYTES)
    except BlockingIOError:
        pass
    ours, peer = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in (near, far))
    async with ours, peer:
        yield ours, peer


@pytest.mark.parametrize("waited", [0.0, 1.0], ids=["at once", "while a chunk waits"])
async def test_finish_gives_up_a_socket_that_takes_no_bytes(waited: float, autojump_clock: MockClock) -> None:
    async with full_socket() as (ours, _peer), buffered(ours) as stream:
        began = trio.current_time()
        stream.put(b"hello")
        await trio.sleep(waited)
        await stream.finish(b"farewell")
        assert trio.current_time() - began <= waited + SEND_SECONDS + LINGER_SECONDS


async def test_finish_gives_up_a_socket_whose_peer_reads_too_slowly(autojump_clock: MockClock) -> None:
    async with full_socket() as (ours, peer), buffered(ours, bytes_max=50 * CHUNK_BYTES) as stream:
        stream.put(b"y" * (40 * CHUNK_BYTES))
        began = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def read_slowly() -> None:
                while True:
                    await trio.sleep(0.8 * SEND_SECONDS)
                    await peer.receive_some(2 * CHUNK_BYTES)

            nursery.start_soon(read_slowly)
            await stream.finish(b"farewell")
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began <= SEND_SECONDS + LINGER_SECONDS


async def test_finish_right_after_an_overflow_meets_a_writer_that_has_not_ended_yet(autojump_clock: MockClock) -> None:
    async with full_socket() as (ours, _peer), buffered(ours) as stream:
        stream.put(b"x")
        await wait_all_tasks_blocked()
        stream.put(b"x" * BYTES_MAX)
        await stream.finish(b"farewell")
        assert stream.stalled


async def test_close_now_closes_the_socket_also_where_everything_is_cancelled(autojump_clock: MockClock) -> None:
    """The writer is in the middle of a chunk, and the peer reads nothing."""
    async with full_socket() as (ours, _peer), buffered(ours) as stream:
        stream.put(b"hello")
        await wait_all_tasks_blocked()
        began = trio.current_time()
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.close_now()
        assert ours.socket.fileno() == -1
        assert not stream.open
        assert trio.current_time() == began


# --- sockets --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def connected_sockets() -> AsyncIterator[tuple[DirectSocketStream, trio.SocketStream]]:
    """Two ends of a socket; the first one sends directly, with as few bytes of buffer as the kernel allows."""
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    ours, peer = DirectSocketStream(near), trio.SocketStream(trio.socket.from_stdlib_socket(far))
    async with ours, peer:
        yield ours, peer


def duplicate(stream: trio.SocketStream) -> socket.socket:
    return socket.socket(fileno=os.dup(stream.socket.fileno()))


async def test_a_socket_that_takes_all_needs_no_task_and_one_send() -> None:
    async with connected_sockets() as (ours, peer), buffered(ours) as stream:
        tasks = len(stream._tasks.child_tasks)
        for number in range(100):
            stream.put(b"%d," % number)
            assert len(stream._tasks.child_tasks) == tasks
        await wait_all_tasks_blocked()
        assert len(stream._tasks.child_tasks) == tasks
        assert await peer.receive_some() == b"".join(b"%d," % number for number in range(100))


async def test_what_is_put_now_leaves_before_the_flusher_and_behind_what_waits() -> None:
    async with connected_sockets() as (ours, peer), buffered(ours) as stream:
        stream.put(b"first, ")
        stream.put_now(b"second")
        assert os.read(peer.socket.fileno(), 100) == b"first, second"  # without a step of the scheduler
        stream.put(b"third")
        assert await peer.receive_some() == b"third"


@pytest.mark.parametrize("linger", [False, True])
async def test_only_a_stream_that_lingers_reads_on_until_its_peers_end(linger: bool) -> None:
    async with (
        connected_sockets() as (ours, peer),
        buffered(ours) as stream,
        started(lambda: stream.finish(b"farewell", linger=linger)) as done,
    ):
        assert await peer.receive_some() == b"farewell"
        await wait_all_tasks_blocked()
        assert done.is_set() is not linger
        assert (ours.socket.fileno() == -1) is not linger
        assert await read_all(peer) == b""
        await peer.send_eof()
        await done.wait()


async def test_a_socket_that_takes_a_part_gets_the_rest_in_order_and_no_task_stays() -> None:
    sent = b"".join(b"%06d" % number for number in range(30_000))
    received = bytearray()
    async with connected_sockets() as (ours, peer), buffered(ours) as stream:
        tasks = len(stream._tasks.child_tasks)
        for start in range(0, len(sent), 60_000):
            stream.put(sent[start : start + 60_000])
            await wait_all_tasks_blocked()
        assert len(stream._tasks.child_tasks) == tasks + 1
        while len(received) < len(sent):
            received += await peer.receive_some(10_000)
        await wait_all_tasks_blocked()
        assert len(stream._tasks.child_tasks) == tasks
        stream.put(b"more")
        assert await peer.receive_some() == b"more"
    assert bytes(received) == sent


async def test_a_socket_that_takes_nothing_for_send_seconds_is_let_go(autojump_clock: MockClock) -> None:
    async with full_socket() as (full, _peer), buffered(DirectSocketStream(duplicate(full))) as stream:
        began = trio.current_time()
        stream.put(b"hello")
        await noticed_closed(stream)
        assert trio.current_time() - began == SEND_SECONDS
        assert stream.stalled


async def test_a_socket_whose_peer_is_gone_breaks_the_stream() -> None:
    async with connected_sockets() as (ours, peer), buffered(ours) as stream:
        await peer.aclose()
        stream.put(b"hello")
        await wait_all_tasks_blocked()
        assert (stream.broken, stream.stalled) == (True, False)
        await noticed_closed(stream)


async def test_finish_sends_a_farewell_behind_what_a_full_socket_still_owes(autojump_clock: MockClock) -> None:
    async with connected_sockets() as (ours, peer), buffered(ours) as stream:
        stream.put(b"x" * 150_000)
        async with started(lambda: stream.finish(b"farewell")) as done:
            received = await read_all(peer)
            await peer.send_eof()
            await done.wait()
        assert received == b"x" * 150_000 + b"farewell"


async def test_receiving_from_a_socket_waits_ends_and_notices_a_close() -> None:
    async with connected_sockets() as (ours, peer), buffered(ours) as stream:
        async with started(stream.receive_some) as done:
            assert not done.is_set()
            await peer.send_all(b"x")
            await done.wait()
        await peer.send_all(b"hello")
        assert await stream.receive_some(2) == b"he"
        assert await stream.receive_some() == b"llo"
        async with started(lambda: noticed_closed(stream)) as done:
            await ours.aclose()
            await done.wait()
        await noticed_closed(stream)
        with pytest.raises(trio.ClosedResourceError):
            ours.send_now(b"x")


async def test_one_flusher_sends_for_all_and_other_tasks_run_between() -> None:
    flusher, order = Flusher(), []

    class Sink:
        def __init__(self, number: int) -> None:
            self.number = number

        def flush(self) -> None:
            order.append(self.number)
            if self.number == 0:
                raise RuntimeError("the first one fails")

    async def count_turns() -> None:
        while True:
            turns.append(len(order))
            await trio.lowlevel.checkpoint()

    turns: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        for number in range(5 * FLUSHES_PER_STEP):
            flusher.add(Sink(number))
        nursery.start_soon(count_turns)
        while len(order) < 5 * FLUSHES_PER_STEP:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert order == list(range(5 * FLUSHES_PER_STEP))
    longest = max(after - before for before, after in pairwise(turns))
    assert longest <= 2 * FLUSHES_PER_STEP, "the tasks of a pass run in any order"


async def test_what_is_put_in_passes_that_follow_each_other_leaves_in_few_sends() -> None:
    """An acknowledgement and the pieces behind it. A stream that is never quiet does not wait for ever."""
    sends: list[bytes] = []

    def send(data: bytes | bytearray | memoryview) -> int:
        sends.append(bytes(data))
        return len(data)

    async with connected_sockets() as (ours, _peer), buffered(ours) as stream:
        stream._send_now = send
        for number in range(10 * PASSES_MAX):
            stream.put(b"%02d" % number)
            await trio.lowlevel.checkpoint()
            assert len(b"".join(sends)) >= 2 * (number - PASSES_MAX - 1)
        await wait_all_tasks_blocked()
    assert len(sends) <= 11
    assert b"".join(sends) == b"".join(b"%02d" % number for number in range(10 * PASSES_MAX))
