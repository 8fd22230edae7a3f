"""Fills a database with sessions that are long over, in slices, so that no transaction grows with their number."""

from __future__ import annotations

from typing import Any

ITEMS_OF_SESSION = 20  # ten turns
SESSIONS_OF_USER = 5
SLICE_USERS = 1_000
SLICE_SECONDS = 900.0
# Without the triggers: the rows are right, and a foreign key would look up each. What is said has some 150 characters.
FILL = f"""
SET LOCAL session_replication_role = replica;
WITH c AS (
    INSERT INTO conversations (conversation_id, user_id)
    SELECT gen_random_uuid(), 'user-' || u FROM generate_series($1::integer, $2::integer) u,
           generate_series(1, {SESSIONS_OF_USER})
    RETURNING conversation_id, user_id
), s AS (
    INSERT INTO conversation_sessions
           (session_id, conversation_id, user_id, is_active, session_start, session_end, ended_at, duration_seconds,
            end_reason, memory_status, memory_finalized_at)
    SELECT conversation_id, conversation_id, user_id, false, t, t + interval '5 minutes', t + interval '5 minutes', 300,
           'client_closed', 'done', t + interval '5 minutes'
      FROM (SELECT *, now() - interval '1 hour' - random() * interval '30 days' AS t FROM c) begun
    RETURNING session_id, conversation_id, user_id
)
INSERT INTO messages (user_id, message_id, conversation_id, session_id, item_id, position, role, content, status)
SELECT user_id, gen_random_uuid(), conversation_id, session_id, 'item_' || left(md5(session_id::text || n), 21), n,
       CASE n % 2 WHEN 1 THEN 'user' ELSE 'assistant' END, repeat(md5(session_id::text || n), 5), 'completed'
  FROM s, generate_series(1, {ITEMS_OF_SESSION}) n
"""
SETTLE = "VACUUM (ANALYZE) conversations, conversation_sessions, messages"


def users_of(messages: int) -> int:
    """How many users have said so much together."""
    return messages // (ITEMS_OF_SESSION * SESSIONS_OF_USER)


async def fill(connection: Any, messages: int) -> None:
    """Adds so many messages, of as many users as that takes."""
    users = users_of(messages)
    for first in range(1, users + 1, SLICE_USERS):
        last = min(first + SLICE_USERS - 1, users)
        async with connection.transaction():
            statement, _, insert = FILL.partition(";")
            await connection.execute(statement)
            await connection.execute(insert, first, last, timeout=SLICE_SECONDS)
    await connection.execute(SETTLE, timeout=SLICE_SECONDS)
