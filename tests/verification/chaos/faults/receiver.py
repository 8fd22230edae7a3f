"""Faults of the receiver of webhooks, which is well again when they return."""

from __future__ import annotations

import trio

from .. import receiver
from ..plan import Step
from .chaos_run import ChaosRun


async def receiver_slow(run: ChaosRun, step: Step, _lives: trio.Nursery) -> str:
    """Some of its answers never come."""
    return await _is(run, receiver.SLOW, step)


async def receiver_fails(run: ChaosRun, step: Step, _lives: trio.Nursery) -> str:
    return await _is(run, receiver.FAILS, step)


async def receiver_cuts(run: ChaosRun, step: Step, _lives: trio.Nursery) -> str:
    """Connections are reset: before the body, before the answer, within the answer."""
    return await _is(run, receiver.CUTS, step)


async def receiver_down(run: ChaosRun, step: Step, _lives: trio.Nursery) -> str:
    return await _is(run, receiver.DOWN, step)


async def _is(run: ChaosRun, mood: str, step: Step) -> str:
    await run.receiver.set(mood)
    try:
        await trio.sleep(step.lasts)
    finally:
        with trio.CancelScope(shield=True):  # bounded by `ReceiverProcess.set`
            await run.receiver.set(receiver.WELL)
    return "receiver"
