"""A server and its manager: systemd, or the supervisor of workers."""

from __future__ import annotations

import trio

from ..runtime.service_manager import ServiceManager
from ..shutdown import Signals


async def tell_of_the_end(signals: Signals, manager: ServiceManager) -> None:
    """Tells the manager when a shutdown begins, and begins one when the supervisor of the workers is gone."""
    async with trio.open_nursery() as waiting:

        async def end_without_supervisor() -> None:
            await manager.lost()
            if not signals.stop.is_set():
                signals.begin()

        waiting.start_soon(end_without_supervisor)
        await signals.stop.wait()
        manager.stopping()
        waiting.cancel_scope.cancel()
