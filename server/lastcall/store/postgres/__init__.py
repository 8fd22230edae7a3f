"""The store in PostgreSQL, on asyncpg under trio-asyncio: the only package that imports either."""

from ..errors import DatabaseUnusable
from .connect import DatabaseAddress, open_store
from .connections import CONNECTIONS
from .store import PostgresStore

__all__ = ["CONNECTIONS", "DatabaseAddress", "DatabaseUnusable", "PostgresStore", "open_store"]
