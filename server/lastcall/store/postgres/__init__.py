"""The store in PostgreSQL, on asyncpg under trio-asyncio: the only package that imports either."""

from ..errors import DatabaseUnusable
from .adoption import open_table, prepare_target
from .connect import diagnose, migrate_schema, open_store
from .connections import CONNECTIONS
from .preparation.meanings import MEANING
from .preparation.migration import Access, MigrationReport
from .store import PostgresStore

__all__ = [
    "CONNECTIONS",
    "MEANING",
    "Access",
    "DatabaseUnusable",
    "MigrationReport",
    "PostgresStore",
    "diagnose",
    "migrate_schema",
    "open_store",
    "open_table",
    "prepare_target",
]
