"""Mistakes in `schema.sql`, each of which a test on PostgreSQL has to see."""

from __future__ import annotations

from .mutant import BOUND, CONTAINED, END, GHOST, LOST, ORPHAN, REMEMBER, SWEPT, mutant

SCHEMA_SQL = "schema.sql"
STORE = "tests/integration/store"
SCHEMA, LEASE, LOCKED_ROWS = f"{STORE}/test_schema.py", f"{STORE}/test_lease.py", f"{STORE}/test_locked_rows.py"
ENDS, ITEMS, CREDENTIALS = f"{STORE}/test_ends.py", f"{STORE}/test_stored_items.py", f"{STORE}/test_credentials.py"
BATCH_TESTS = f"{STORE}/test_batches.py"
INSTANCE = "tests/integration/sessions/test_instance.py"
LATE_BATCH = f"{STORE}/test_clock.py::test_a_batch_that_was_sent_at_another_time_than_it_says_stores_nothing"

GUARDS = (
    mutant(
        "the lock of a lease has a key of one hex digit",
        SCHEMA_SQL,
        "hashtextextended('lastcall instance ' || instance_id::text, 0)",
        "hashtextextended('lastcall instance ' || left(instance_id::text, 1), 0)",
        ORPHAN,
        SWEPT,
        test=f"{LEASE}::test_instances_whose_ids_differ_in_one_digit_have_locks_of_their_own",
    ),
    mutant(
        "the lock of a lease has a key of 16 bits",
        SCHEMA_SQL,
        "RETURN hashtextextended('lastcall instance ' || instance_id::text, 0)",
        "RETURN hashtextextended('lastcall instance ' || left(instance_id::text, 4), 0)",
        ORPHAN,
        SWEPT,
        test=f"{LEASE}::test_instances_whose_ids_differ_in_one_digit_have_locks_of_their_own",
    ),
    mutant(
        "an ended session can be changed",
        SCHEMA_SQL,
        "        permitted := OLD;\n        IF NOT OLD.is_active",
        "        permitted := NEW;\n        IF NOT OLD.is_active",
        END,
        test=f"{SCHEMA}::test_an_ended_session_cannot_be_rewritten",
    ),
    mutant(
        "a session may end before its start",
        SCHEMA_SQL,
        "greatest(NEW.session_start, least(coalesce(NEW.session_end, now()), clock_timestamp()))",
        "least(coalesce(NEW.session_end, now()), clock_timestamp())",
        END,
        test=f"{ENDS}::test_an_end_is_never_before_the_start",
    ),
    mutant(
        "a session may end in the future",
        SCHEMA_SQL,
        "least(coalesce(NEW.session_end, now()), clock_timestamp())",
        "coalesce(NEW.session_end, now())",
        END,
        test=f"{ENDS}::test_an_end_is_never_in_the_future",
    ),
    mutant(
        "a session is never dated before its row was closed",
        SCHEMA_SQL,
        "least(coalesce(NEW.session_end, now()), clock_timestamp())",
        "clock_timestamp()",
        END,
        test=f"{ENDS}::test_an_end_is_dated_when_it_happened_not_when_it_was_written",
    ),
    mutant(
        "a row that ends keeps the writer's duration",
        SCHEMA_SQL,
        "        NEW.duration_seconds := extract(epoch FROM NEW.session_end - NEW.session_start);\n",
        "        NEW.duration_seconds := coalesce(NEW.duration_seconds,"
        " extract(epoch FROM NEW.session_end - NEW.session_start));\n",
        END,
        test=f"{SCHEMA}::test_what_follows_from_the_end_is_computed_whatever_the_writer_claims",
    ),
    mutant(
        "memory is not queued in a transaction with an old snapshot",
        SCHEMA_SQL,
        "IF current_setting('transaction_isolation') <> 'read committed'\n                OR EXISTS",
        "IF EXISTS",
        REMEMBER,
        test=f"{SCHEMA}::test_memory_is_queued_although_the_closing_transaction_is_older",
    ),
    mutant(
        "memory is queued though the user said nothing",
        SCHEMA_SQL,
        "WHERE session_id = NEW.session_id AND role = 'user') THEN",
        "WHERE session_id = NEW.session_id) THEN",
        REMEMBER,
        test=f"{ITEMS}::test_output_of_a_function_does_not_make_a_session_memorable",
    ),
    mutant(
        "nobody is notified of a row that others close",
        SCHEMA_SQL,
        "PERFORM pg_notify('lastcall_' || replace(NEW.",
        "PERFORM concat('lastcall_' || replace(NEW.",
        GHOST,
        test=f"{SCHEMA}::test_the_owner_is_told_of_ends_that_others_wrote_and_only_of_those",
    ),
    mutant(
        "an instance is notified of the ends that it writes",
        SCHEMA_SQL,
        " AND NEW.closed_by IS DISTINCT FROM NEW.instance_id THEN",
        " THEN",
        BOUND,
        test=f"{SCHEMA}::test_the_owner_is_told_of_ends_that_others_wrote_and_only_of_those",
    ),
    mutant(
        "nobody is notified of a row that a person closes",
        SCHEMA_SQL,
        "NEW.closed_by IS DISTINCT FROM NEW.instance_id THEN",
        "NEW.closed_by <> NEW.instance_id THEN",
        GHOST,
        test=f"{SCHEMA}::test_the_owner_is_told_of_ends_that_others_wrote_and_only_of_those",
    ),
)

KEYS = (
    mutant(
        "a revocation can be taken back",
        SCHEMA_SQL,
        "NEW.revoked_at := coalesce(OLD.revoked_at, NEW.revoked_at);",
        "NEW.revoked_at := NEW.revoked_at;",
        CONTAINED,
        test=f"{SCHEMA}::test_a_revocation_is_for_good",
    ),
    mutant(
        "a revocation closes no sessions",
        SCHEMA_SQL,
        "SET is_active = false, end_reason = 'revoked'\n     WHERE credential_id = credential AND is_active;",
        "SET is_active = false, end_reason = 'revoked'\n     WHERE credential_id = credential AND NOT is_active;",
        GHOST,
        test=f"{CREDENTIALS}::test_revoking_closes_the_sessions_that_it_began_and_no_others",
    ),
    mutant(
        "a revocation with an older snapshot is not noted",
        SCHEMA_SQL,
        "INSERT INTO unfinished_revocations (credential_id) VALUES (credential);",
        "NULL;",
        GHOST,
        test=f"{SCHEMA}::test_a_revocation_with_an_older_snapshot_is_finished_later",
    ),
    mutant(
        "a key's client secrets outlive it",
        SCHEMA_SQL,
        "SET revoked_at = NEW.revoked_at WHERE key_id = OLD.key_id AND revoked_at IS NULL;",
        "SET revoked_at = NEW.revoked_at WHERE secret_id = OLD.key_id AND revoked_at IS NULL;",
        CONTAINED,
        test=f"{CREDENTIALS}::test_a_client_secret_goes_with_its_key",
    ),
    mutant(
        "a session may begin with a key while it is revoked",
        SCHEMA_SQL,
        "WHERE key_id = ANY (credentials) AND revoked_at IS NULL FOR SHARE SKIP LOCKED",
        "WHERE key_id = ANY (credentials) AND revoked_at IS NULL",
        GHOST,
        test=f"{SCHEMA}::test_a_begin_during_a_revocation_leaves_no_active_session",
    ),
    mutant(
        "a begin waits for a key that is locked",
        SCHEMA_SQL,
        "WHERE key_id = ANY (credentials) AND revoked_at IS NULL FOR SHARE SKIP LOCKED",
        "WHERE key_id = ANY (credentials) AND revoked_at IS NULL FOR SHARE",
        BOUND,
        test=f"{SCHEMA}::test_a_key_that_somebody_holds_holds_up_nobody_elses_begin",
    ),
    mutant(
        "a begin waits for a client secret that is locked",
        SCHEMA_SQL,
        "WHERE secret_id = ANY (credentials) AND revoked_at IS NULL FOR SHARE SKIP LOCKED",
        "WHERE secret_id = ANY (credentials) AND revoked_at IS NULL FOR SHARE",
        BOUND,
        test=f"{LOCKED_ROWS}::test_a_locked_client_secret_delays_no_other_begin",
    ),
)

BATCHES = (
    mutant(
        "a batch that comes too late is stored",
        SCHEMA_SQL,
        "IF asked NOT BETWEEN now() - patience AND now() + patience THEN",
        "IF false THEN",
        ORPHAN,
        test=LATE_BATCH,
    ),
    mutant(
        "a batch that takes too long is stored",
        SCHEMA_SQL,
        "IF clock_timestamp() > now() + patience THEN",
        "IF false THEN",
        ORPHAN,
        test=f"{LOCKED_ROWS}::test_a_batch_that_took_longer_than_its_patience_stores_nothing",
    ),
    mutant(
        "ages count from when a batch was run",
        SCHEMA_SQL,
        "moment timestamptz := least(now(), asked);",
        "moment timestamptz := now();",
        END,
        test=f"{BATCH_TESTS}::test_ages_count_from_when_a_batch_was_sent",
    ),
    mutant(
        "a dead instance begins sessions",
        SCHEMA_SQL,
        "AND reaped_at IS NULL AND stopped_at IS NULL FOR KEY SHARE SKIP LOCKED",
        "AND stopped_at IS NULL FOR KEY SHARE SKIP LOCKED",
        ORPHAN,
        test=f"{STORE}/test_instances.py::test_a_stopped_or_dead_instance_is_not_renewed_and_begins_no_sessions",
    ),
    mutant(
        "an instance is declared dead while it begins sessions",
        SCHEMA_SQL,
        "AND reaped_at IS NULL AND stopped_at IS NULL FOR KEY SHARE SKIP LOCKED",
        "AND reaped_at IS NULL AND stopped_at IS NULL",
        ORPHAN,
        test=f"{INSTANCE}::test_an_instance_that_is_being_declared_dead_begins_no_session",
    ),
    mutant(
        "an instance cannot renew its lease while it begins sessions",
        SCHEMA_SQL,
        "AND reaped_at IS NULL AND stopped_at IS NULL FOR KEY SHARE SKIP LOCKED",
        "AND reaped_at IS NULL AND stopped_at IS NULL FOR SHARE SKIP LOCKED",
        SWEPT,
        test=f"{INSTANCE}::test_begins_and_renewals_never_wait_for_each_other",
    ),
    mutant(
        "a begin that is repeated fails its batch",
        SCHEMA_SQL,
        "          FROM starting\n        ON CONFLICT (session_id) DO NOTHING\n",
        "          FROM starting\n",
        CONTAINED,
        test=f"{STORE}/test_begins.py::test_beginning_again_is_one_row",
    ),
    mutant(
        "a session is begun in somebody else's conversation",
        SCHEMA_SQL,
        "    CONSTRAINT session_in_own_conversation FOREIGN KEY (conversation_id, user_id)\n"
        "        REFERENCES conversations (conversation_id, user_id),\n",
        "",
        CONTAINED,
        test=f"{STORE}/test_begins.py::test_a_session_in_another_users_conversation_is_refused_and_not_stored",
    ),
    mutant(
        "items are stored without the fence",
        SCHEMA_SQL,
        "AND is_active\n         ORDER BY session_id FOR SHARE SKIP LOCKED\n    ), free",
        "AND is_active\n         ORDER BY session_id\n    ), free",
        GHOST,
        test=f"{LOCKED_ROWS}::test_a_row_is_not_closed_while_an_item_of_it_is_stored",
    ),
    mutant(
        "items wait for a conversation that is locked",
        SCHEMA_SQL,
        "         ORDER BY conversation_id FOR KEY SHARE SKIP LOCKED\n",
        "         ORDER BY conversation_id FOR KEY SHARE\n",
        BOUND,
        test=f"{LOCKED_ROWS}::test_locked_conversations_delay_no_other_write_of_their_batch",
    ),
    mutant(
        "a begin waits for a conversation that is locked",
        SCHEMA_SQL,
        "= ANY (conversation_ids) FOR KEY SHARE SKIP LOCKED",
        "= ANY (conversation_ids) FOR KEY SHARE",
        BOUND,
        test=f"{LOCKED_ROWS}::test_locked_conversations_delay_no_other_write_of_their_batch",
    ),
    mutant(
        "items wait for rows that are locked",
        SCHEMA_SQL,
        "ORDER BY session_id FOR SHARE SKIP LOCKED\n    ), free",
        "ORDER BY session_id FOR SHARE\n    ), free",
        BOUND,
        test=f"{LOCKED_ROWS}::test_a_locked_session_delays_no_other_write_of_its_batch",
    ),
    mutant(
        "items are stored for a session that has ended",
        SCHEMA_SQL,
        "WHERE session_id = ANY (sessions) AND is_active\n         ORDER BY session_id FOR SHARE",
        "WHERE session_id = ANY (sessions)\n         ORDER BY session_id FOR SHARE",
        GHOST,
        test=f"{ITEMS}::test_nothing_is_stored_for_a_closed_session",
    ),
    mutant(
        "an item that is repeated fails its batch",
        SCHEMA_SQL,
        "ON CONFLICT (message_id) DO NOTHING\n",
        "\n",
        CONTAINED,
        test=f"{ITEMS}::test_appending_an_item_again_is_one_item",
    ),
    mutant(
        "an item whose id is taken is dropped and acknowledged",
        SCHEMA_SQL,
        "ON CONFLICT (message_id) DO NOTHING\n",
        "ON CONFLICT DO NOTHING\n",
        LOST,
        test=f"{ITEMS}::test_an_item_with_an_id_in_use_is_refused_with_all_of_its_call",
    ),
    mutant(
        "an item that was left out counts as stored",
        SCHEMA_SQL,
        "WHEN is_active THEN 'held' ELSE 'closed' END ORDER",
        "WHEN is_active THEN 'stored' ELSE 'closed' END ORDER",
        LOST,
        test=f"{LOCKED_ROWS}::test_a_locked_session_delays_no_other_write_of_its_batch",
    ),
    mutant(
        "a deletion is made without the fence",
        SCHEMA_SQL,
        "WHERE session_id = deletion.session_id AND is_active FOR SHARE SKIP LOCKED;",
        "WHERE session_id = deletion.session_id AND is_active;",
        GHOST,
        test=f"{LOCKED_ROWS}::test_a_row_is_not_closed_while_an_item_of_it_is_deleted",
    ),
    mutant(
        "a deletion waits for an item that is locked",
        SCHEMA_SQL,
        "                       FOR NO KEY UPDATE SKIP LOCKED);",
        "                       FOR NO KEY UPDATE);",
        BOUND,
        test=f"{LOCKED_ROWS}::test_a_locked_item_delays_no_other_deletion",
    ),
    mutant(
        "an end waits for rows that are locked",
        SCHEMA_SQL,
        "ORDER BY session_id FOR NO KEY UPDATE SKIP LOCKED\n    ), ended",
        "ORDER BY session_id FOR NO KEY UPDATE\n    ), ended",
        BOUND,
        test=f"{LOCKED_ROWS}::test_a_locked_session_delays_no_other_write_of_its_batch",
    ),
    mutant(
        "an end does not say who closed the row",
        SCHEMA_SQL,
        "close_code = e.close_code, closed_by = e.instance_id",
        "close_code = e.close_code",
        END,
        test=f"{ENDS}::test_an_end_says_why_and_by_whom",
    ),
    mutant(
        "an end that was left out counts as written",
        SCHEMA_SQL,
        "jsonb_object_agg(s.session_id, ended.session_id IS NOT NULL)",
        "jsonb_object_agg(s.session_id, true)",
        ORPHAN,
        test=f"{LOCKED_ROWS}::test_a_locked_session_delays_no_other_write_of_its_batch",
    ),
)

ERASED = "tests/integration/sessions/test_erased.py"
DELETIONS = (
    mutant(
        "the server of a deleted session is not told",
        SCHEMA_SQL,
        "FOR EACH ROW WHEN (OLD.is_active AND OLD.instance_id IS NOT NULL) EXECUTE",
        "FOR EACH ROW WHEN (false) EXECUTE",
        GHOST,
        test=f"{ERASED}::test_an_erased_user_is_disconnected_and_stays_erased",
    ),
    mutant(
        "the servers of truncated sessions are not told",
        SCHEMA_SQL,
        "FROM conversation_sessions WHERE is_active AND instance_id IS NOT NULL;\n    RETURN NULL;",
        "FROM conversation_sessions WHERE false;\n    RETURN NULL;",
        GHOST,
        test=f"{ERASED}::test_a_deleted_row_ends_the_session_of_a_silent_client",
    ),
)

VIEWS = (
    mutant(
        "a session whose instance stopped counts as live",
        SCHEMA_SQL,
        "CASE WHEN NOT s.is_active THEN 'ended'\n            WHEN i.stopped_at IS NULL AND i.reaped_at IS NULL",
        "CASE WHEN NOT s.is_active THEN 'ended'\n            WHEN i.reaped_at IS NULL",
        ORPHAN,
        test=f"{SCHEMA}::test_the_views_tell_live_sessions_from_orphans_and_ended_ones",
    ),
    mutant(
        "a session whose server died before the clock was set back counts as live",
        SCHEMA_SQL,
        "AND i.heartbeat_at BETWEEN now() - make_interval(secs => i.lease_seconds)\n"
        "                                       AND now() + make_interval(secs => i.lease_seconds)\n",
        "AND i.heartbeat_at > now() - make_interval(secs => i.lease_seconds)\n",
        ORPHAN,
        test=f"{SCHEMA}::test_the_views_tell_live_sessions_from_orphans_and_ended_ones",
    ),
)

MUTANTS = GUARDS + KEYS + BATCHES + DELETIONS + VIEWS
