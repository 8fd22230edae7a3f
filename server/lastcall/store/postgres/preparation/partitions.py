"""How many partitions the large tables have: chosen once, before they are made."""

from __future__ import annotations

from typing import Any

from ...errors import DatabaseUnusable
from .state import Kind, SchemaState

PARTITIONS_MAX = 1024  # as in schema.sql; 16 make a turn half as dear again
COUNT = "SELECT count(*) FROM pg_inherits WHERE inhparent = to_regclass(quote_ident($1) || '.messages')"
CHOOSE = "SELECT set_config('lastcall.partitions', $1, false)"


async def choose_partitions(connection: Any, state: SchemaState, partitions: int) -> None:
    """Has the tables that this connection makes partitioned; 0: not.

    Raises:
        DatabaseUnusable: There are tables, with another number of partitions.
    """
    if state.kind is Kind.MISSING:
        await connection.execute(CHOOSE, str(partitions))
        return
    there = await connection.fetchval(COUNT, state.schema)
    if there != partitions:
        raise DatabaseUnusable(
            f"the tables in the schema {state.schema} have {there or 'no'} partitions, and keep them",
            "make the tables in a new database, and copy the rows: see docs/scaling.md",
        )
