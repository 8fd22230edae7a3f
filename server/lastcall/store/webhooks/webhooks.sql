-- Endpoints of webhooks, and the outbox of deliveries. Of each act, the first three parameters say who, as in operators.sql.

-- name: has_endpoints
SELECT EXISTS (SELECT FROM webhook_endpoints) AS there;

-- name: claim_deliveries
-- Deliveries that are due, for up to $1 endpoints; for each up to $2, but for the endpoints $3 up to $4. Nobody else gets
-- them for $5 seconds. Those that were never tried come first. What is due later than $6 seconds from now, the longest
-- wait, was due before the clock was set back. Unlike other claims, this one waits for the disk, and so do the events that
-- it takes: one that a crash could still take back would be reported again in other words, under the same id.
WITH endpoint AS MATERIALIZED (
    SELECT endpoint_id, url, secret, coalesce(room, $2::integer) AS room
      FROM (SELECT * FROM webhook_endpoints WHERE removed_at IS NULL ORDER BY created_at, endpoint_id LIMIT $1) e
      LEFT JOIN unnest($3::uuid[], $4::integer[]) AS known (endpoint_id, room) USING (endpoint_id)
), due AS MATERIALIZED (
    SELECT delivery_id FROM endpoint CROSS JOIN LATERAL (
        SELECT * FROM (SELECT delivery_id FROM webhook_deliveries d
                        WHERE d.endpoint_id = endpoint.endpoint_id AND state = 'pending' AND due_at IS NULL
                        LIMIT endpoint.room FOR UPDATE SKIP LOCKED) fresh
        UNION ALL
        SELECT * FROM (SELECT delivery_id FROM webhook_deliveries d
                        WHERE d.endpoint_id = endpoint.endpoint_id AND state = 'pending' AND due_at <= now()
                        ORDER BY due_at LIMIT endpoint.room FOR UPDATE SKIP LOCKED) again
        UNION ALL
        SELECT * FROM (SELECT delivery_id FROM webhook_deliveries d
                        WHERE d.endpoint_id = endpoint.endpoint_id AND state = 'pending'
                          AND due_at > now() + make_interval(secs => $6)
                        LIMIT endpoint.room FOR UPDATE SKIP LOCKED) stranded
        LIMIT endpoint.room) one_endpoint
), claimed AS (
    UPDATE webhook_deliveries SET due_at = now() + make_interval(secs => $5), attempts = attempts + 1
     WHERE delivery_id = ANY (ARRAY (SELECT delivery_id FROM due))
    RETURNING delivery_id, endpoint_id, event_id, event, body, attempts
)
SELECT claimed.*, url, secret, extract(epoch FROM now())::double precision AS claimed_at
  FROM claimed JOIN endpoint USING (endpoint_id) ORDER BY delivery_id;

-- name: settle_delivery
-- What came of the try $2 of the delivery $1: $3: it was accepted, $4: status, $5: error. Not accepted, it is due again in
-- $6 seconds, or failed for good after $7 tries or $8 seconds. An acceptance counts although the claim ran out.
-- unhurried: as in claim_memory; an outcome that a crash takes back is found out again.
WITH unhurried AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true)
), judged AS MATERIALIZED (
    SELECT delivery_id, CASE WHEN $3 THEN 'delivered'
                             WHEN attempts >= $7 OR tried_since < now() - make_interval(secs => $8) THEN 'failed'
                             ELSE 'pending' END AS verdict
      FROM unhurried CROSS JOIN webhook_deliveries WHERE delivery_id = $1 AND state = 'pending' AND (attempts = $2 OR $3)
       FOR NO KEY UPDATE OF webhook_deliveries
)
UPDATE webhook_deliveries d
   SET state = verdict, status = $4, error = $5, due_at = now() + make_interval(secs => $6),
       finished_at = CASE WHEN verdict <> 'pending' THEN now() END
  FROM judged WHERE d.delivery_id = judged.delivery_id RETURNING state;

-- name: release_deliveries
-- Gives claims back; the try does not count.
UPDATE webhook_deliveries d SET due_at = NULL, attempts = d.attempts - 1
  FROM unnest($1::bigint[], $2::integer[]) AS claim (delivery_id, attempts)
 WHERE d.delivery_id = claim.delivery_id AND d.attempts = claim.attempts AND state = 'pending';

-- name: delete_old_deliveries
-- Up to $1 of each kind: delivered ones $2 seconds after that, failed ones after $3, and those of removed endpoints; an
-- endpoint goes an hour after its removal, when every transaction that knew it is over.
WITH delivered AS MATERIALIZED (
    SELECT delivery_id FROM webhook_deliveries WHERE state = 'delivered' AND finished_at < now() - make_interval(secs => $2)
     ORDER BY finished_at LIMIT $1 FOR UPDATE SKIP LOCKED
), failed AS MATERIALIZED (
    SELECT delivery_id FROM webhook_deliveries WHERE state = 'failed' AND finished_at < now() - make_interval(secs => $3)
     ORDER BY finished_at LIMIT $1 FOR UPDATE SKIP LOCKED
), removed AS MATERIALIZED (
    SELECT delivery_id FROM webhook_deliveries
     WHERE endpoint_id = ANY (ARRAY (SELECT endpoint_id FROM webhook_endpoints WHERE removed_at IS NOT NULL))
       AND EXISTS (SELECT FROM webhook_endpoints WHERE removed_at IS NOT NULL) -- else there is nothing to look through
     LIMIT $1 FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM webhook_endpoints WHERE removed_at < now() - interval '1 hour' AND NOT EXISTS (SELECT FROM removed)
)
DELETE FROM webhook_deliveries WHERE delivery_id = ANY (ARRAY (
    SELECT delivery_id FROM delivered UNION SELECT delivery_id FROM failed UNION SELECT delivery_id FROM removed))
RETURNING delivery_id;

-- name: webhook_backlog
-- Counts up to $1 of each.
SELECT (SELECT count(*) FROM (SELECT FROM webhook_deliveries WHERE state = 'pending' LIMIT $1) p) AS pending,
       (SELECT count(*) FROM (SELECT FROM webhook_deliveries WHERE state = 'failed' LIMIT $1) f) AS failed,
       (SELECT greatest(extract(epoch FROM now() - min(created_at)), 0)::double precision
          FROM (SELECT created_at FROM webhook_deliveries WHERE state = 'pending' LIMIT $1) p) AS oldest_seconds;

-- name: list_endpoints
-- At most $1, and of each up to $2 deliveries are counted.
SELECT e.endpoint_id, url, events, created_at,
       (SELECT count(*) FROM (SELECT FROM webhook_deliveries d WHERE d.endpoint_id = e.endpoint_id AND state = 'pending'
                               LIMIT $2) p) AS pending,
       (SELECT count(*) FROM (SELECT FROM webhook_deliveries d WHERE d.endpoint_id = e.endpoint_id AND state = 'failed'
                               LIMIT $2) f) AS failed
  FROM webhook_endpoints e WHERE removed_at IS NULL ORDER BY created_at, endpoint_id LIMIT $1;

-- name: add_endpoint
-- $4: id, $5: URL, $6: events, $7: secret, $8: how many endpoints there may be. No row: there are as many. The log has the
-- host and not the URL, which may hold a secret of the receiver.
WITH added AS (
    INSERT INTO webhook_endpoints (endpoint_id, url, events, secret)
    SELECT $4, $5, $6::text[], $7 WHERE (SELECT count(*) FROM webhook_endpoints WHERE removed_at IS NULL) < $8
    ON CONFLICT (endpoint_id) DO NOTHING RETURNING endpoint_id, events
), noted AS (
    INSERT INTO audit_log (actor, credential_id, via, action, target, details)
    SELECT $1, $2, $3, 'webhook.add', endpoint_id::text, jsonb_build_object(
               'host', substring($5::text FROM '://([^/?#]*)'), 'events', array_to_string(events, ' ')) FROM added
)
SELECT endpoint_id FROM added;

-- name: remove_endpoint
-- No row: there is no such endpoint.
WITH removed AS (
    UPDATE webhook_endpoints SET removed_at = now() WHERE endpoint_id = $4 AND removed_at IS NULL RETURNING endpoint_id
), noted AS (
    INSERT INTO audit_log (actor, credential_id, via, action, target)
    SELECT $1, $2, $3, 'webhook.remove', endpoint_id::text FROM removed
)
SELECT endpoint_id FROM removed;

-- name: queue_test
-- No row: there is no such endpoint.
WITH queued AS (
    INSERT INTO webhook_deliveries (endpoint_id, event_id, event, body)
    SELECT endpoint_id, gen_random_uuid(), 'webhook.test', event_body('webhook.test', '{}')
      FROM webhook_endpoints WHERE endpoint_id = $4 AND removed_at IS NULL
    RETURNING delivery_id, endpoint_id, event_id
), noted AS (
    INSERT INTO audit_log (actor, credential_id, via, action, target)
    SELECT $1, $2, $3, 'webhook.test', endpoint_id::text FROM queued
)
SELECT delivery_id, event_id FROM queued;

-- name: list_deliveries
-- The newest, before delivery $1, only of the endpoint $2, the state $3, and only the one $4; NULL: all. $5: limit.
SELECT delivery_id, d.endpoint_id, url, event_id, event, session_id, user_id, state, attempts, due_at, d.created_at,
       finished_at, status, error
  FROM webhook_deliveries d JOIN webhook_endpoints e USING (endpoint_id)
 WHERE ($1::bigint IS NULL OR delivery_id < $1) AND ($2::uuid IS NULL OR d.endpoint_id = $2)
   AND ($3::text IS NULL OR state = $3) AND ($4::bigint IS NULL OR delivery_id = $4) AND removed_at IS NULL
 ORDER BY delivery_id DESC LIMIT $5;

-- name: export_deliveries
SELECT event, event_id, body, state, attempts, created_at, finished_at, session_id
  FROM webhook_deliveries WHERE user_id = $1 ORDER BY delivery_id;

-- name: retry_deliveries
-- $4: only this one, $5: only of this endpoint; NULL: all. $6: at most so many. Failed ones, and those that wait for longer
-- than a claim, $7 seconds, lasts. Rows that are locked are left out.
WITH free AS MATERIALIZED (
    SELECT delivery_id FROM webhook_deliveries
     WHERE ($4::bigint IS NULL OR delivery_id = $4) AND ($5::uuid IS NULL OR endpoint_id = $5)
       AND (state = 'failed' OR (state = 'pending' AND due_at > now() + make_interval(secs => $7)))
     ORDER BY delivery_id LIMIT $6 FOR UPDATE SKIP LOCKED
), retried AS (
    UPDATE webhook_deliveries
       SET state = 'pending', attempts = 0, due_at = NULL, tried_since = now(), finished_at = NULL
     WHERE delivery_id = ANY (ARRAY (SELECT delivery_id FROM free)) RETURNING delivery_id
), noted AS (
    INSERT INTO audit_log (actor, credential_id, via, action, target, details)
    SELECT $1, $2, $3, 'webhook.retry', coalesce($4::text, $5::text, 'all'), jsonb_build_object('deliveries', count(*))
      FROM retried HAVING count(*) > 0
)
SELECT delivery_id FROM retried;
