"""The connections of `PostgresStore`: one for a question, all of them, and warm, for a server."""

from __future__ import annotations

from server.postgres import CONNECTIONS, PostgresStore

PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE statement ~ 'commit_batch[(][$]1'"


def connections(store: PostgresStore) -> int:
    return store._pool.get_size()


async def test_a_store_that_was_asked_one_question_has_one_connection(postgres_store: PostgresStore) -> None:
    await postgres_store.ping()
    assert connections(postgres_store) == 1


async def test_a_store_that_is_warm_has_all_its_connections_prepared_and_nothing_stored(
    postgres_store: PostgresStore,
) -> None:
    await postgres_store.warm_up()
    assert connections(postgres_store) == CONNECTIONS
    [row] = await postgres_store.select(PREPARED)
    assert row["count"] == 1
    [row] = await postgres_store.select("SELECT count(*) FROM conversation_sessions")
    assert row["count"] == 0
