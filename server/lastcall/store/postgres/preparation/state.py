"""The schema as it is in a database: whose tables are there, and of which release."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from .... import __version__
from ...errors import DatabaseUnusable
from ...queries import SCHEMA, SCHEMA_DIGEST
from .parts import FUNCTIONS, INDEXES, missing_parts

SCHEMA_VERSION = 1
VERSIONS = "lastcall_schema"  # the table that says which schema is there
SESSIONS = "conversation_sessions"  # the table that others are likely to have, with sessions in it
RELATIONS = tuple(re.findall(r"^CREATE (?:TABLE IF NOT EXISTS|OR REPLACE VIEW) (\w+)", SCHEMA, re.MULTILINE))
SEQUENCES = tuple(re.findall(r"^CREATE SEQUENCE IF NOT EXISTS (\w+)", SCHEMA, re.MULTILINE))
NAMES_SHOWN_MAX = 3

FIND = """
SELECT relname::text AS name, nspname::text AS schema FROM unnest($1::text[]) AS wanted (name)
  JOIN pg_class c ON c.oid = to_regclass(quote_ident(wanted.name)) JOIN pg_namespace n ON n.oid = c.relnamespace
"""
FIND_TAKEN = """
WITH here AS (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
SELECT relname::text FROM pg_class, here WHERE relnamespace = here.oid AND relname = ANY ($1::text[] || $2::text[])
UNION SELECT typname::text FROM pg_type, here WHERE typnamespace = here.oid AND typname = ANY ($1::text[])
UNION SELECT proname || '()' FROM pg_proc, here WHERE pronamespace = here.oid AND proname = ANY ($3::text[])
"""
ARE_VERSIONS = """
SELECT count(*) = 2 FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
 WHERE c.oid = to_regclass($1) AND relkind = 'r' AND NOT attisdropped
   AND (attname, atttypid::regtype) IN (('version', 'integer'::regtype), ('applied_at', 'timestamptz'::regtype))
"""
NO_SCHEMA = "search_path names no schema that exists and may be used by this role"
A_SCHEMA = (
    "create it (CREATE SCHEMA), let the role use it (GRANT USAGE ON SCHEMA), or name another"
    " (--database-url …?options=-csearch_path%3Dpublic)"
)
ANOTHER_SCHEMA = (
    "use another database, or a schema of its own: CREATE SCHEMA lastcall, and"
    " --database-url …?options=-csearch_path%3Dlastcall"
)


class Kind(Enum):
    """What has to be done about a schema. NEWER_RELEASE: nothing: its version is ours, its functions are newer."""

    CURRENT = "current"
    MISSING = "missing"
    OUTDATED = "outdated"
    NEWER_RELEASE = "newer release"
    NEWER = "newer"


@dataclass(frozen=True, slots=True)
class SchemaState:
    """schema: where the tables are, or would be created. version, release: of the schema that is there.

    lacks: parts of it that are missing although it is of this release.
    """

    kind: Kind
    schema: str
    version: int | None = None
    release: str | None = None
    lacks: Sequence[str] = ()


async def read_state(connection: Any) -> SchemaState:
    """Reads which schema is there. Raises `DatabaseUnusable` where tables of ours and of others are mixed up."""
    current = await connection.fetchval("SELECT current_schema()::text")
    if current is None:
        raise DatabaseUnusable(NO_SCHEMA, A_SCHEMA)
    found = {row["name"]: row["schema"] for row in await connection.fetch(FIND, RELATIONS)}
    home = found.get(VERSIONS)
    if home is None:
        taken = sorted(row[0] for row in await connection.fetch(FIND_TAKEN, RELATIONS, INDEXES + SEQUENCES, FUNCTIONS))
        if taken:
            raise DatabaseUnusable(_taken(taken, current), _mend_of_taken(taken, current))
        return SchemaState(Kind.MISSING, current)
    hidden = [name for name, schema in found.items() if schema != home]
    if hidden:
        raise DatabaseUnusable(
            f"{found[hidden[0]]}.{hidden[0]} hides lastcall's own, which is in the schema {home}",
            f"add ?options=-csearch_path%3D{home} to --database-url",
        )
    state = _state(home, await _newest(connection, home), complete=len(found) == len(RELATIONS))
    if state.kind is Kind.CURRENT and (lacks := await missing_parts(connection, VERSIONS)):
        return replace(state, kind=Kind.OUTDATED, lacks=lacks)
    return state


async def _newest(connection: Any, home: str) -> Mapping[str, Any]:
    """The row of the newest version; older releases lack some of its columns."""
    if not await connection.fetchval(ARE_VERSIONS, VERSIONS):
        raise DatabaseUnusable(_taken([VERSIONS], home), ANOTHER_SCHEMA)
    row = await connection.fetchval(f"SELECT to_jsonb(s) FROM {VERSIONS} s ORDER BY version DESC LIMIT 1")  # noqa: S608
    newest: Mapping[str, Any] = {} if row is None else json.loads(row)
    return newest


def _state(home: str, newest: Mapping[str, Any], *, complete: bool) -> SchemaState:
    version, release = newest.get("version"), newest.get("release")
    if version is not None and version > SCHEMA_VERSION:
        kind = Kind.NEWER
    elif not complete or newest.get("digest") is None:
        kind = Kind.OUTDATED
    elif newest["digest"] == SCHEMA_DIGEST:
        kind = Kind.CURRENT
    else:
        kind = Kind.NEWER_RELEASE if _is_newer(release) else Kind.OUTDATED
    return SchemaState(kind, home, version, release)


def _is_newer(release: str | None) -> bool:
    return release is not None and _numbers(release) > _numbers(__version__)


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]


def _mend_of_taken(names: list[str], schema: str) -> str:
    if SESSIONS not in names:
        return ANOTHER_SCHEMA
    take_over = f"to take its sessions over: lastcall import --from-table {schema}.{SESSIONS}"
    return f"{take_over}; for that too, {ANOTHER_SCHEMA}"


def _taken(names: list[str], schema: str) -> str:
    shown = ", ".join(f"{schema}.{name}" for name in names[:NAMES_SHOWN_MAX])
    more = f" and {len(names) - NAMES_SHOWN_MAX} more" if len(names) > NAMES_SHOWN_MAX else ""
    are, theirs = ("are", "are not") if len(names) > 1 else ("is", "is not")
    return f"{shown}{more} {are} there already and {theirs} lastcall's"
