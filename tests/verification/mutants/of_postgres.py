"""Mistakes in `store/postgres/`, each of which a test on PostgreSQL has to see."""

from __future__ import annotations

from .mutant import BOUND, CONTAINED, END, GHOST, LOST, ORPHAN, SWEPT, mutant

POSTGRES = "server/lastcall/store/postgres"
LEASE, CALLS, CONNECTIONS = f"{POSTGRES}/lease.py", f"{POSTGRES}/calls.py", f"{POSTGRES}/connections.py"
BATCH, WRITES, COMMITS = f"{POSTGRES}/batch.py", f"{POSTGRES}/writes.py", "server/lastcall/store/commits.py"
STORE, OUTAGE = "tests/integration/store", "tests/system/test_outage.py"
LEASE_TESTS, CALL_TESTS = f"{STORE}/test_lease.py", "tests/unit/store/test_calls.py"
LOOP, LOOP_TESTS = f"{POSTGRES}/loop.py", "tests/unit/store/test_loop.py"
COMMIT_TESTS = "tests/unit/store/test_commits.py"
WRITE_TWICE = f"{STORE}/test_batches.py::test_of_two_ends_in_one_batch_the_first_is_the_end"
CUT = f"{STORE}/test_trouble.py::test_what_is_acknowledged_while_connections_are_cut_is_stored_once"

LEASES = (
    mutant(
        "only the first lease connection listens",
        LEASE,
        "        await _call(self._loop, self._connection.add_listener, channel, self._on_notification)\n",
        "        if not hasattr(PostgresLeaseConnection, channel):\n"
        "            setattr(PostgresLeaseConnection, channel, True)\n"
        "            await _call(self._loop, self._connection.add_listener, channel, self._on_notification)\n",
        GHOST,
        test=f"{LEASE_TESTS}::test_a_lease_connection_that_replaces_another_hears_of_closed_rows",
    ),
    mutant(
        "notifications beyond the limit are forgotten",
        LEASE,
        "            self._overflowed = True\n",
        "            pass\n",
        GHOST,
        test=f"{LEASE_TESTS}::test_more_notifications_than_are_kept_ask_for_a_look_at_all_rows",
    ),
    mutant(
        "an overflow of notifications is told for ever",
        LEASE,
        "overflowed, self._overflowed = self._overflowed, False",
        "overflowed = self._overflowed",
        BOUND,
        test=f"{LEASE_TESTS}::test_more_notifications_than_are_kept_ask_for_a_look_at_all_rows",
    ),
    mutant(
        "notifications are not news",
        LEASE,
        "            self._overflowed = True\n        self._news.set()\n",
        "            self._overflowed = True\n",
        GHOST,
        test=f"{LEASE_TESTS}::test_a_lease_connection_that_replaces_another_hears_of_closed_rows",
    ),
    mutant(
        "a lease connection that is cut is not news",
        LEASE,
        "        self._connection.add_termination_listener(lambda _: self._news.set())\n",
        "",
        ORPHAN,
        test=f"{LEASE_TESTS}::test_a_lease_connection_that_is_cut_is_news_at_once",
    ),
    mutant(
        "a lease connection does without the lock",
        LEASE,
        "        if not self._locked:\n",
        "        if False:\n",
        ORPHAN,
        test=f"{LEASE_TESTS}::test_a_lease_is_renewed_while_an_earlier_connection_still_has_its_lock",
    ),
    mutant(
        "a lease connection that is left stays open",
        LEASE,
        "        connection.terminate()\n",
        "        pass\n",
        ORPHAN,
        test=f"{LEASE_TESTS}::test_a_lease_connection_that_replaces_another_hears_of_closed_rows",
    ),
    mutant(
        "a heartbeat is a single statement",
        LEASE,
        "    async with connection.transaction():\n",
        "    if True:\n",
        GHOST,
        test=f"{OUTAGE}::test_a_heartbeat_that_a_frozen_database_was_sent_by_the_dead_is_none",
    ),
    mutant(
        "an attempt to connect that hangs holds up the next",
        LEASE,
        "ATTEMPTS_MAX = 8",
        "ATTEMPTS_MAX = 1",
        SWEPT,
        test=f"{LEASE_TESTS}::test_an_attempt_that_hangs_does_not_delay_the_next",
    ),
    mutant(
        "an odd failure of the lease connection is not transient",
        LEASE,
        "        raise StoreUnavailable(str(error)) from error\n",
        "        raise\n",
        ORPHAN,
        test=f"{LEASE_TESTS}::test_whatever_fails_on_a_lease_connection_asks_for_another",
    ),
)

CALLS_AND_CONNECTIONS = (
    mutant(
        "a call has no bound",
        CALLS,
        "timer = loop.asyncio.call_later(seconds, call.wake)",
        "timer = loop.asyncio.call_later(1e6, call.wake)",
        BOUND,
        test=f"{CALL_TESTS}::test_a_call_is_abandoned_at_its_bound",
    ),
    mutant(
        "a call that is abandoned goes on",
        CALLS,
        "            task.cancel()  # has no effect where it has ended\n",
        "",
        BOUND,
        test=f"{CALL_TESTS}::test_a_call_is_abandoned_at_its_bound",
    ),
    mutant(
        "a call that nobody waits for is begun",
        CALLS,
        "    await trio.lowlevel.checkpoint_if_cancelled()\n",
        "",
        BOUND,
        test=f"{CALL_TESTS}::test_a_caller_that_is_cancelled_already_begins_nothing",
    ),
    mutant(
        "an answer is read in whichever loop was opened last",
        LOOP,
        "        trio_asyncio.current_loop.set(self.asyncio)  # whoever",
        "        # whoever",
        CONTAINED,
        test=f"{LOOP_TESTS}::test_an_answer_is_read_in_its_own_loop_though_another_was_opened_since",
    ),
    mutant(
        "callbacks that lead to others starve the server",
        LOOP,
        "            for _ in range(HANDLES_MAX):\n",
        "            while True:\n",
        BOUND,
        test=f"{LOOP_TESTS}::test_callbacks_that_lead_to_others_leave_other_tasks_their_turn",
    ),
    mutant(
        "cancelled timers are kept until their time",
        LOOP,
        "        if self._timers_cancelled > max(TIMERS_CANCELLED_MAX",
        "        if self._timers_cancelled > max(10**9",
        BOUND,
        test=f"{LOOP_TESTS}::test_cancelled_timers_are_dropped_before_their_time",
    ),
    mutant(
        "a call that was abandoned failed for good",
        CALLS,
        'raise StoreUnavailable(f"the database did not answer',
        'raise StoreError(f"the database did not answer',
        ORPHAN,
        test=f"{CALL_TESTS}::test_a_call_is_abandoned_at_its_bound",
    ),
    *(
        mutant(name, CALLS, old, new, promise, test=f"{CALL_TESTS}::{test}")
        for name, old, new, promise, test in (
            (
                "a lost connection is no reason to retry",
                'code[:2] in ("08", "53")',
                'code[:2] in ("53",)',
                ORPHAN,
                "test_failures_that_may_pass_are_told_from_others",
            ),
            (
                "a database without room is no reason to retry",
                'code[:2] in ("08", "53")',
                'code[:2] in ("08",)',
                ORPHAN,
                "test_failures_that_may_pass_are_told_from_others",
            ),
            (
                "a deadlock is no reason to retry",
                '"40P01", ',
                "",
                ORPHAN,
                "test_failures_that_may_pass_are_told_from_others",
            ),
            (
                "a timeout is no reason to retry",
                "asyncpg.InternalClientError | OSError)",
                "asyncpg.InternalClientError)",
                ORPHAN,
                "test_failures_that_may_pass_are_told_from_others",
            ),
            (
                "a closed connection is no reason to retry",
                "isinstance(error, asyncpg.InterfaceError | asyncpg.",
                "isinstance(error, asyncpg.",
                ORPHAN,
                "test_failures_that_may_pass_are_told_from_others",
            ),
            (
                "every failure is retried",
                "return code[:2] in",
                "return True or code[:2] in",
                BOUND,
                "test_failures_that_may_pass_are_told_from_others",
            ),
            (
                "a row that fits no index fails its whole batch",
                "    asyncpg.ProgramLimitExceededError,\n",
                "",
                CONTAINED,
                "test_failures_that_may_pass_are_told_from_others",
            ),
            (
                "text that cannot be stored fails its whole batch",
                "    UnicodeError,\n",
                "",
                CONTAINED,
                "test_failures_that_may_pass_are_told_from_others",
            ),
            (
                "an item whose id is taken is an invalid row like others",
                'error.constraint_name == "item_once_per_conversation"',
                'error.constraint_name == "no_such_constraint"',
                LOST,
                "test_failures_that_may_pass_are_told_from_others",
            ),
        )
    ),
    mutant(
        "a connection that failed is lent again as it is",
        CONNECTIONS,
        "                    await self._pool.release(connection)\n                raise\n",
        "                    self._idle.append((connection, _now()))\n                raise\n",
        CONTAINED,
        test=f"{STORE}/test_pool.py::test_a_connection_that_failed_is_lent_again_in_good_order",
    ),
    mutant(
        "a connection that is closed is lent",
        CONNECTIONS,
        "            if not _is_open(connection):\n",
        "            if False:\n",
        CONTAINED,
        test=f"{STORE}/test_pool.py::test_a_connection_that_was_cut_while_idle_is_not_lent",
    ),
    mutant(
        "a connection that is not used any more is never free",
        CONNECTIONS,
        "        finally:\n            self._free.release()\n",
        "        finally:\n            pass\n",
        BOUND,
        test=f"{STORE}/test_pool.py::test_calls_that_are_cancelled_leave_their_connections_to_others",
    ),
    mutant(
        "readers take all connections",
        CONNECTIONS,
        "trio.CapacityLimiter(CONNECTIONS - CONNECTIONS_FOR_WRITES)",
        "trio.CapacityLimiter(100 * CONNECTIONS)",
        BOUND,
        test=f"{STORE}/test_pool.py::test_readers_leave_connections_for_writes",
    ),
)

WRITING = (
    mutant(
        "a bulk close is not one transaction with the items before it",
        WRITES,
        "        if not batch.needs_transaction:\n",
        "        if True:\n",
        END,
        test=f"{STORE}/test_batches.py::test_items_stored_with_a_bulk_close_do_not_date_it",
    ),
    mutant(
        "unfinished items that are refused prevent the end",
        WRITES,
        "            if isinstance(failure, InvalidRow):\n",
        "            if isinstance(failure, InvalidRow) and (_ for _ in ()).throw(failure):\n",
        ORPHAN,
        test=f"{STORE}/test_ends.py::test_unsaid_words_that_cannot_be_stored_do_not_prevent_the_end",
    ),
    mutant(
        "a batch that came too late counts as stored",
        BATCH,
        "        if not answer.fresh:\n",
        "        if False:\n",
        LOST,
        test=f"{STORE}/test_clock.py::test_a_batch_that_was_sent_at_another_time_than_it_says_stores_nothing",
    ),
    mutant(
        "a batch stores an item before the deletion that frees its id",
        "server/lastcall/store/rounds.py",
        "            if freed.get(session_id, set()) & {item.item_id for item in items}:\n",
        "            if False:\n",
        LOST,
        test=f"{STORE}/test_batches.py::test_a_batch_keeps_the_order_of_items_and_deletions_of_one_id",
    ),
    mutant(
        "the statements of a batch are no transaction",
        BATCH,
        "return bool(self.leaving) or len(self._rounds) > 1",
        "return bool(self.leaving)",
        LOST,
        test=f"{STORE}/test_batches.py::test_a_batch_that_fails_in_its_second_statement_stores_nothing",
    ),
    mutant(
        "a second end is answered like the first",
        BATCH,
        "if ended and self._first[end.session_id] is end else NONE",
        "if ended else NONE",
        END,
        test=WRITE_TWICE,
    ),
    mutant(
        "of two ends the later one counts",
        BATCH,
        "for end in reversed(ends)}",
        "for end in ends}",
        END,
        test=WRITE_TWICE,
    ),
    mutant(
        "a row that is locked is not tried again",
        BATCH,
        '    return StoreUnavailable("the row of the session',
        '    return SessionClosed("the row of the session',
        LOST,
        test=f"{OUTAGE}::test_a_row_that_somebody_holds_holds_up_no_other_session",
    ),
    mutant(
        "a bad row takes half of its batch along",
        COMMITS,
        "                await self._settle_batch(attempts, entries[middle:])\n",
        "                for entry in entries[middle:]:\n                    entry.settle(error)\n",
        LOST,
        test=f"{STORE}/test_stored_items.py::test_one_bad_row_among_many_concurrent_ones_fails_alone",
    ),
    mutant(
        "a transient failure of a commit is final",
        COMMITS,
        "            retry=retry_if_exception_type(StoreUnavailable),\n",
        "            retry=retry_if_exception_type(KeyError),\n",
        LOST,
        test=CUT,
    ),
)

MUTANTS = LEASES + CALLS_AND_CONNECTIONS + WRITING
