"""Mistakes in the outbox of webhooks and in who delivers it, each of which a test has to see."""

from __future__ import annotations

from .mutant import BOUND, CONTAINED, REPORTED, mutant

SCHEMA_SQL, OUTBOX_SQL = "schema.sql", "server/lastcall/store/webhooks/webhooks.sql"
DELIVERER, OUTBOX_PY = "server/lastcall/webhooks/deliverer.py", "server/lastcall/store/webhooks/outbox.py"
SENDING, SIGNING = "server/lastcall/webhooks/sending.py", "server/lastcall/webhooks/signing.py"
OUTBOX, DELIVERIES = "tests/integration/store/test_outbox.py", "tests/integration/webhooks/test_deliveries.py"
BACKOFF, SIGNATURES = "tests/unit/webhooks/test_backoff.py", "tests/unit/webhooks/test_signing.py"
WATCH = "tests/unit/webhooks/test_watch.py"
EVERY_END = f"{OUTBOX}::test_whoever_closes_a_session_it_is_reported_once"
TAKEN_OVER = f"{OUTBOX}::test_a_claim_that_ran_out_is_taken_over_and_its_late_answer_counts"
HELD = f"{OUTBOX}::test_a_delivery_that_somebody_holds_holds_up_no_claim"
BOUNDED_TRIES = f"{OUTBOX}::test_tries_and_age_are_bounded_and_what_failed_is_kept_and_retried"
WAITING = f"{OUTBOX}::test_what_waits_is_sent_at_once_by_a_retry_and_what_is_being_sent_is_not"
MISBEHAVING = f"{DELIVERIES}::test_whatever_a_receiver_does_it_is_tried_again_with_the_same_id"
SIGNED = f"{SIGNATURES}::test_the_example_of_the_specification_is_signed_as_there"
ONE_AT_A_TIME = f"{DELIVERIES}::test_an_endpoint_that_hangs_holds_up_no_other_and_once_it_fails_is_asked_one_at_a_time"

EVENTS = (
    mutant(
        "an end that somebody writes in SQL is not reported",
        SCHEMA_SQL,
        "FOR EACH ROW WHEN (OLD.is_active AND NOT NEW.is_active) EXECUTE FUNCTION report_ended_session();",
        "FOR EACH ROW WHEN (OLD.is_active AND NOT NEW.is_active AND NEW.closed_by IS NOT NULL)"
        " EXECUTE FUNCTION report_ended_session();",
        REPORTED,
        test=EVERY_END,
    ),
    mutant(
        "a session that has ended is reported again with every change",
        SCHEMA_SQL,
        "FOR EACH ROW WHEN (OLD.is_active AND NOT NEW.is_active) EXECUTE FUNCTION report_ended_session();",
        "FOR EACH ROW WHEN (NOT NEW.is_active) EXECUTE FUNCTION report_ended_session();",
        REPORTED,
        test=EVERY_END,
    ),
    mutant(
        "memory that is done is not reported",
        SCHEMA_SQL,
        "    PERFORM report_memories(done);\n",
        "",
        REPORTED,
        test=f"{OUTBOX}::test_finished_memory_is_reported_with_how_much_was_kept",
    ),
    mutant(
        "what is reported again has another id",
        SCHEMA_SQL,
        "md5(its_event || ' ' || session)::uuid",
        "gen_random_uuid()",
        REPORTED,
        test=f"{OUTBOX}::test_what_is_reported_again_after_a_crash_of_the_database_has_the_same_id",
    ),
    mutant(
        "the events of a session have one id",
        SCHEMA_SQL,
        "md5(its_event || ' ' || session)::uuid",
        "md5(session::text)::uuid",
        REPORTED,
        test=f"{OUTBOX}::test_events_of_all_endpoints_and_kinds_differ_where_they_are_others",
    ),
    mutant(
        "events that an endpoint does not want are queued",
        SCHEMA_SQL,
        "FROM webhook_endpoints WHERE its_event = ANY (events) AND removed_at IS NULL;",
        "FROM webhook_endpoints WHERE removed_at IS NULL;",
        BOUND,
        test=f"{OUTBOX}::test_nothing_is_stored_where_nobody_wants_it",
    ),
    mutant(
        "events are queued for an endpoint that was removed",
        SCHEMA_SQL,
        "FROM webhook_endpoints WHERE its_event = ANY (events) AND removed_at IS NULL;",
        "FROM webhook_endpoints WHERE its_event = ANY (events);",
        BOUND,
        test=f"{OUTBOX}::test_nothing_is_stored_where_nobody_wants_it",
    ),
    mutant(
        "whoever changes an endpoint holds up the ends of sessions",
        SCHEMA_SQL,
        "    endpoint_id uuid        NOT NULL,\n    event_id    uuid",
        "    endpoint_id uuid        NOT NULL REFERENCES webhook_endpoints,\n    event_id    uuid",
        BOUND,
        test=f"{OUTBOX}::test_whoever_holds_an_endpoint_holds_up_no_end",
    ),
    mutant(
        "what names an erased user is still sent",
        SCHEMA_SQL,
        "    DELETE FROM webhook_deliveries WHERE user_id = owner; -- last, as ends of sessions write it\n",
        "",
        CONTAINED,
        test=f"{OUTBOX}::test_a_user_is_given_what_was_queued_and_nothing_is_left_once_they_are_erased",
    ),
)

ENDPOINTS = (
    mutant(
        "servers are not told of new endpoints",
        SCHEMA_SQL,
        "    NOTIFY lastcall_webhooks;\n",
        "",
        REPORTED,
        test=f"{OUTBOX}::test_every_server_hears_of_changed_endpoints_whoever_changes_them",
    ),
    mutant(
        "a server without endpoints looks for deliveries",
        DELIVERER,
        "deliveries.start_soon(_deliver_where_wanted, store, metrics, watch)",
        "deliveries.start_soon(Deliverer(store, metrics).run)",
        BOUND,
        test=f"{WATCH}::test_a_server_without_endpoints_asks_one_question_a_minute",
    ),
)

CLAIMS = (
    mutant(
        "a delivery that is being sent is claimed again",
        OUTBOX_SQL,
        "state = 'pending' AND due_at <= now()\n",
        "state = 'pending' AND due_at <= now() + interval '1 hour'\n",
        REPORTED,
        test=TAKEN_OVER,
    ),
    mutant(
        "a claim of a delivery lasts for ever",
        OUTBOX_SQL,
        "SET due_at = now() + make_interval(secs => $5), attempts",
        "SET due_at = now() + make_interval(secs => $5 + 7200), attempts",
        REPORTED,
        test=TAKEN_OVER,
    ),
    mutant(
        "a claim of a delivery is not counted",
        OUTBOX_SQL,
        "attempts = attempts + 1\n",
        "attempts = attempts\n",
        BOUND,
        test=BOUNDED_TRIES,
    ),
    mutant(
        "a claim waits for a new delivery that is locked",
        OUTBOX_SQL,
        "LIMIT endpoint.room FOR UPDATE SKIP LOCKED) fresh",
        "LIMIT endpoint.room FOR UPDATE) fresh",
        BOUND,
        test=HELD,
    ),
    mutant(
        "a claim waits for a failed delivery that is locked",
        OUTBOX_SQL,
        "LIMIT endpoint.room FOR UPDATE SKIP LOCKED) again",
        "LIMIT endpoint.room FOR UPDATE) again",
        BOUND,
        test=HELD,
    ),
    mutant(
        "what was never tried waits for a clock that was set back",
        OUTBOX_SQL,
        "AND state = 'pending' AND due_at IS NULL\n",
        "AND state = 'pending' AND created_at <= now() AND due_at IS NULL\n",
        REPORTED,
        test=f"{OUTBOX}::test_a_clock_that_was_set_back_strands_nothing",
    ),
    mutant(
        "what waits is stranded by a clock that is set back",
        OUTBOX_SQL,
        "AND due_at > now() + make_interval(secs => $6)\n",
        "AND due_at > 'infinity'::timestamptz - make_interval(secs => $6)\n",
        REPORTED,
        test=f"{OUTBOX}::test_a_clock_that_was_set_back_strands_nothing",
    ),
    mutant(
        "an event is sent that a crash of the database can take back",
        OUTBOX_SQL,
        "SELECT claimed.*, url, secret,",
        "SELECT set_config('synchronous_commit', 'off', true), claimed.*, url, secret,",
        REPORTED,
        test=f"{OUTBOX}::test_what_is_sent_no_crash_of_the_database_takes_back",
    ),
    mutant(
        "an endpoint takes the room of another one",
        OUTBOX_SQL,
        "coalesce(room, $2::integer) AS room",
        "$2::integer AS room",
        BOUND,
        test=f"{OUTBOX}::test_each_endpoint_has_room_of_its_own",
    ),
    mutant(
        "what failed comes before what was never tried",
        OUTBOX_SQL,
        "AND state = 'pending' AND due_at IS NULL\n",
        "AND state = 'pending' AND due_at IS NULL AND NOT EXISTS (SELECT FROM webhook_deliveries o"
        " WHERE o.endpoint_id = endpoint.endpoint_id AND o.state = 'pending' AND o.due_at <= now())\n",
        BOUND,
        test=f"{OUTBOX}::test_what_was_never_tried_comes_before_what_failed",
    ),
    mutant(
        "a claim that is given back counts as a try",
        OUTBOX_SQL,
        "SET due_at = NULL, attempts = d.attempts - 1",
        "SET due_at = NULL, attempts = d.attempts",
        REPORTED,
        test=f"{OUTBOX}::test_claims_are_given_back_as_if_they_had_not_been",
    ),
    mutant(
        "a server that ends keeps its claims",
        DELIVERER,
        "                    await self._release([*self._claims.values()])\n",
        "                    pass\n",
        BOUND,
        test=f"{DELIVERIES}::test_a_shutdown_gives_back_what_is_being_sent",
    ),
    mutant(
        "an endpoint that fails takes four sends at once",
        DELIVERER,
        "1 if each in self._failing else ENDPOINT_SENDS_MAX for each",
        "ENDPOINT_SENDS_MAX for each",
        BOUND,
        test=ONE_AT_A_TIME,
    ),
    mutant(
        "what is being sent does not count towards an endpoint's room",
        DELIVERER,
        "max(sends - busy[each], 0)",
        "max(sends, 0)",
        BOUND,
        test=ONE_AT_A_TIME,
    ),
)

OUTCOMES = (
    mutant(
        "a failure counts although another server is trying",
        OUTBOX_SQL,
        "(attempts = $2 OR $3)",
        "(true OR attempts = $2 OR $3)",
        REPORTED,
        test=TAKEN_OVER,
    ),
    mutant(
        "an acceptance that comes late does not count",
        OUTBOX_SQL,
        "(attempts = $2 OR $3)",
        "attempts = $2",
        BOUND,
        test=TAKEN_OVER,
    ),
    mutant(
        "a delivery is tried for ever",
        OUTBOX_SQL,
        "WHEN attempts >= $7 OR tried_since",
        "WHEN attempts >= $7 + 100 OR tried_since",
        BOUND,
        test=BOUNDED_TRIES,
    ),
    mutant(
        "a delivery is tried however old it is",
        OUTBOX_SQL,
        "OR tried_since < now() - make_interval(secs => $8) THEN",
        "OR tried_since < now() - make_interval(secs => $8 * 100) THEN",
        BOUND,
        test=BOUNDED_TRIES,
    ),
    mutant(
        "what failed is tried again at once",
        OUTBOX_SQL,
        "error = $5, due_at = now() + make_interval(secs => $6),",
        "error = $5, due_at = now() + make_interval(secs => $6 * 0),",
        BOUND,
        test=WAITING,
    ),
    mutant(
        "waits between tries do not grow",
        DELIVERER,
        "BACKOFF_FACTOR = 3\n",
        "BACKOFF_FACTOR = 1\n",
        BOUND,
        test=f"{BACKOFF}::test_waits_grow_from_seconds_to_hours_and_no_further",
    ),
    mutant(
        "waits between tries grow to years",
        DELIVERER,
        "    return min(seconds, BACKOFF_SECONDS_MAX) * random",
        "    return min(seconds, BACKOFF_SECONDS_MAX * 10_000) * random",
        REPORTED,
        test=f"{BACKOFF}::test_waits_grow_from_seconds_to_hours_and_no_further",
    ),
    mutant(
        "a redirect counts as an acceptance",
        SENDING,
        "if 200 <= status < 300:\n",
        "if 200 <= status < 400:\n",
        REPORTED,
        test=MISBEHAVING,
    ),
    mutant(
        "an answer counts whatever it says",
        SENDING,
        "if 200 <= status < 300:\n",
        "if 200 <= status < 600:\n",
        REPORTED,
        test=MISBEHAVING,
    ),
    mutant(
        "a retry leaves alone what was given up",
        OUTBOX_SQL,
        "AND (state = 'failed' OR (state = 'pending' AND due_at >",
        "AND ((state = 'pending' AND due_at >",
        REPORTED,
        test=BOUNDED_TRIES,
    ),
)

SIGNATURE = (
    mutant(
        "a signature does not depend on its time",
        SIGNING,
        'f"{message_id}.{timestamp}.".encode() + body',
        'f"{message_id}.".encode() + body',
        CONTAINED,
        test=SIGNED,
    ),
    mutant(
        "a signature does not depend on the body",
        SIGNING,
        'f"{message_id}.{timestamp}.".encode() + body',
        'f"{message_id}.{timestamp}.".encode()',
        CONTAINED,
        test=SIGNED,
    ),
    mutant(
        "a signature is made with the secret as it is shown",
        SIGNING,
        "hmac.digest(secret, f",
        "hmac.digest(secret_text(secret).encode(), f",
        REPORTED,
        test=SIGNED,
    ),
)

MUTANTS = EVENTS + ENDPOINTS + CLAIMS + OUTCOMES + SIGNATURE
