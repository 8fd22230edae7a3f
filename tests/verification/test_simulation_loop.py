"""A world's own loop does what Trio's does: a program says the same in both, and is cancelled in the same way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
import trio
import trio.testing

from .simulation.world import World, simulate

Say: TypeAlias = Callable[[object], None]


async def times_out(say: Say) -> None:
    with trio.move_on_after(2) as outer:
        with trio.CancelScope(shield=True) as shielded, trio.move_on_after(1) as inner:
            await trio.sleep(5)
        say((inner.cancelled_caught, shielded.cancelled_caught, trio.current_time() % 1_000))
        try:
            with trio.fail_after(0.5):
                await trio.sleep_forever()
        except trio.TooSlowError:
            say("too slow")
        outer.deadline -= 0.25
        try:
            await trio.Event().wait()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            say(outer.cancel_called)
    say((outer.cancelled_caught, trio.current_time() % 1_000))


async def is_over_before_it_begins(say: Say) -> None:
    with trio.move_on_after(0) as scope:
        say("in")
        await trio.lowlevel.checkpoint()
        say("never")
    say(scope.cancelled_caught)
    with trio.CancelScope() as scope:
        scope.cancel()
        with trio.CancelScope() as inner:
            await trio.lowlevel.checkpoint()
        say("never")
    say((scope.cancelled_caught, inner.cancelled_caught))


async def fails_in_a_nursery(say: Say) -> None:
    async def fail(seconds: float) -> None:
        await trio.sleep(seconds)
        raise KeyError(seconds)

    async def clean_up() -> None:
        try:
            await trio.sleep_forever()
        finally:
            say("cleaned up")
            raise ValueError

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clean_up)
            nursery.start_soon(fail, 1)
            nursery.start_soon(fail, 2)
    except* KeyError as keys:
        say(repr(keys.exceptions))
    except* ValueError as values:
        say(repr(values.exceptions))


async def is_cancelled_amid_its_children(say: Say) -> None:
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(trio.sleep_forever)
                nursery.start_soon(_cancel_later, scope)
        say((scope.cancelled_caught, inner.cancel_scope.cancelled_caught, trio.current_time() % 1_000))


async def _cancel_later(scope: trio.CancelScope) -> None:
    await trio.sleep(1)
    scope.cancel()


async def takes_turns(say: Say) -> None:
    lock, lot = trio.StrictFIFOLock(), trio.lowlevel.ParkingLot()
    send, receive = trio.open_memory_channel[int](0)

    async def hold(number: int) -> None:
        await trio.sleep(number)
        async with lock:
            await lot.park()
            await send.send(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(hold, number)
        for _ in range(3):
            await trio.sleep(5)
            say((lock.statistics().tasks_waiting, len(lot.unpark()), len(lot.unpark_all()), await receive.receive()))


PROGRAMS = (times_out, is_over_before_it_begins, fails_in_a_nursery, is_cancelled_amid_its_children, takes_turns)


@pytest.mark.parametrize("counts_steps", [False, True])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_world_runs_a_program_as_trio_does(program: Callable[[Say], Awaitable[None]], counts_steps: bool) -> None:
    in_trio: list[object] = []
    in_a_world: list[object] = []

    async def main(_world: World) -> None:
        await program(in_a_world.append)

    trio.run(program, in_trio.append, clock=trio.testing.MockClock(autojump_threshold=0))
    simulate(1, main, counts_steps=counts_steps)
    assert in_a_world == in_trio
    assert in_trio
    assert "never" not in in_trio
