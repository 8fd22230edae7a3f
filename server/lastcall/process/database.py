"""The database of the settings: the given one, or the embedded one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from ..config import Settings
from ..embedded.postgres import NAME as EMBEDDED
from ..embedded.postgres import open_embedded
from ..embedded.supervisor import supervised
from ..runtime.conditions import Conditions
from ..store.address import DatabaseAddress, read_address

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Database:
    """The database in use.

    describe: for the ready line, without a password. note: see `Ready`.
    """

    address: DatabaseAddress
    describe: str
    note: str | None = None


@asynccontextmanager
async def open_database(settings: Settings, conditions: Conditions) -> AsyncIterator[Database]:
    """The database of the settings: the given one, or the embedded one for as long as the block lasts."""
    if settings.database_url is not None:
        address = read_address(settings.database_url, os.environ)
        yield Database(address, f"PostgreSQL at {address}")
        return
    async with open_embedded(settings.data_dir) as embedded, supervised(EMBEDDED, embedded, conditions):
        address = read_address(embedded.url, {})  # the PG… variables mean another database
        yield Database(address, f"embedded PostgreSQL in {settings.data_dir}", embedded.place.note)
    if embedded.left_running:
        _log.warning("postgresql_left_running", reason=embedded.left_running, data=str(embedded.place.cluster))
