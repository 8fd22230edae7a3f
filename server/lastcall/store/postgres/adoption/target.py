"""Where imported rows go: our tables, in a schema of their own where others have their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...address import DatabaseAddress
from ...errors import DatabaseUnusable, StoreError
from ..calls import bounded_call
from ..loop import open_loop
from ..network import Connector
from ..preparation.settings import set_session

PREPARE_SECONDS = 15.0
WANTED = """
SELECT current_schema()::text AS current, btrim(part, ' "') AS wanted
  FROM unnest(string_to_array(current_setting('search_path'), ',')) WITH ORDINALITY AS parts (part, number)
 WHERE btrim(part, ' "') NOT IN ('$user', '') ORDER BY number LIMIT 1
"""
CREATE = "SELECT format('CREATE SCHEMA IF NOT EXISTS %I', $1::text)"


@dataclass(frozen=True, slots=True)
class TargetState:
    """The schema for our tables. missing: it is not there. created: it was not."""

    schema: str
    missing: bool
    created: bool


async def prepare_target(address: DatabaseAddress, *, create: bool) -> TargetState:
    """Creates the schema that the address names, unless it is there.

    create: else only looks. Raises `DatabaseUnusable`.
    """
    async with open_loop() as loop:
        try:
            return await bounded_call(loop, PREPARE_SECONDS, _prepare, Connector(address), create)
        except StoreError as error:
            raise DatabaseUnusable(f"cannot use the database: {error}", "check --database-url") from error


async def _prepare(connector: Connector, create: bool) -> TargetState:
    connection: Any = await connector.open(command_seconds=PREPARE_SECONDS)
    try:
        await set_session(connection, connector.settings)
        found = await connection.fetchrow(WANTED)
        if found is None or found["current"] is not None:
            return TargetState("" if found is None else found["current"], missing=False, created=False)
        if create:
            await connection.execute(await connection.fetchval(CREATE, found["wanted"]))
        return TargetState(found["wanted"], missing=True, created=create)
    finally:
        connection.terminate()
