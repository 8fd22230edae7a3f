"""Mistakes in `queries.sql`, each of which a test on PostgreSQL has to see."""

from __future__ import annotations

from .mutant import BOUND, CONTAINED, END, GHOST, LOST, ORPHAN, REMEMBER, SWEPT, mutant

QUERIES = "server/lastcall/store/queries.sql"
STORE = "tests/integration/store"
LEASE, INSTANCES = f"{STORE}/test_lease.py", f"{STORE}/test_instances.py"
BATCHES, LOCKED_ROWS = f"{STORE}/test_batches.py", f"{STORE}/test_locked_rows.py"
MEMORIES, CREDENTIALS = f"{STORE}/test_memories.py", f"{STORE}/test_credentials.py"
REAPER, INSTANCE = "tests/integration/sessions/test_reaper.py", "tests/integration/sessions/test_instance.py"
SUSPECT = f"{INSTANCES}::test_an_owner_of_active_sessions_is_a_suspect"
NOT_RENEWED = f"{INSTANCES}::test_a_stopped_or_dead_instance_is_not_renewed_and_begins_no_sessions"

LEASES = (
    mutant(
        "a lease connection takes no lock",
        QUERIES,
        " AND pg_try_advisory_lock(instance_lock_key($1)) RETURNING",
        " RETURNING",
        SWEPT,
        test=f"{LEASE}::test_a_lease_is_renewed_while_an_earlier_connection_still_has_its_lock",
    ),
    mutant(
        "a lock that is taken is not dated",
        QUERIES,
        "SET guarded_at = now(), guarded_by = pg_postmaster_start_time()",
        "SET guarded_at = now()",
        ORPHAN,
        test=SUSPECT,
    ),
    mutant(
        "a dead instance renews its lease",
        QUERIES,
        "AND reaped_at IS NULL AND stopped_at IS NULL\nRETURNING",
        "AND stopped_at IS NULL\nRETURNING",
        GHOST,
        test=NOT_RENEWED,
    ),
    mutant(
        "a stopped instance renews its lease",
        QUERIES,
        "AND reaped_at IS NULL AND stopped_at IS NULL\nRETURNING",
        "AND reaped_at IS NULL\nRETURNING",
        ORPHAN,
        test=NOT_RENEWED,
    ),
    mutant(
        "a look at all rows finds those that are active",
        QUERIES,
        "= ANY ($1::uuid[]) AND NOT is_active\n",
        "= ANY ($1::uuid[])\n",
        CONTAINED,
        test=f"{LEASE}::test_a_look_at_all_rows_finds_only_those_that_are_closed",
    ),
    mutant(
        "a dead instance judges others",
        QUERIES,
        "me.instance_id = $1 AND me.reaped_at IS NULL AND me.stopped_at IS NULL));",
        "me.instance_id = $1));",
        SWEPT,
        test=f"{LEASE}::test_an_instance_that_is_dead_or_has_stopped_suspects_nobody",
    ),
    mutant(
        "a lock lost in a restart of the database proves a crash",
        QUERIES,
        "coalesce(guarded_by = pg_postmaster_start_time(), false) AND NOT EXISTS",
        "NOT EXISTS",
        SWEPT,
        test=f"{LEASE}::test_a_lock_that_was_lost_in_a_restart_of_postgresql_says_nothing",
    ),
    mutant(
        "a lock that is held is not looked for",
        QUERIES,
        "WHERE l.locktype = 'advisory' AND l.objsubid = 1",
        "WHERE l.locktype = 'advisory' AND l.objsubid = 2",
        SWEPT,
        test=SUSPECT,
    ),
)

REAPING = (
    mutant(
        "an instance that renewed its lease meanwhile is reaped",
        QUERIES,
        "WHERE instance_id = $1 AND heartbeat_at = $2 FOR UPDATE SKIP LOCKED\n), dead AS (\n"
        "    UPDATE server_instances SET reaped_at = coalesce(reaped_at, now())\n"
        "     WHERE instance_id = (SELECT instance_id FROM judged) AND heartbeat_at = $2\n",
        "WHERE instance_id = $1 AND heartbeat_at >= $2 FOR UPDATE SKIP LOCKED\n), dead AS (\n"
        "    UPDATE server_instances SET reaped_at = coalesce(reaped_at, now())\n"
        "     WHERE instance_id = (SELECT instance_id FROM judged)\n",
        SWEPT,
        test=f"{INSTANCES}::test_an_instance_that_renewed_its_lease_meanwhile_is_not_reaped",
    ),
    mutant(
        "a session may begin while its instance is reaped",
        QUERIES,
        "AND heartbeat_at = $2 FOR UPDATE SKIP LOCKED\n), dead",
        "AND heartbeat_at = $2\n), dead",
        ORPHAN,
        test=f"{INSTANCE}::test_an_instance_that_is_being_declared_dead_begins_no_session",
    ),
    mutant(
        "reaping closes everybody's sessions",
        QUERIES,
        "FROM conversation_sessions JOIN dead USING (instance_id) WHERE is_active\n",
        "FROM conversation_sessions CROSS JOIN dead WHERE is_active\n",
        SWEPT,
        test=f"{INSTANCES}::test_reaping_leaves_sessions_of_others_and_of_nobody",
    ),
    mutant(
        "reaping waits for rows that are locked",
        QUERIES,
        "LIMIT $4 FOR NO KEY UPDATE OF conversation_sessions SKIP LOCKED",
        "LIMIT $4 FOR NO KEY UPDATE OF conversation_sessions",
        BOUND,
        test=f"{LOCKED_ROWS}::test_reaping_leaves_a_locked_row_for_its_next_pass",
    ),
    mutant(
        "reaping takes all rows at once",
        QUERIES,
        "     LIMIT $4 FOR NO KEY UPDATE",
        "     LIMIT $4 + 1000000 FOR NO KEY UPDATE",
        BOUND,
        test=f"{INSTANCES}::test_a_dead_instances_sessions_are_reaped_a_bounded_number_at_a_time",
    ),
    mutant(
        "an item that a frozen database stored late dates a reaped session",
        QUERIES,
        "session_end = greatest(free.heartbeat_at, least(free.heartbeat_at + make_interval(secs => $5), coalesce(",
        "session_end = greatest(free.heartbeat_at, greatest(free.heartbeat_at, coalesce(",
        END,
        test=f"{INSTANCES}::test_a_reaped_session_ends_with_its_last_item_within_a_bound",
    ),
    mutant(
        "a reaped session ends with an item from before the last heartbeat",
        QUERIES,
        "session_end = greatest(free.heartbeat_at, least(",
        "session_end = least(now(), least(",
        END,
        test=f"{LEASE}::test_a_reaped_session_does_not_end_before_the_last_heartbeat",
    ),
    mutant(
        "a reaped session is not said to be closed by its judge",
        QUERIES,
        "end_reason = 'owner_died', closed_by = $3,",
        "end_reason = 'owner_died', closed_by = nullif($3::uuid, $3),",
        END,
        test=f"{INSTANCES}::test_a_reaped_instances_sessions_end_with_its_last_heartbeat",
    ),
)

LEAVING = (
    mutant(
        "a session may begin while its instance stops",
        QUERIES,
        "WHERE instance_id = $1 FOR UPDATE SKIP LOCKED\n), stopped",
        "WHERE instance_id = $1\n), stopped",
        ORPHAN,
        test=f"{LOCKED_ROWS}::test_no_session_begins_while_its_instance_stops",
    ),
    mutant(
        "an instance that was reaped stops all the same",
        QUERIES,
        "(SELECT instance_id FROM free) AND stopped_at IS NULL AND reaped_at IS NULL\n",
        "(SELECT instance_id FROM free) AND stopped_at IS NULL\n",
        END,
        test=f"{BATCHES}::test_an_instance_that_was_declared_dead_does_not_stop",
    ),
    mutant(
        "a bulk close is dated by the items that it stores",
        QUERIES,
        " AND m.created_at < now()))",
        "))",
        END,
        test=f"{BATCHES}::test_items_stored_with_a_bulk_close_do_not_date_it",
    ),
    mutant(
        "a bulk close is dated before the last item",
        QUERIES,
        "session_end = greatest(now() - make_interval(secs => $2),\n           ("
        "SELECT max(created_at) FROM messages m WHERE m.session_id = s.session_id AND m.created_at < now()))",
        "session_end = now() - make_interval(secs => $2)",
        END,
        test=f"{BATCHES}::test_an_item_stored_since_a_bulk_close_was_asked_for_dates_it",
    ),
    mutant(
        "a bulk close is dated when it is written",
        QUERIES,
        "session_end = greatest(now() - make_interval(secs => $2),",
        "session_end = greatest(now(),",
        END,
        test=f"{BATCHES}::test_items_stored_with_a_bulk_close_do_not_date_it",
    ),
    mutant(
        "a bulk close waits for rows that are locked",
        QUERIES,
        "= $1 AND is_active\n       FOR NO KEY UPDATE SKIP LOCKED\n",
        "= $1 AND is_active\n       FOR NO KEY UPDATE\n",
        BOUND,
        test=f"{LOCKED_ROWS}::test_a_bulk_close_leaves_a_locked_row_to_its_own_end",
    ),
    mutant(
        "a bulk close closes everybody's sessions",
        QUERIES,
        "SELECT session_id FROM conversation_sessions WHERE instance_id = $1 AND is_active\n       FOR",
        "SELECT session_id FROM conversation_sessions WHERE $1::uuid IS NOT NULL AND is_active\n       FOR",
        SWEPT,
        test=f"{STORE}/test_ends.py::test_a_shutdown_closes_its_own_sessions_and_no_others",
    ),
    mutant(
        "an instance is notified of its own bulk close",
        QUERIES,
        "close_code = 1012, closed_by = instance_id,",
        "close_code = 1012,",
        END,
        test=f"{BATCHES}::test_an_instance_is_not_notified_of_its_own_bulk_close",
    ),
)

MEMORY = (
    mutant(
        "memory is claimed before it is due",
        QUERIES,
        " AND memory_due_at <= now()\n",
        "\n",
        REMEMBER,
        test=f"{MEMORIES}::test_a_session_is_claimed_by_one_claimer",
    ),
    mutant(
        "a claim of memory lasts for ever",
        QUERIES,
        "SET memory_due_at = now() + make_interval(secs => $2), memory_attempts",
        "SET memory_due_at = now() + make_interval(secs => $2 + 86400), memory_attempts",
        REMEMBER,
        test=f"{MEMORIES}::test_a_claim_that_runs_out_is_anothers",
    ),
    mutant(
        "an attempt at memory is not counted",
        QUERIES,
        "memory_attempts = memory_attempts + 1",
        "memory_attempts = memory_attempts",
        REMEMBER,
        test=f"{MEMORIES}::test_a_failed_try_is_due_again_after_its_back_off",
    ),
    mutant(
        "a claim of memory waits for rows that are locked",
        QUERIES,
        "<= now()\n     ORDER BY memory_due_at LIMIT $1 FOR UPDATE SKIP LOCKED",
        "<= now()\n     ORDER BY memory_due_at LIMIT $1 FOR UPDATE",
        REMEMBER,
        test=f"{LOCKED_ROWS}::test_a_claim_of_memory_leaves_a_locked_row",
    ),
    mutant(
        "a session that is claimed already is claimed by its own server",
        QUERIES,
        "$3::uuid AND memory_status = 'pending'\n       AND (memory_due_at <= now() OR",
        "$3::uuid AND memory_status = 'pending'\n       AND (true OR",
        REMEMBER,
        test=f"{MEMORIES}::test_a_claim_by_session_takes_that_one_only_and_only_where_it_is_free",
    ),
    mutant(
        "a session that is done is claimed by its own server",
        QUERIES,
        "$3::uuid AND memory_status = 'pending'\n       AND (memory_due_at <= now() OR",
        "$3::uuid\n       AND (coalesce(memory_due_at, now()) <= now() OR",
        REMEMBER,
        test=f"{MEMORIES}::test_a_claim_by_session_takes_that_one_only_and_only_where_it_is_free",
    ),
    mutant(
        "a claim by its own server waits for a row that is locked",
        QUERIES,
        "       FOR UPDATE SKIP LOCKED\n), claimed",
        "       FOR UPDATE\n), claimed",
        BOUND,
        test=f"{LOCKED_ROWS}::test_a_claim_of_one_session_does_not_wait_for_its_row",
    ),
    mutant(
        "memory that was never tried waits for a clock that was set back",
        QUERIES,
        "AND (memory_attempts = 0 OR memory_due_at > now() + make_interval(secs => $4))\n     ORDER",
        "AND (memory_due_at > now() + make_interval(secs => $4))\n     ORDER",
        REMEMBER,
        test=f"{MEMORIES}::test_memory_that_was_due_before_the_clock_was_set_back_is_due",
    ),
    mutant(
        "a claim waits for a clock that was set back",
        QUERIES,
        "AND (memory_attempts = 0 OR memory_due_at > now() + make_interval(secs => $4))\n     ORDER",
        "AND memory_attempts = 0\n     ORDER",
        REMEMBER,
        test=f"{MEMORIES}::test_a_claim_or_back_off_of_before_the_clock_was_set_back_ends",
    ),
    mutant(
        "an operator's close waits for rows that are locked",
        QUERIES,
        "IS NULL AND is_active\n       FOR NO KEY UPDATE SKIP LOCKED\n",
        "IS NULL AND is_active\n       FOR NO KEY UPDATE\n",
        BOUND,
        test="tests/integration/store/test_reports.py::test_closing_orphans_leaves_a_session_that_somebody_writes_to",
    ),
    mutant(
        "a clock that is set back prolongs a client secret",
        QUERIES,
        "AND created_at < now() + make_interval(secs => $2);",
        "AND (true OR created_at < now() + make_interval(secs => $2));",
        CONTAINED,
        test=f"{CREDENTIALS}::test_a_clock_that_is_set_back_does_not_prolong_a_client_secret",
    ),
    mutant(
        "a begin waits for memory that failed",
        QUERIES,
        "memory_status = 'pending' AND memory_error IS NULL\n",
        "memory_status = 'pending'\n",
        BOUND,
        test=f"{MEMORIES}::test_memory_that_waits_for_another_try_is_not_pending_for_its_user",
    ),
    mutant(
        "a begin waits for memory of long ago",
        QUERIES,
        "                          AND memory_due_at > now() - make_interval(secs => $3)) AS pending",
        "                          AND $3::float8 IS NOT NULL) AS pending",
        BOUND,
        test=f"{MEMORIES}::test_memory_of_a_session_that_ended_long_ago_is_not_pending",
    ),
    mutant(
        "a begin waits for the memory of other users",
        QUERIES,
        "WHERE user_id = $1 AND memory_status = 'pending' AND",
        "WHERE memory_status = 'pending' AND",
        BOUND,
        test=f"{MEMORIES}::test_memory_is_pending_for_its_user_from_the_end_until_it_is_done",
    ),
    mutant(
        "deleted items are remembered",
        QUERIES,
        "WHERE kind = 'message' AND deleted_at IS NULL) said",
        "WHERE kind = 'message') said",
        REMEMBER,
        test=f"{STORE}/test_stored_items.py::test_what_the_user_took_back_is_not_remembered",
    ),
    mutant(
        "memory is applied by every server that claimed it",
        QUERIES,
        "WHERE session_id = $1 AND memory_status = 'pending'\n    RETURNING",
        "WHERE session_id = $1 AND NOT is_active\n    RETURNING",
        REMEMBER,
        test=f"{MEMORIES}::test_memory_is_applied_once_by_whoever_is_first",
    ),
    mutant(
        "a memory that is known already keeps its old date",
        QUERIES,
        "DO UPDATE\n       SET updated_at = now(), quote",
        "DO UPDATE\n       SET quote",
        REMEMBER,
        test=f"{MEMORIES}::test_the_same_memory_again_is_one_memory_the_newest",
    ),
    mutant(
        "a claim that is given back counts as an attempt",
        QUERIES,
        "memory_attempts = greatest(memory_attempts - 1, 0)",
        "memory_attempts = memory_attempts",
        REMEMBER,
        test=f"{MEMORIES}::test_a_claim_that_is_given_back_is_due_at_once_and_costs_no_try",
    ),
    mutant(
        "a late failure undoes memory that is done",
        QUERIES,
        "memory_due_at = now() + make_interval(secs => $3)\n WHERE session_id = $1 AND memory_status = 'pending';",
        "memory_due_at = now() + make_interval(secs => $3)\n WHERE session_id = $1;",
        REMEMBER,
        test=f"{MEMORIES}::test_a_failure_after_the_finish_changes_nothing",
    ),
)

REST = (
    mutant(
        "a resumed conversation shows deleted items",
        QUERIES,
        "WHERE conversation_id = $1 AND deleted_at IS NULL\n     ORDER BY position DESC",
        "WHERE conversation_id = $1\n     ORDER BY position DESC",
        LOST,
        test=f"{STORE}/test_stored_items.py::test_a_deleted_item_stays_in_the_transcript_only",
    ),
    mutant(
        "a resumed conversation begins with its oldest items",
        QUERIES,
        "     ORDER BY position DESC, message_id DESC LIMIT $2\n",
        "     ORDER BY position, message_id LIMIT $2\n",
        LOST,
        test=f"{STORE}/test_conversations.py::test_history_is_the_newest_items_oldest_first_and_only_the_users_own",
    ),
    mutant(
        "a revoked key is still good",
        QUERIES,
        "FROM api_keys WHERE secret_hash = $1 AND revoked_at IS NULL\n",
        "FROM api_keys WHERE secret_hash = $1\n",
        CONTAINED,
        test=f"{CREDENTIALS}::test_a_key_is_found_by_its_hash_until_it_is_revoked",
    ),
    mutant(
        "an expired client secret is still good",
        QUERIES,
        " AND revoked_at IS NULL AND expires_at > now()\n",
        " AND revoked_at IS NULL\n",
        CONTAINED,
        test=f"{CREDENTIALS}::test_an_expired_client_secret_is_not_found_and_ends_nothing",
    ),
    mutant(
        "a client secret outlives the revocation of its key",
        QUERIES,
        "AND revoked_at IS NULL FOR SHARE SKIP LOCKED\n), swept",
        "AND revoked_at IS NULL\n), swept",
        CONTAINED,
        test=f"{LOCKED_ROWS}::test_a_key_that_is_being_revoked_creates_no_client_secret",
    ),
)

MUTANTS = LEASES + REAPING + LEAVING + MEMORY + REST
