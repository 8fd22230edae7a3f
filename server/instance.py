"""This server process as the database knows it: registered at start, renewed every second, stopped at the end."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import structlog
import trio

from . import __version__
from .store import Store, StoreError

STOP_SECONDS = 2.0

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_instance(store: Store, heartbeat_seconds: float) -> AsyncIterator[UUID]:
    """Registers an instance and keeps its heartbeat until the block is left."""
    instance_id = uuid4()
    await store.register_instance(instance_id, socket.gethostname(), os.getpid(), __version__)
    async with trio.open_nursery() as services:
        services.start_soon(_beat, store, instance_id, heartbeat_seconds)
        try:
            yield instance_id
        finally:
            services.cancel_scope.cancel()
            with trio.move_on_after(STOP_SECONDS, shield=True):
                await _stop(store, instance_id)


async def _beat(store: Store, instance_id: UUID, seconds: float) -> None:
    while True:
        await trio.sleep(seconds)
        try:
            if not await store.renew_instance(instance_id):
                _log.error("instance_declared_dead", instance_id=str(instance_id))
        except StoreError as error:
            _log.warning("heartbeat_missed", error=str(error))


async def _stop(store: Store, instance_id: UUID) -> None:
    try:
        await store.stop_instance(instance_id)
    except StoreError as error:
        _log.warning("instance_stop_not_noted", error=str(error))
