"""PostgreSQL, by asyncpg under trio-asyncio. The only package that imports either."""

from .connect import DatabaseAddress, DatabaseUnusable, open_store
from .pool import CONNECTIONS, PostgresStore

__all__ = ["CONNECTIONS", "DatabaseAddress", "DatabaseUnusable", "PostgresStore", "open_store"]
