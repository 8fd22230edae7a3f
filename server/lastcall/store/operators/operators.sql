-- What operators do, each with its line in the audit log in the same statement, and what the console shows.
-- Of each act, the first three parameters say who: actor, credential, way.

-- name: close_session
-- $4: the session, $5: what is told to its user, or NULL. Dated now, since the operator has just seen it active.
WITH closed AS (
    UPDATE conversation_sessions SET is_active = false WHERE session_id = $4 AND is_active
    RETURNING session_id, user_id, session_start, session_end, duration_seconds, end_reason
), noted AS (
    INSERT INTO audit_log (actor, credential_id, via, action, target, details)
    SELECT $1, $2, $3, 'session.close', session_id::text, jsonb_build_object('reason', $5::text) FROM closed
)
SELECT * FROM closed;

-- name: retry_memories
-- $4: only of this user, $5: only of this session; NULL: of all. Rows that are locked are left out.
WITH free AS MATERIALIZED (
    SELECT session_id FROM conversation_sessions
     WHERE memory_status = 'failed' AND ($4::text IS NULL OR user_id = $4) AND ($5::uuid IS NULL OR session_id = $5)
       FOR NO KEY UPDATE SKIP LOCKED
), retried AS (
    UPDATE conversation_sessions SET memory_status = 'pending', memory_attempts = 0, memory_due_at = now()
     WHERE session_id IN (SELECT session_id FROM free) AND memory_status = 'failed'
    RETURNING session_id
), noted AS (
    INSERT INTO audit_log (actor, credential_id, via, action, target, details)
    SELECT $1, $2, $3, 'memory.retry', coalesce($5::text, audit_name($4), 'all'),
           jsonb_build_object('sessions', count(*)) FROM retried HAVING count(*) > 0
)
SELECT session_id FROM retried;

-- name: forget_memory_of_user
-- $4: a memory, whoever's it is; $5: only if it is of this user; NULL: of any. No row: there is none.
WITH known AS MATERIALIZED (
    SELECT user_id FROM user_memories WHERE memory_id = $4 AND ($5::text IS NULL OR user_id = $5)
), forgotten AS MATERIALIZED (
    SELECT user_id, forget_memories(user_id, ARRAY[$4::bigint]) AS memories FROM known
), noted AS (
    INSERT INTO audit_log (actor, credential_id, via, action, target, details)
    SELECT $1, $2, $3, 'memory.forget', audit_name(user_id), jsonb_build_object('memory', $4::bigint) FROM forgotten
     WHERE memories > 0 -- else somebody else was faster
)
SELECT user_id FROM forgotten WHERE memories > 0;

-- name: create_key
-- $4: key, $5: subject, $6: scope, $7: prefix, $8: hash.
WITH made AS (
    INSERT INTO api_keys (key_id, subject, scope, prefix, secret_hash) VALUES ($4, $5, $6, $7, $8)
    ON CONFLICT (key_id) DO NOTHING RETURNING key_id
)
INSERT INTO audit_log (actor, credential_id, via, action, target, details)
SELECT $1, $2, $3, 'key.create', key_id::text, jsonb_build_object('scope', $6::text, 'prefix', $7::text) FROM made;

-- name: revoke_credential
-- $4: a key, a client secret or a link; the cookie that it was traded for goes with it. No row: no such id.
-- closed_sessions: counted at the beginning of the statement.
WITH mine AS MATERIALIZED (
    SELECT count(*) AS closed_sessions FROM conversation_sessions WHERE is_active AND credential_id IN (
        SELECT $4 UNION ALL SELECT secret_id FROM client_secrets WHERE key_id = $4
        UNION ALL SELECT secret_id FROM client_secrets WHERE link_id = $4)
), key AS (
    UPDATE api_keys SET revoked_at = now() WHERE key_id = $4 RETURNING key_id AS id, revoked_at
), secret AS (
    UPDATE client_secrets SET revoked_at = now() WHERE secret_id = $4 RETURNING secret_id AS id, revoked_at
), revoked AS (
    SELECT * FROM key UNION ALL SELECT * FROM secret
), noted AS (
    INSERT INTO audit_log (actor, credential_id, via, action, target, details)
    SELECT $1, $2, $3, 'key.revoke', id::text, jsonb_build_object('sessions', closed_sessions) FROM revoked, mine
     WHERE revoked_at = now() -- else it was revoked before
)
SELECT id, revoked_at, closed_sessions FROM revoked, mine;

-- name: create_link
-- $4: link, $5: user, $6: hash, $7: seconds until it expires.
WITH made AS (
    INSERT INTO client_secrets (secret_id, user_id, secret_hash, expires_at, form, origin)
    VALUES ($4, $5, $6, now() + make_interval(secs => $7), 'link', 'operator')
    ON CONFLICT (secret_id) DO NOTHING RETURNING secret_id
)
INSERT INTO audit_log (actor, credential_id, via, action, target, details)
SELECT $1, $2, $3, 'link.create', audit_name($5), jsonb_build_object('id', secret_id) FROM made;

-- name: sign_out_user
-- $4: user. Of their browsers and links; keys and client secrets stay. browsers: how many were signed in. Links that were
-- used go too: one of them may just be signing a browser in.
WITH mine AS MATERIALIZED (
    SELECT secret_id, form, used_at FROM client_secrets
     WHERE user_id = $4 AND form IN ('cookie', 'link') AND revoked_at IS NULL AND expires_at > now()
), counted AS MATERIALIZED (
    SELECT (SELECT count(*) FROM mine WHERE form = 'cookie') AS browsers,
           (SELECT count(*) FROM mine WHERE form = 'link' AND used_at IS NULL) AS links,
           (SELECT count(*) FROM conversation_sessions WHERE is_active
               AND credential_id IN (SELECT secret_id FROM mine)) AS closed_sessions
), ended AS (
    UPDATE client_secrets SET revoked_at = now()
     WHERE secret_id IN (SELECT secret_id FROM mine) AND revoked_at IS NULL
), noted AS (
    INSERT INTO audit_log (actor, credential_id, via, action, target, details)
    SELECT $1, $2, $3, 'user.sign_out', audit_name($4), to_jsonb(counted) FROM counted WHERE browsers + links > 0
)
SELECT browsers, links, closed_sessions FROM counted;

-- name: erase_user
WITH name AS MATERIALIZED (
    SELECT audit_name($4) AS target
), gone AS MATERIALIZED (
    SELECT erase_user($4) AS erased
), noted AS (
    INSERT INTO audit_log (actor, credential_id, via, action, target, details)
    SELECT $1, $2, $3, 'user.erase', target, erased FROM name, gone
)
SELECT erased FROM gone;

-- name: note_export
INSERT INTO audit_log (actor, credential_id, via, action, target)
VALUES ($1, $2, $3, 'user.export', audit_name($4));

-- name: audit_page
-- $1: before this entry, $2: only of this action, $3: only about this target, $4: or this user; NULL: all. $5: limit.
SELECT audit_id, done_at, actor, credential_id, via, action, target, details FROM audit_log
 WHERE ($1::bigint IS NULL OR audit_id < $1) AND ($2::text IS NULL OR action = $2)
   AND ($3::text IS NULL OR target = $3) AND ($4::text IS NULL OR target = audit_name($4))
 ORDER BY audit_id DESC LIMIT $5;

-- name: closing_of_session
-- Of the session $1 of the user $2: how it ended, and what whoever closed it says.
SELECT s.conversation_id, s.session_start, s.session_end, s.end_reason, a.actor, a.details ->> 'reason' AS reason
  FROM conversation_sessions s LEFT JOIN LATERAL (
       SELECT actor, details FROM audit_log WHERE action = 'session.close' AND target = s.session_id::text
        ORDER BY audit_id DESC LIMIT 1) a ON true
 WHERE s.session_id = $1 AND s.user_id = $2;

-- name: report_census
-- $2: sockets, $3: unmatched. Returns the number of active rows.
INSERT INTO server_census (instance_id, taken_at, row_count, sockets, unmatched)
SELECT $1, now(), (SELECT count(*) FROM conversation_sessions WHERE instance_id = $1 AND is_active), $2, $3::jsonb
ON CONFLICT (instance_id) DO UPDATE SET taken_at = excluded.taken_at, row_count = excluded.row_count,
    sockets = excluded.sockets, unmatched = excluded.unmatched
RETURNING row_count;

-- name: count_hours
SELECT count_hours($1) AS counted;

-- name: list_servers
-- Those that run, own active rows, or were there within the last $1 seconds; at most $2, those that run first.
SELECT i.instance_id, hostname, pid, version, lease_seconds, started_at, stopped_at, reaped_at,
       extract(epoch FROM now() - heartbeat_at)::double precision AS heartbeat_age,
       extract(epoch FROM now() - c.taken_at)::double precision AS census_age,
       c.row_count, c.sockets, coalesce(c.unmatched, '[]') AS unmatched
  FROM server_instances i LEFT JOIN server_census c USING (instance_id)
 WHERE coalesce(reaped_at, stopped_at, now()) > now() - make_interval(secs => $1)
 ORDER BY (stopped_at IS NULL AND reaped_at IS NULL) DESC, started_at DESC LIMIT $2;

-- name: list_orphaned
-- The oldest $1 active rows without a living server, and how many there are.
SELECT session_id, user_id, hostname, pid, session_start, count(*) OVER () AS orphaned
  FROM session_truth WHERE is_active AND state = 'orphaned' ORDER BY session_start LIMIT $1;

-- name: memory_counts
-- Of a partial index each.
SELECT (SELECT count(*) FROM conversation_sessions WHERE memory_status = 'pending') AS pending,
       (SELECT count(*) FROM conversation_sessions WHERE memory_status = 'failed') AS failed;

-- name: page_of_sessions
-- Behind the start $1 and session $2, newest first; $3: only with this end reason; NULL: all. $4: limit.
SELECT * FROM session_details
 WHERE ($1::timestamptz IS NULL OR (session_start, session_id) < ($1, $2::uuid))
   AND ($3::text IS NULL OR end_reason = $3)
 ORDER BY session_start DESC, session_id DESC LIMIT $4;

-- name: page_of_active_sessions
SELECT * FROM session_details
 WHERE is_active AND ($1::timestamptz IS NULL OR (session_start, session_id) < ($1, $2::uuid))
   AND ($3::text IS NULL OR user_id = $3)
 ORDER BY session_start DESC, session_id DESC LIMIT $4;

-- name: page_of_users_sessions
SELECT * FROM session_details
 WHERE user_id = $3 AND ($1::timestamptz IS NULL OR (session_start, session_id) < ($1, $2::uuid))
   AND ($4::text IS NULL OR end_reason = $4)
 ORDER BY session_start DESC, session_id DESC LIMIT $5;

-- name: page_of_failed_memory
-- The statuses are written out, here and below: an index has no other rows.
SELECT * FROM session_details
 WHERE memory_status = 'failed' AND ($1::timestamptz IS NULL OR (session_start, session_id) < ($1, $2::uuid))
 ORDER BY session_start DESC, session_id DESC LIMIT $3;

-- name: page_of_pending_memory
SELECT * FROM session_details
 WHERE memory_status = 'pending' AND ($1::timestamptz IS NULL OR (session_start, session_id) < ($1, $2::uuid))
 ORDER BY session_start DESC, session_id DESC LIMIT $3;

-- name: session_details
SELECT * FROM session_details WHERE session_id = $1;

-- name: session_items
-- A page of what was stored in the session $1, behind position $2 and message $3; deleted items too.
SELECT message_id, item_id, position, kind, role, content, call_id, name, status, created_at, deleted_at FROM messages
 WHERE user_id = (SELECT user_id FROM conversation_sessions WHERE session_id = $1) AND session_id = $1
   AND (position, message_id) > ($2, $3) ORDER BY position, message_id LIMIT $4;

-- name: session_responses
-- A page of what the answers in the session $1 took, behind the start $2 and response $3.
SELECT response_id, started_at, first_at, ended_at, outcome, reason, agent, model, input_tokens, output_tokens,
       cached_tokens
  FROM agent_responses
 WHERE user_id = (SELECT user_id FROM conversation_sessions WHERE session_id = $1) AND session_id = $1
   AND ($2::timestamptz IS NULL OR (started_at, response_id) > ($2, $3::uuid))
 ORDER BY started_at, response_id LIMIT $4;

-- name: session_memories
SELECT memory_id, kind, content, quote, source_item_id, created_at FROM user_memories
 WHERE source_session_id = $1 ORDER BY memory_id LIMIT $2;

-- name: page_of_users
-- Users by name, behind $1; $2: the beginning of the name, or NULL. $3: limit, $4: names that are looked at. A skip scan:
-- it reads one entry of the index for each user.
WITH RECURSIVE names AS (
    (SELECT user_id FROM conversations
      WHERE ($1::text IS NULL OR user_id > $1) AND user_id >= coalesce($2, '') ORDER BY user_id LIMIT 1)
    UNION ALL
    SELECT (SELECT c.user_id FROM conversations c WHERE c.user_id > n.user_id ORDER BY c.user_id LIMIT 1)
      FROM names n WHERE n.user_id IS NOT NULL
)
SELECT user_id,
       (SELECT count(*) FROM conversation_sessions s WHERE s.user_id = n.user_id) AS sessions,
       (SELECT count(*) FROM conversation_sessions s WHERE s.user_id = n.user_id AND is_active) AS active,
       (SELECT count(*) FROM conversations c WHERE c.user_id = n.user_id AND removed_at IS NULL) AS conversations,
       (SELECT count(*) FROM user_memories m WHERE m.user_id = n.user_id) AS memories,
       (SELECT max(session_start) FROM conversation_sessions s WHERE s.user_id = n.user_id) AS last_start
  FROM (SELECT user_id FROM (SELECT user_id FROM names LIMIT $4) looked_at
         WHERE user_id IS NOT NULL AND ($2::text IS NULL OR starts_with(user_id, $2)) LIMIT $3) n;

-- name: session_chart
-- $1: seconds back, $2: width of a bucket in seconds.
SELECT kind, extract(epoch FROM bucket)::bigint AS bucket, label, sessions
  FROM session_chart(now() - make_interval(secs => $1), make_interval(secs => $2));

-- name: drop_transcripts
-- $1: seconds that are kept. $2, $3: behind that start and session, as the last call returned them. $4, $5: at most so
-- many sessions and messages. $6: and the sessions themselves. $7: waits for another one that is at it.
SELECT drop_transcripts(now() - make_interval(secs => $1), coalesce($2::text, '-infinity')::timestamptz,
                        coalesce($3::text, '00000000-0000-0000-0000-000000000000')::uuid, $4, $5, $6, $7) AS dropped;

-- name: drop_audit
-- $1: seconds that are kept. $2: at most so many lines.
SELECT drop_audit(now() - make_interval(secs => $1), $2) AS dropped;

-- name: count_droppable
-- Of what is older than $1, $2 and $3 seconds: messages, sessions and lines of the audit log; NULL: kept for ever.
SELECT (SELECT count(*) FROM messages m JOIN conversation_sessions s USING (user_id, session_id)
         WHERE session_start < now() - make_interval(secs => least($1::double precision, $2))
           AND NOT is_active AND memory_status <> 'pending') AS messages,
       (SELECT count(*) FROM conversation_sessions WHERE session_start < now() - make_interval(secs => $2)
           AND NOT is_active AND memory_status <> 'pending') AS sessions,
       (SELECT count(*) FROM audit_log WHERE done_at < now() - make_interval(secs => $3)) AS audit_lines;

-- name: response_chart
-- $1: seconds back, $2: width of a bucket in seconds.
SELECT kind, extract(epoch FROM bucket)::bigint AS bucket, label, amount
  FROM response_chart(now() - make_interval(secs => $1), make_interval(secs => $2));

-- name: usage
-- What the answers took that ended from $1 until before $2, by day in UTC, user or key, as $3, $4 and $5 say; at most $6
-- rows, behind the first $7. sessions: those that had any. Tokens NULL: no model has reported any.
SELECT CASE WHEN $3 THEN (ended_at AT TIME ZONE 'UTC')::date END AS date, CASE WHEN $4 THEN user_id END AS user_id,
       CASE WHEN $5 THEN r.key_id END AS key_id, max(k.prefix) AS key_prefix, max(k.subject) AS key_subject,
       count(DISTINCT session_id) AS sessions, count(*) AS answers, count(*) FILTER (WHERE outcome = 'failed') AS failed,
       sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens,
       sum(cached_tokens)::bigint AS cached_tokens, count(input_tokens) AS counted,
       avg(extract(epoch FROM first_at - started_at))::double precision AS first_seconds,
       avg(extract(epoch FROM ended_at - started_at))::double precision AS answer_seconds
  FROM agent_responses r LEFT JOIN api_keys k ON $5 AND k.key_id = r.key_id
 WHERE ended_at >= $1 AND ended_at < $2
 GROUP BY 1, 2, 3 ORDER BY 1 DESC NULLS LAST, 2 NULLS LAST, 3 NULLS LAST LIMIT $6 OFFSET $7;
