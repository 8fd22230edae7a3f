"""The parts of the schema beside its tables, and which of them are missing, as after a restore that broke off."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ...errors import DatabaseUnusable
from ...queries import SCHEMA

TABLES = tuple(re.findall(r"^CREATE TABLE IF NOT EXISTS (\w+)", SCHEMA, re.MULTILINE))
# An index of somebody else would be taken for ours (IF NOT EXISTS), and ours be missing.
INDEXES = tuple(re.findall(r"(?:INDEX IF NOT EXISTS|CONSTRAINT(?= \w+ UNIQUE)) (\w+)", SCHEMA))
FUNCTIONS = tuple(dict.fromkeys(re.findall(r"^CREATE OR REPLACE FUNCTION (\w+)", SCHEMA, re.MULTILINE)))
TRIGGERS = tuple(re.findall(r"^CREATE OR REPLACE TRIGGER (\w+) [A-Z ]+? ON (\w+)", SCHEMA, re.MULTILINE))

# Of the schema that the table $1 is in: functions $2, indexes $3, triggers $4 of the tables $5, keys of the tables $6.
# A trigger that is switched off is missing too.
MISSING = """
WITH home AS (SELECT relnamespace AS oid FROM pg_class WHERE oid = to_regclass($1))
SELECT 'the function ' || name AS part, true AS can_be_made FROM unnest($2::text[]) AS name
 WHERE NOT EXISTS (SELECT FROM pg_proc, home WHERE pronamespace = home.oid AND proname = name)
UNION ALL SELECT 'the index ' || name, true FROM unnest($3::text[]) AS name
 WHERE NOT EXISTS (SELECT FROM pg_class, home
                    WHERE relnamespace = home.oid AND relname = name AND relkind IN ('i', 'I'))
UNION ALL SELECT 'the trigger ' || name || ' of ' || of_table, true
  FROM unnest($4::text[], $5::text[]) AS t (name, of_table)
 WHERE NOT EXISTS (SELECT FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid JOIN home ON c.relnamespace = home.oid
                    WHERE relname = of_table AND tgname = name AND tgenabled IN ('O', 'A'))
UNION ALL SELECT 'the primary key of ' || name, false FROM unnest($6::text[]) AS name
 WHERE NOT EXISTS (SELECT FROM pg_index JOIN pg_class c ON c.oid = indrelid JOIN home ON c.relnamespace = home.oid
                    WHERE relname = name AND indisprimary)
"""


async def missing_parts(connection: Any, versions: str) -> Sequence[str]:
    """What `lastcall migrate` would make again, in words. versions: the table whose schema is looked at.

    Raises:
        DatabaseUnusable: A table lacks its primary key, which only a restore can give it.
    """
    names, tables = zip(*TRIGGERS, strict=True)
    rows = await connection.fetch(MISSING, versions, FUNCTIONS, INDEXES, names, tables, TABLES)
    lost = [row["part"] for row in rows if not row["can_be_made"]]
    if lost:
        raise DatabaseUnusable(
            f"{lost[0]} is missing, as after a restore that broke off", "restore the backup again, into a new database"
        )
    return [row["part"] for row in rows]
