"""Whether there are any endpoints: most servers have none, and then nothing is looked for."""

from __future__ import annotations

import structlog
import trio

from ..logs.trouble import Trouble
from ..store.errors import StoreError
from ..store.reports import Rows
from ..store.webhooks.outbox import has_endpoints

LOOK_SECONDS = 60.0  # between two looks, should a notification get lost
RETRY_SECONDS = 1.0  # the same while the database is away

_log = structlog.get_logger(__name__)


class EndpointWatch:
    """Looks when it is told of a change, and now and then."""

    def __init__(self, store: Rows) -> None:
        self._store = store
        self._changed = trio.Event()
        self._trouble = Trouble()

    def changed(self) -> None:
        """To be called when endpoints were added, changed or removed, or when nobody could tell for a while."""
        self._changed.set()

    async def until(self, *, there: bool) -> None:
        """Returns once there is an endpoint, also one that was removed of late; or once there is none."""
        while True:
            self._changed = trio.Event()  # first: what changes during the look is looked at again
            seconds = LOOK_SECONDS
            try:
                are_there = await has_endpoints(self._store)
                self._trouble.over()
                if are_there is there:
                    return
            except StoreError as error:
                seconds = RETRY_SECONDS
                if self._trouble.is_new(error):
                    _log.warning("webhooks_without_database", error=str(error))
            with trio.move_on_after(seconds):
                await self._changed.wait()
