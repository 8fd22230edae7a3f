"""Finishes revocations that a person made with an older snapshot, so that they overlooked a session."""

from __future__ import annotations

import structlog
import trio

from ...store.errors import StoreError
from ...store.store import Store

PASS_SECONDS = 1.0  # between two passes

_log = structlog.get_logger(__name__)


async def finish_revocations(store: Store) -> None:
    """Runs until it is cancelled. Every server does it: whoever is first closes the sessions, of all servers."""
    failing = False
    while True:
        try:
            closed = await store.finish_revocations()
        except StoreError as error:
            if not failing:
                _log.warning("revocations_not_finished", error=str(error))
            failing = True
        else:
            failing = False
            if closed:
                _log.info("revocations_finished", sessions=closed)
        await trio.sleep(PASS_SECONDS)
