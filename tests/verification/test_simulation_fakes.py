"""What is simulated behaves like the real thing: time, the order of tasks, sockets, and processes that stop."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY

import pytest
import trio
import trio.lowlevel
from lastcall.agents.agent import Message, Transcript
from lastcall.memory.outcomes import acceptable
from lastcall.protocol.ids import new_id

from .simulation.fakes import trio_internals
from .simulation.fakes.agent import SimulatedAgent
from .simulation.fakes.clock import Stuck, VirtualClock
from .simulation.fakes.network import CLOSE, HEAD, TEXT, FrameReader, MemoryListener, Wire, masked_frame
from .simulation.fakes.seeding import OWNER
from .simulation.world import World, simulate

ITEMS = 200
HOUR_SECONDS = 3_600.0

# --- Trio


def test_a_private_name_that_trio_no_longer_has_is_reported() -> None:
    assert trio_internals.missing() == []
    assert trio_internals.missing(SimpleNamespace(_r=object())) == [
        "_ALLOW_DETERMINISTIC_SCHEDULING",
        "_r.seed",
        "GLOBAL_RUN_CONTEXT",
        "Runner.runq",
    ]


def test_the_order_of_tasks_follows_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", False)

    def order(seed: int) -> list[int]:
        found: list[int] = []

        async def main() -> None:
            async def step(number: int) -> None:
                await trio.lowlevel.checkpoint()
                found.append(number)

            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(step, number)

        with trio_internals.order_of_tasks(seed):
            trio.run(main)
        return found

    assert order(1) == order(1) != order(2)
    assert trio_internals._RUN._ALLOW_DETERMINISTIC_SCHEDULING is False


def test_time_passes_only_while_no_task_can_run() -> None:
    times: list[float] = []

    async def main() -> None:
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        times.append(trio.current_time())
        with trio.move_on_after(2 * HOUR_SECONDS):
            await trio.sleep(HOUR_SECONDS)
            times.append(trio.current_time())
            await trio.sleep_forever()
        times.append(trio.current_time())

    trio.run(main, clock=VirtualClock(0.0))
    assert times == [0.0, HOUR_SECONDS, 2 * HOUR_SECONDS]


def test_a_wake_up_through_trios_own_socket_takes_no_virtual_time() -> None:
    async def main() -> float:
        event = trio.Event()
        await trio.sleep(1)
        trio.lowlevel.current_trio_token().run_sync_soon(event.set)
        with trio.move_on_after(HOUR_SECONDS):
            await event.wait()
        return trio.current_time()

    assert trio.run(main, clock=VirtualClock(0.0)) == 1.0


def test_a_world_in_which_nothing_is_left_to_happen_is_stuck() -> None:
    async def main(_world: World) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    with pytest.raises(Stuck):
        simulate(1, main)


# --- processes


def test_a_frozen_server_does_nothing_until_it_is_thawed() -> None:
    heartbeats: list[float] = []

    async def main(world: World) -> None:
        server = world.start_server()
        await server.ready.wait()
        server.freeze()
        await trio.sleep(5)
        (record,) = server.link.own()
        heartbeats.append(trio.current_time() - record.heartbeat_at)
        server.thaw()
        await trio.sleep(0.5)
        heartbeats.append(trio.current_time() - record.heartbeat_at)

    simulate(1, main)
    assert heartbeats[0] == pytest.approx(5, abs=0.1)
    assert heartbeats[1] < 1


def test_a_frozen_server_takes_no_step_while_others_run() -> None:
    steps: list[str] = []
    ahead: list[float] = []

    class Steps(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            owner = task.context.get(OWNER)
            if owner is not None and owner.frozen:
                steps.append(task.name)

    async def main(world: World) -> None:
        frozen, other = world.start_server(), world.start_server()
        await frozen.ready.wait()
        await other.ready.wait()
        frozen.freeze()
        await trio.lowlevel.checkpoint()  # a freeze begins with the next batch of tasks
        trio.lowlevel.add_instrument(Steps())
        await trio.sleep(5)
        ahead.append(other.link.own()[0].heartbeat_at - frozen.link.own()[0].heartbeat_at)
        frozen.thaw()

    simulate(1, main)
    assert steps == []
    assert ahead[0] > 4


def test_a_crashed_server_has_no_effect_any_more() -> None:
    seen: list[Any] = []

    async def main(world: World) -> None:
        server = world.start_server()
        await server.ready.wait()
        wire = server.connect(lambda _: None, lambda _: None)
        assert wire is not None
        server.crash()
        (record,) = server.link.own()
        heartbeat = record.heartbeat_at
        await trio.sleep(30)
        seen.extend((wire.ended, server.accepting, record.stopped_at, record.heartbeat_at - heartbeat))
        seen.append(server.connect(lambda _: None, lambda _: None))

    simulate(1, main)
    assert seen == ["reset", False, None, 0, None]


# --- connections


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_frames_are_read_however_they_are_torn(size: int, piece: int) -> None:
    payload = b"x" * size
    head = masked_frame(TEXT, payload).removesuffix(b"\0\0\0\0" + payload)
    unmasked = bytes((head[0], head[1] & 0x7F)) + head[2:] + payload
    data = b"HTTP/1.1 101 Yes\r\n\r\n" + unmasked + bytes((0x80 | CLOSE, 0))
    reader, frames = FrameReader(), []
    for start in range(0, len(data), piece):
        frames += reader.feed(data[start : start + piece])
    assert frames == [(HEAD, b"HTTP/1.1 101 Yes\r\n\r\n"), (TEXT, payload), (CLOSE, b"")]


async def test_a_connection_holds_no_more_than_its_buffer(autojump_clock: Any) -> None:
    listener = MemoryListener()
    wire = Wire(lambda _: None, lambda _: None)
    wire.down_bytes_max = 10
    assert listener.connect(wire)
    ours = await listener.accept()
    with trio.move_on_after(1) as stuck:
        await ours.send_all(b"x" * 11)
    assert stuck.cancelled_caught
    wire.drain()
    await ours.send_all(b"x" * 10)


async def test_a_reset_breaks_both_directions_and_a_fin_only_one(autojump_clock: Any) -> None:
    listener = MemoryListener()
    wire = Wire(lambda _: None, lambda _: None)
    listener.connect(wire)
    ours = await listener.accept()
    wire.send(b"last")
    wire.fin()
    assert await ours.receive_some() == b"last"
    assert await ours.receive_some() == b""
    await ours.send_all(b"x")
    wire.reset()
    with pytest.raises(trio.BrokenResourceError):
        await ours.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await ours.send_all(b"x")


# --- the agent


async def test_what_the_agent_remembers_is_stored_as_it_is() -> None:
    """Whatever ids the items have: memories that look alike once they are cleaned would become one."""
    said = [Message("user", f"user0.0 says {number}", new_id("item")) for number in range(ITEMS)]
    for message in said:
        memories = await SimulatedAgent().finalize(Transcript("session", "user0", [message]))
        assert acceptable(memories) == [replace(memory, words=ANY) for memory in memories]
        assert [(memory.content, memory.item_id) for memory in memories] == [(message.text, message.item_id)]
