"""The privileges that a role needs to run servers and commands, and those that it lacks."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ....runtime.check import Check, fail, ok
from .parts import FUNCTIONS
from .state import RELATIONS, SEQUENCES, VERSIONS

GRANTS = "grants"
# The same as in docs/operations.md.
WRITTEN = (
    "server_instances", "api_keys", "client_secrets", "conversations", "conversation_sessions", "messages",
    "user_memories", "superseded_memories", "memory_tombstones", "forgotten_turns", "recall_passages", "recall_lexemes",
    "audit_log", "server_census", "session_counts", "agent_responses", "response_counts", "webhook_endpoints",
    "webhook_deliveries",
)  # fmt: skip
DELETED_FROM = (
    "client_secrets", "unfinished_revocations", "recall_passages", "recall_lexemes", "user_memories",
    "superseded_memories", "memory_tombstones", "forgotten_turns", "api_keys", "messages", "conversation_sessions",
    "conversations", "audit_log", "agent_responses", "webhook_endpoints", "webhook_deliveries",
)  # fmt: skip

# Privileges $2 on relations $1, pairwise, and EXECUTE on functions $3; those of the schema that our tables are in.
MISSING = """
WITH home AS (SELECT relnamespace AS oid FROM pg_class WHERE oid = to_regclass($4))
SELECT needed.privilege, needed.relation AS name, quote_ident(nspname) AS schema
  FROM home JOIN pg_namespace n ON n.oid = home.oid, unnest($1::text[], $2::text[]) AS needed (relation, privilege)
  JOIN pg_class c ON c.relname = needed.relation
 WHERE c.relnamespace = home.oid AND NOT CASE c.relkind WHEN 'S' THEN has_sequence_privilege(c.oid, needed.privilege)
                                                         ELSE has_table_privilege(c.oid, needed.privilege) END
UNION
SELECT 'EXECUTE', 'FUNCTION', quote_ident(nspname)
  FROM home JOIN pg_namespace n ON n.oid = home.oid JOIN pg_proc p ON p.pronamespace = home.oid
 WHERE p.proname = ANY ($3::text[]) AND NOT has_function_privilege(p.oid, 'EXECUTE')
 ORDER BY 1, 2
"""


async def check_grants(connection: Any, role: str) -> Check:
    """Whether this role may do what servers and commands do. Where there are no tables, there is nothing to grant.

    role: its name, quoted where SQL needs it.
    """
    needed = [
        *((name, "SELECT") for name in RELATIONS),
        *((name, privilege) for name in WRITTEN for privilege in ("INSERT", "UPDATE")),
        *((name, "DELETE") for name in DELETED_FROM),
        *((name, "USAGE") for name in SEQUENCES),
    ]
    names, privileges = zip(*needed, strict=True)
    missing: dict[str, list[str]] = defaultdict(list)
    schema = ""
    for row in await connection.fetch(MISSING, names, privileges, FUNCTIONS, VERSIONS):
        schema = row["schema"]
        missing[row["privilege"]].append(row["name"])
    if not missing:
        return ok(GRANTS, f"the role {role} has every privilege that it needs")
    lacks = ", ".join(f"{privilege} on {', '.join(objects).lower()}" for privilege, objects in missing.items())
    mend = "; ".join(_grant(privilege, objects, schema, role) for privilege, objects in missing.items())
    return fail(GRANTS, f"the role {role} lacks {lacks}", f"as the owner: {mend}")


def _grant(privilege: str, names: list[str], schema: str, role: str) -> str:
    if privilege == "EXECUTE":
        return f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {role}"
    kind = "SEQUENCE " if privilege == "USAGE" else ""
    return f"GRANT {privilege} ON {kind}{', '.join(f'{schema}.{name}' for name in names)} TO {role}"
