"""The inbox: events that wait are handled without a pass of the scheduler each, but not for long."""

from __future__ import annotations

import trio
from lastcall.protocol.client_events import ResponseCreate
from lastcall.realtime.mailbox import EVENTS_PER_STEP, Inbox


async def test_events_that_wait_are_handled_at_once_but_other_tasks_run_between() -> None:
    inbox, passes, handled_at = Inbox(1_000, 1_000_000), 0, list[int]()

    async def count_passes() -> None:
        nonlocal passes
        while True:
            passes += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_passes)
        for _ in range(4 * EVENTS_PER_STEP):
            inbox.put(ResponseCreate(), 1)
        while len(handled_at) < 4 * EVENTS_PER_STEP:
            await anext(inbox)
            handled_at.append(passes)
        nursery.cancel_scope.cancel()
    assert len(set(handled_at)) <= 5, "a pass for each event would take most of the time"
    longest = max(handled_at.count(number) for number in set(handled_at))
    assert longest <= 2 * (EVENTS_PER_STEP + 1), "the tasks of a pass run in any order"


async def test_no_event_is_handled_after_the_end_of_its_session() -> None:
    inbox, handled = Inbox(10, 1_000), 0
    for _ in range(3):
        inbox.put(ResponseCreate(), 1)
    with trio.CancelScope() as session:
        async for _ in inbox:
            handled += 1
            session.cancel()
    assert handled == 1
