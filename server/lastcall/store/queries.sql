-- The statements of the server. Those of a batch of writes are functions in schema.sql.
-- A statement begins at its `-- name:` line; queries.py loads them by that name.
-- All times are by the database's clock. The server passes ages in seconds, measured by its monotonic clock.

-- name: prove_commit
SELECT prove_commit($1);

-- name: is_read_only
-- Also on a standby, whatever its settings say.
SELECT current_setting('transaction_read_only') = 'on';

-- name: connection_limits
-- What limits the connections of this role, for how many, and how many there are; those that reach no limit are left out.
-- remedy: the statement that sets the limit; reserved: how many more it has to allow, since this role may not have them.
WITH me AS (
    SELECT oid, rolname, rolconnlimit, rolsuper FROM pg_roles WHERE rolname = session_user
), used AS (
    SELECT count(*) FILTER (WHERE usesysid = me.oid) AS by_role,
           count(*) FILTER (WHERE datname = current_database()) AS in_database, count(*) AS in_all
      FROM pg_stat_activity, me WHERE usesysid IS NOT NULL AND datid IS NOT NULL
)
SELECT 'the role ' || quote_ident(rolname) AS whose, rolconnlimit AS connections_max, by_role AS used,
       'ALTER ROLE ' || quote_ident(rolname) || ' CONNECTION LIMIT' AS remedy, 0 AS reserved, '' AS afterwards
  FROM me, used WHERE rolconnlimit >= 0 AND NOT rolsuper
UNION ALL
SELECT 'the database ' || quote_ident(datname), datconnlimit, in_database,
       'ALTER DATABASE ' || quote_ident(datname) || ' CONNECTION LIMIT', 0, ''
  FROM pg_database, me, used WHERE datname = current_database() AND datconnlimit >= 0 AND NOT rolsuper
UNION ALL
SELECT 'PostgreSQL', current_setting('max_connections')::integer - reserved, in_all,
       'ALTER SYSTEM SET max_connections =', reserved, '; then restart PostgreSQL'
  FROM used, (SELECT CASE WHEN rolsuper THEN 0 ELSE current_setting('superuser_reserved_connections')::integer
                     + coalesce(current_setting('reserved_connections', true)::integer, 0) END AS reserved FROM me) kept;

-- name: register_instance
INSERT INTO server_instances (instance_id, hostname, pid, version, lease_seconds, host_id, process_started)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (instance_id) DO NOTHING;

-- name: take_lease_lock
-- Takes the lock for the connection that will renew the lease. No row: an earlier connection of this instance, not yet
-- gone, still has it.
UPDATE server_instances SET guarded_at = now(), guarded_by = pg_postmaster_start_time()
 WHERE instance_id = $1 AND pg_try_advisory_lock(instance_lock_key($1)) RETURNING instance_id;

-- name: renew_instance
-- No row: this instance was declared dead, or has stopped.
UPDATE server_instances SET heartbeat_at = now()
 WHERE instance_id = $1 AND reaped_at IS NULL AND stopped_at IS NULL
RETURNING instance_id;

-- name: closed_among
-- Of the sessions $1, those whose rows are closed; and those of $2, whose begin is committed, that have no row any more.
SELECT session_id FROM conversation_sessions WHERE session_id = ANY ($1::uuid[]) AND NOT is_active
UNION ALL
SELECT id FROM unnest($2::uuid[]) id WHERE NOT EXISTS (SELECT FROM conversation_sessions WHERE session_id = id);

-- name: suspect_instances
-- Owners of active sessions, and instances without any that seem silent: nobody could tell whether they have sockets.
-- Other than $1, which must not be dead itself; for an operator, $1 is NULL. `guard_gone`: the connection that held its
-- lock has ended, and not because the database was restarted. No ages: the clock may be set, and after an outage all
-- heartbeats are old. Who asks again and again measures them itself. Locks belong to a database: a copy of this one beside
-- it has the same instances.
SELECT instance_id, host_id, pid, process_started, heartbeat_at, lease_seconds,
       stopped_at IS NOT NULL OR reaped_at IS NOT NULL AS gone,
       coalesce(guarded_by = pg_postmaster_start_time(), false) AND NOT EXISTS (
           SELECT FROM pg_locks l
            WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND (l.classid::bigint << 32 | l.objid::bigint) = instance_lock_key(i.instance_id)) AS guard_gone
  FROM server_instances i
 WHERE instance_id IS DISTINCT FROM $1
   AND (instance_id IN (SELECT instance_id FROM conversation_sessions WHERE is_active)
        OR stopped_at IS NULL AND reaped_at IS NULL AND heartbeat_at < now() - make_interval(secs => lease_seconds))
   AND ($1 IS NULL OR EXISTS (
       SELECT FROM server_instances me WHERE me.instance_id = $1 AND me.reaped_at IS NULL AND me.stopped_at IS NULL));

-- name: reap_instance
-- $2: the heartbeat on which the verdict is based; an instance that has renewed it since is alive. $3: who declares it
-- dead; NULL: a person. $4: the number of sessions at most. They ended when it was last known to be alive: at its heartbeat, or with
-- the last item that it stored, but at most $5 seconds later: a frozen database may run on waking the statements of a
-- process that is long dead. Rows that are locked, or being inserted, are left for the next pass.
-- FOR UPDATE, which a renewal does not take: the instance begins no sessions meanwhile.
WITH judged AS MATERIALIZED (
    SELECT instance_id FROM server_instances WHERE instance_id = $1 AND heartbeat_at = $2 FOR UPDATE SKIP LOCKED
), dead AS (
    UPDATE server_instances SET reaped_at = coalesce(reaped_at, now())
     WHERE instance_id = (SELECT instance_id FROM judged) AND heartbeat_at = $2
    RETURNING instance_id, heartbeat_at
), free AS MATERIALIZED (
    SELECT session_id, dead.heartbeat_at FROM conversation_sessions JOIN dead USING (instance_id) WHERE is_active
     LIMIT $4 FOR NO KEY UPDATE OF conversation_sessions SKIP LOCKED
)
UPDATE conversation_sessions s
   SET is_active = false, end_reason = 'owner_died', closed_by = $3,
       session_end = greatest(free.heartbeat_at, least(free.heartbeat_at + make_interval(secs => $5), coalesce(
           last_item_at(s.user_id, s.session_id), free.heartbeat_at)))
  FROM free WHERE s.session_id = free.session_id AND s.is_active
RETURNING s.session_id, s.user_id, s.session_start, s.session_end, s.duration_seconds, s.end_reason;

-- name: instance_is_held
-- A row: it is locked. By the lock that reap_instance takes.
WITH free AS MATERIALIZED (
    SELECT instance_id FROM server_instances WHERE instance_id = $1 FOR UPDATE SKIP LOCKED
)
SELECT FROM server_instances WHERE instance_id = $1 AND NOT EXISTS (SELECT FROM free);

-- name: stop_instance
-- FOR UPDATE, which a renewal does not take: the instance begins no sessions meanwhile. held: its row is locked; waiting
-- would hold up the ends in the same transaction.
WITH free AS MATERIALIZED (
    SELECT instance_id FROM server_instances WHERE instance_id = $1 FOR UPDATE SKIP LOCKED
), stopped AS (
    UPDATE server_instances SET stopped_at = now()
     WHERE instance_id = (SELECT instance_id FROM free) AND stopped_at IS NULL AND reaped_at IS NULL
)
SELECT NOT EXISTS (SELECT FROM free) AND EXISTS (SELECT FROM server_instances WHERE instance_id = $1) AS held;

-- name: commit_batch
-- The statements of a batch are in this function of schema.sql.
SELECT commit_batch($1, make_interval(secs => $2), $3) AS answer;

-- name: clock
SELECT clock_timestamp() AS at;

-- name: active_sessions
SELECT session_id FROM conversation_sessions WHERE instance_id = $1 AND is_active;

-- name: close_instance_sessions
-- They ended $2 seconds ago, or with their last stored item, since one may have been on its way at that moment. Items
-- stored by this very transaction do not count: they were unfinished then.
-- Rows that are locked are left to their session's own end.
WITH free AS MATERIALIZED (
    SELECT session_id FROM conversation_sessions WHERE instance_id = $1 AND is_active
       FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE conversation_sessions s
   SET is_active = false, end_reason = 'shutdown', close_code = 1012, closed_by = instance_id,
       session_end = greatest(now() - make_interval(secs => $2),
           (SELECT max(created_at) FROM messages m WHERE m.session_id = s.session_id AND m.user_id = s.user_id AND m.created_at < now()))
 WHERE session_id IN (SELECT session_id FROM free) AND is_active
RETURNING session_id;

-- name: recall
-- One row at least: without memories, one whose kind is NULL. pending: a session of the user ended less than $3 seconds
-- ago, or is claimed, and is not finalized yet.
-- has_past: some turn of the user is indexed.
SELECT pending, EXISTS (SELECT FROM recall_passages WHERE user_id = $1) AS has_past, last_talk($1)::text AS last,
       kind, content, slot, extract(epoch FROM valid_from)::double precision AS said_at
  FROM (SELECT EXISTS (SELECT FROM conversation_sessions
                        WHERE user_id = $1 AND memory_status = 'pending' AND memory_error IS NULL
                          AND memory_due_at + make_interval(secs => $3) > now()) AS pending) pending
  LEFT JOIN (SELECT kind, content, updated_at, memory_id, slot, valid_from FROM user_memories
              WHERE user_id = $1 AND (expires_at IS NULL OR expires_at > now())
              ORDER BY updated_at DESC, memory_id DESC LIMIT $2) newest ON true
 ORDER BY updated_at, memory_id;

-- name: find_conversation
SELECT conversation_id FROM conversations WHERE conversation_id = $1 AND user_id = $2 AND removed_at IS NULL;

-- name: load_history
-- The newest $3 items of the conversation $1, and the newest $4 of role system among those before them; no row: the user
-- $2 has no such conversation. bytes: of the texts of all of these. Beyond $5, and for a conversation without items,
-- there is one row without an item. The length of a long text is read without the text. left_out: there are more items
-- of role system.
WITH mine AS MATERIALIZED (
    SELECT conversation_id FROM conversations WHERE conversation_id = $1 AND user_id = $2 AND removed_at IS NULL
), newest AS MATERIALIZED (
    SELECT message_id, position, octet_length(content) AS bytes FROM messages
     WHERE user_id = $2 AND conversation_id = (SELECT conversation_id FROM mine) AND deleted_at IS NULL
     ORDER BY position DESC, message_id DESC LIMIT $3
), older AS MATERIALIZED (
    SELECT message_id, position, octet_length(content) AS bytes FROM messages
     WHERE user_id = $2 AND conversation_id = (SELECT conversation_id FROM mine) AND role = 'system' AND deleted_at IS NULL
       AND position <= (SELECT min(position) FROM newest) AND message_id NOT IN (SELECT message_id FROM newest)
     ORDER BY position DESC, message_id DESC LIMIT $4 + 1
), chosen AS MATERIALIZED (
    SELECT message_id, bytes FROM newest
    UNION ALL (SELECT message_id, bytes FROM older ORDER BY position DESC, message_id DESC LIMIT $4)
), summary AS MATERIALIZED (
    SELECT coalesce((SELECT sum(bytes) FROM chosen), 0)::bigint AS bytes,
           (SELECT count(*) FROM older) > $4 AS left_out
)
SELECT summary.bytes, left_out, m.message_id, session_id, m.conversation_id, item_id, position, role, content, status, kind,
       call_id, name
  FROM mine CROSS JOIN summary LEFT JOIN (
       chosen JOIN messages m ON m.user_id = $2 AND m.message_id = chosen.message_id) ON summary.bytes <= $5
 ORDER BY position, m.message_id;

-- name: find_item
-- Deleted items too: a page can still begin at their place. Of several with the same id, the one that is not deleted, or
-- the last one.
SELECT position, message_id FROM (
    SELECT position, message_id, false AS deleted FROM messages
     WHERE user_id = $2 AND conversation_id = $1 AND item_id = $3 AND deleted_at IS NULL
    UNION ALL SELECT position, message_id, true FROM messages
     WHERE user_id = $2 AND conversation_id = $1 AND item_id = $3 AND deleted_at IS NOT NULL
) found ORDER BY deleted, position DESC, message_id DESC LIMIT 1;

-- name: items_after
-- $6: bytes of content, behind which the page ends; the item that exceeds it is the last one.
SELECT message_id, session_id, conversation_id, item_id, position, role, content, status, kind, call_id, name,
       extract(epoch FROM created_at)::double precision AS stored_at FROM (
    SELECT *, sum(octet_length(content)) OVER (ORDER BY position, message_id) - octet_length(content) AS bytes_before
      FROM (SELECT * FROM messages
             WHERE user_id = $2 AND conversation_id = $1 AND deleted_at IS NULL AND (position, message_id) > ($3, $4)
             ORDER BY position, message_id LIMIT $5) page
) page WHERE bytes_before <= $6 ORDER BY position, message_id;

-- name: items_before
SELECT message_id, session_id, conversation_id, item_id, position, role, content, status, kind, call_id, name,
       extract(epoch FROM created_at)::double precision AS stored_at FROM (
    SELECT *, sum(octet_length(content)) OVER (ORDER BY position DESC, message_id DESC) - octet_length(content)
           AS bytes_before
      FROM (SELECT * FROM messages
             WHERE user_id = $2 AND conversation_id = $1 AND deleted_at IS NULL AND (position, message_id) < ($3, $4)
             ORDER BY position DESC, message_id DESC LIMIT $5) page
) page WHERE bytes_before <= $6 ORDER BY position DESC, message_id DESC;

-- name: share_conversation
-- `alone`, `left`, `held` or `shared`: see the function in schema.sql.
SELECT share_conversation($1) AS outcome;

-- name: shared_among
SELECT session_id FROM conversation_sessions WHERE session_id = ANY ($1::uuid[]) AND is_active AND shared;

-- name: changed_items
-- Of the messages $3, in order. A deleted one comes without its text. $4: bytes, as in items_after.
SELECT message_id, session_id, conversation_id, item_id, position, role, content, status, kind, call_id, name, deleted
  FROM (SELECT *, sum(octet_length(content)) OVER (ORDER BY position, message_id) - octet_length(content) AS bytes_before
          FROM (SELECT message_id, session_id, conversation_id, item_id, position, role, status, kind, call_id, name,
                       deleted_at IS NOT NULL AS deleted, CASE WHEN deleted_at IS NULL THEN content ELSE '' END AS content
                  FROM messages WHERE user_id = $2 AND message_id = ANY ($3::uuid[]) AND conversation_id = $1) asked) page
 WHERE bytes_before <= $4 ORDER BY position, message_id;

-- name: item_keys
SELECT position, message_id, item_id FROM messages
 WHERE user_id = $2 AND conversation_id = $1 AND deleted_at IS NULL AND (position, message_id) > ($3, $4)
 ORDER BY position, message_id LIMIT $5;

-- name: deleted_among
SELECT message_id FROM messages WHERE user_id = $1 AND message_id = ANY ($2::uuid[]) AND deleted_at IS NOT NULL;

-- name: list_conversations
-- Newest first. $2: the conversation after which to continue, or NULL. $4: words that the title or what was said has to
-- contain, in whatever case, or NULL. Looked through are the newest $5 conversations, of each the newest $6 messages, of
-- each the first 4000 characters. A conversation without a title is called by the first words that its user said there.
SELECT conversation_id, extract(epoch FROM c.created_at)::double precision AS created_at,
       coalesce(title, first.words) AS title,
       extract(epoch FROM coalesce(last.created_at, c.created_at))::double precision AS last_active_at
  FROM (SELECT * FROM conversations
         WHERE user_id = $1 AND removed_at IS NULL AND ($2::uuid IS NULL OR (created_at, conversation_id) < (
               SELECT created_at, conversation_id FROM conversations WHERE conversation_id = $2 AND user_id = $1))
         ORDER BY created_at DESC, conversation_id DESC LIMIT CASE WHEN $4::text IS NULL THEN $3::integer ELSE $5 END
  ) c LEFT JOIN LATERAL (
    SELECT created_at FROM messages m WHERE m.user_id = $1 AND m.conversation_id = c.conversation_id
     ORDER BY position DESC, message_id DESC LIMIT 1
  ) last ON true LEFT JOIN LATERAL (
    SELECT title_of(content) AS words FROM messages m
     WHERE m.user_id = $1 AND m.conversation_id = c.conversation_id AND role = 'user' AND deleted_at IS NULL
     ORDER BY position, message_id LIMIT 1
  ) first ON true
 WHERE $4::text IS NULL OR strpos(lower(coalesce(title, first.words)), lower($4)) > 0 OR EXISTS (
       SELECT FROM (SELECT content FROM messages m
                     WHERE m.user_id = $1 AND m.conversation_id = c.conversation_id AND kind = 'message' AND deleted_at IS NULL
                     ORDER BY position DESC, message_id DESC LIMIT $6) said
        WHERE strpos(lower(left(content, 4000)), lower($4)) > 0)
 ORDER BY c.created_at DESC, conversation_id DESC LIMIT $3;

-- name: rename_conversation
-- $3: NULL takes the title away. No row: the user has no such conversation. The row may be locked by another transaction:
-- then `held`, since waiting would keep a connection from others.
WITH mine AS MATERIALIZED (
    SELECT conversation_id FROM conversations WHERE conversation_id = $1 AND user_id = $2 AND removed_at IS NULL
), free AS MATERIALIZED (
    SELECT conversation_id FROM conversations WHERE conversation_id = (SELECT conversation_id FROM mine)
       FOR NO KEY UPDATE SKIP LOCKED
), renamed AS (
    UPDATE conversations SET title = $3 WHERE conversation_id IN (SELECT conversation_id FROM free)
)
SELECT NOT EXISTS (SELECT FROM free) AS held FROM mine;

-- name: delete_conversation
-- `deleted`, `held` or `unknown`: see the function in schema.sql.
SELECT delete_conversation($1, $2) AS outcome;

-- name: claim_memory
-- $1: sessions at most. $2: seconds that a claim lasts. $3: NULL, or the only sessions to claim. $4: the longest wait in
-- seconds, of a claim or a back-off. $5: bytes of what was said in the sessions that are claimed together.
-- unhurried: nobody was told of a claim, nor of what finish_memory stores, and the work is found again where a crash of
-- the database takes it back. So neither waits for the disk, nor for a standby; what comes later takes them along.
WITH unhurried AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true)
)
SELECT claimed.* FROM unhurried, claim_memories($1, $2, $3, $4, $5) claimed;

-- name: finish_memory
-- unhurried: as in claim_memory. $1: a list of `FinishedMemory`. $2: seconds that a memory is kept after it was said;
-- NULL: forever.
WITH unhurried AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true)
)
SELECT session_id FROM unhurried, finish_memories($1::jsonb, make_interval(secs => $2)) AS session_id;

-- name: renew_memory
-- Of the sessions $1, those that are still claimed by the attempts $2, for $3 seconds more.
UPDATE conversation_sessions s SET memory_due_at = now() + make_interval(secs => $3)
  FROM unnest($1::uuid[], $2::integer[]) AS claim (session_id, attempts)
 WHERE s.session_id = claim.session_id AND memory_status = 'pending' AND memory_attempts = attempts
   AND s.session_id = ANY ($1::uuid[]);

-- name: expire_memories
WITH old AS MATERIALIZED (
    SELECT user_id, memory_id FROM user_memories WHERE expires_at <= now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
), past AS (
    DELETE FROM superseded_memories WHERE (user_id, memory_id) IN (
        SELECT user_id, memory_id FROM superseded_memories WHERE expires_at <= now() LIMIT $1 FOR UPDATE SKIP LOCKED)
)
DELETE FROM user_memories WHERE (user_id, memory_id) IN (SELECT user_id, memory_id FROM old) RETURNING memory_id;

-- name: known_memories
-- Of the user $1, the newest $2, or the one with the id $3.
SELECT memory_id, kind, content, quote, slot, extract(epoch FROM valid_from)::double precision AS said_at,
       extract(epoch FROM edited_at)::double precision AS edited_at,
       extract(epoch FROM expires_at)::double precision AS expires_at, source_session_id, source_item_id,
       s.conversation_id
  FROM user_memories m LEFT JOIN conversation_sessions s ON s.session_id = m.source_session_id
 WHERE m.user_id = $1 AND (expires_at IS NULL OR expires_at > now()) AND ($3::bigint IS NULL OR memory_id = $3)
 ORDER BY updated_at DESC, memory_id DESC LIMIT $2;

-- name: edit_memory
-- No row: there is none. Another memory with the same words makes way. Its own time is now: what was said before does not
-- supersede it.
WITH mine AS MATERIALIZED (
    SELECT memory_id, kind FROM user_memories WHERE user_id = $1 AND memory_id = $2 FOR UPDATE
), twin AS (
    DELETE FROM user_memories m USING mine
     WHERE m.user_id = $1 AND m.memory_id <> $2 AND m.kind = mine.kind AND md5(lower(m.content)) = md5(lower($3))
)
UPDATE user_memories SET content = $3, words = $4, edited_at = now(), updated_at = now(), valid_from = now()
 WHERE user_id = $1 AND memory_id = (SELECT memory_id FROM mine) RETURNING memory_id;

-- name: forget_memory
SELECT forget_memories($1, ARRAY[$2::bigint]) AS forgotten;

-- name: export_conversations
SELECT conversation_id, title, created_at FROM conversations WHERE user_id = $1 ORDER BY created_at, conversation_id;

-- name: export_messages
-- A page of the conversation $1 of the user $2, behind position $3 and message $4.
SELECT message_id, item_id, position, kind, role, content, call_id, name, status, created_at, session_id FROM messages
 WHERE user_id = $2 AND conversation_id = $1 AND deleted_at IS NULL AND (position, message_id) > ($3, $4)
 ORDER BY position, message_id LIMIT $5;

-- name: export_sessions
SELECT session_id, conversation_id, session_start, session_end, duration_seconds, end_reason, original_id, imported_from
  FROM conversation_sessions WHERE user_id = $1 ORDER BY session_start, session_id;

-- name: export_responses
-- A page of what the answers to $1 took, behind the session $2 and response $3.
SELECT session_id, response_id, started_at, first_at, ended_at, outcome, reason, agent, model, input_tokens, output_tokens,
       cached_tokens
  FROM agent_responses WHERE user_id = $1 AND (session_id, response_id) > ($2, $3)
 ORDER BY session_id, response_id LIMIT $4;

-- name: export_memories
SELECT memory_id, kind, slot, content, quote, valid_from, created_at, updated_at, edited_at, expires_at,
       source_session_id, source_item_id, NULL::timestamptz AS superseded_at
  FROM user_memories WHERE user_id = $1
UNION ALL
SELECT memory_id, kind, slot, content, quote, valid_from, created_at, updated_at, edited_at, expires_at,
       source_session_id, source_item_id, superseded_at
  FROM superseded_memories WHERE user_id = $1
 ORDER BY valid_from, memory_id;

-- name: search_turns
-- The words of a question: $2 their texts, $3 their other keys, $4 the stemmer of its language where that is known. The
-- stemmers of all languages that the user has spoken are tried, since a short question often does not tell its own.
-- Returns a row per word, without a passage: its rarity, and whether any turn has it. And of the $5 passages that could
-- hold the best turns, a row per word and key with its mentions, and one without a word, with the flags of its turns.
WITH past AS MATERIALIZED (
    SELECT passage_id, flags, words, stemmers FROM recall_passages WHERE user_id = $1
), size AS MATERIALIZED (
    SELECT sum(cardinality(flags))::float8 AS turns, count(*)::float8 AS passages, avg(words)::float8 AS words FROM past
), stemmer AS MATERIALIZED (
    SELECT 'english_stem'::regdictionary AS name -- of the months
    UNION SELECT unnest(stemmers)::regdictionary FROM past
), word AS MATERIALIZED (
    SELECT text, key, (ordinality - 1)::integer AS number FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS w (text, key)
     WHERE CASE WHEN text = '' THEN true -- else a stop word to every stemmer
                WHEN $4::text IS NOT NULL THEN ts_lexize($4::regdictionary, text) IS DISTINCT FROM '{}'
                ELSE NOT EXISTS (SELECT FROM stemmer WHERE ts_lexize(name, text) = '{}') END
), asked AS MATERIALIZED (
    SELECT number, unnest(ts_lexize(name, text)) AS lexeme FROM word, stemmer WHERE text <> ''
    UNION SELECT number, text FROM word WHERE text <> ''
    UNION SELECT number, key FROM word WHERE key <> ''
), hit AS MATERIALIZED (
    SELECT number, lexeme, passage_id, mentions, weight_max FROM asked JOIN recall_lexemes l USING (lexeme)
     WHERE l.user_id = $1 AND l.lexeme = ANY (ARRAY(SELECT lexeme FROM asked)) -- else all of the user's may be read
    UNION ALL
    SELECT number, lexeme, passage_id, mentions, weight_max FROM asked JOIN (
           SELECT passage_id, each.* FROM recall_passages p
            CROSS JOIN LATERAL postings_of(together, lengths, message_ids, said_at) each
            WHERE user_id = $1 AND together IS NOT NULL) newest USING (lexeme)
), frequency AS MATERIALIZED (
    SELECT number, max(turns) AS turns, max(passages) AS passages
      FROM (SELECT number, sum(cardinality(mentions))::float8 AS turns, count(*)::float8 AS passages
              FROM hit GROUP BY number, lexeme) of_key
     GROUP BY number
), rarity AS MATERIALIZED (
    SELECT number, f.turns IS NOT NULL AS known,
           ln(1 + greatest(size.turns - coalesce(f.turns, 0) + 0.5, 0.5) / (coalesce(f.turns, 0) + 0.5)) AS of_turns,
           ln(1 + (size.passages - coalesce(f.passages, 0) + 0.5) / (coalesce(f.passages, 0) + 0.5)) AS of_passages
      FROM size, (SELECT DISTINCT number FROM asked) word LEFT JOIN frequency f USING (number)
), in_passage AS (
    SELECT number, passage_id, max(weight_max) AS weight_max, max(cardinality(mentions)) AS turns
      FROM hit GROUP BY number, passage_id
), candidate AS MATERIALIZED (
    SELECT passage_id, topic, mentioned + 0.3 * topic AS at_most FROM (
        SELECT passage_id, sum(of_turns * weight_max / 100) AS mentioned,
               sum(of_passages * 2.2 * i.turns / (i.turns + 0.72 + 0.48 * past.words / size.words)) AS topic
          FROM in_passage i JOIN rarity USING (number) JOIN past USING (passage_id), size
         GROUP BY passage_id) scored
     ORDER BY at_most DESC, passage_id DESC LIMIT $5
)
SELECT number, NULL::bigint AS passage_id, of_turns AS rarity, known, NULL::smallint[] AS values, NULL::float8 AS topic,
       NULL::float8 AS at_most
  FROM rarity
UNION ALL
SELECT NULL, passage_id, NULL, NULL, flags, topic, at_most FROM candidate JOIN past USING (passage_id)
UNION ALL
SELECT number, passage_id, NULL, NULL, mentions, NULL, NULL
  FROM candidate JOIN hit USING (passage_id) JOIN rarity USING (number)
 WHERE of_turns >= 0.02 * (SELECT max(of_turns) FROM rarity); -- what nearly every turn says tells none from another

-- name: read_turns
-- Of passages $2, the turns $3, in this order, without those that were deleted or forgotten since.
SELECT to_char(least(m.created_at, s.session_end), 'YYYY-MM-DD') AS date, role AS who, left(content, $4) AS text,
       m.conversation_id::text AS conversation_id, item_id
  FROM unnest($2::bigint[], $3::integer[]) WITH ORDINALITY AS t (passage_id, turn, ordinality)
  JOIN recall_passages p ON p.user_id = $1 AND p.passage_id = t.passage_id
  JOIN messages m ON m.user_id = $1 AND m.message_id = p.message_ids[turn + 1] AND m.deleted_at IS NULL
  JOIN conversation_sessions s ON s.session_id = m.session_id
 WHERE NOT EXISTS (SELECT FROM forgotten_turns f WHERE f.user_id = $1 AND f.message_id = m.message_id)
 ORDER BY ordinality;

-- name: release_memory
UPDATE conversation_sessions SET memory_due_at = now(), memory_attempts = greatest(memory_attempts - 1, 0)
 WHERE session_id = ANY ($1::uuid[]) AND memory_status = 'pending';

-- name: fail_memory
-- $3: seconds until the next attempt; NULL: none.
UPDATE conversation_sessions
   SET memory_error = $2,
       memory_status = CASE WHEN $3::double precision IS NULL THEN 'failed' ELSE 'pending' END,
       memory_due_at = now() + make_interval(secs => $3)
 WHERE session_id = $1 AND memory_status = 'pending';

-- name: keys_exist
-- Revoked keys too: revoking the last one must not open the server to everybody.
SELECT EXISTS (SELECT FROM api_keys) AS found;

-- name: find_credential
-- By its hash: the time this takes tells an attacker about the hash, not about the secret.
-- A client secret that was created more than $2 seconds in the future was created before the clock was set back: how old
-- it is cannot be told, and it would be valid for longer than it was made for.
SELECT key_id AS credential_id, key_id, subject AS user_id, scope, NULL::uuid AS conversation_id, '{}' AS session,
       NULL::double precision AS seconds_left, 'bearer' AS form, 'operator' AS origin
  FROM api_keys WHERE secret_hash = $1 AND revoked_at IS NULL
UNION ALL
SELECT secret_id, key_id, user_id, 'client', conversation_id, session, extract(epoch FROM expires_at - now()), form, origin
  FROM client_secrets WHERE secret_hash = $1 AND revoked_at IS NULL AND expires_at > now()
   AND form <> 'link' AND created_at < now() + make_interval(secs => $2);

-- name: create_client_secret
-- allowed: its key is not revoked; FOR SHARE prevents a revocation meanwhile. held: the key's row is locked; waiting
-- would keep a connection from others. expires_at NULL: not created, for one of these reasons or because the user has no
-- such conversation. Also deletes secrets that expired over a day ago, except those of active sessions and of cookies, which
-- a later revocation must find.
WITH parent AS MATERIALIZED (
    SELECT key_id FROM api_keys WHERE key_id = $2 AND revoked_at IS NULL FOR SHARE SKIP LOCKED
), swept AS (
    DELETE FROM client_secrets WHERE secret_id IN (
        SELECT secret_id FROM client_secrets c WHERE expires_at < now() - interval '1 day' AND NOT EXISTS (
               SELECT FROM conversation_sessions s WHERE s.credential_id = c.secret_id AND s.is_active)
           AND NOT EXISTS (
               SELECT FROM client_secrets k
                WHERE k.link_id = c.secret_id AND k.revoked_at IS NULL AND k.expires_at > now())
         ORDER BY expires_at LIMIT 10 FOR UPDATE SKIP LOCKED)
), made AS (
    INSERT INTO client_secrets
           (secret_id, key_id, user_id, conversation_id, session, secret_hash, expires_at, form, origin)
    SELECT $1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7), $8, $9
     WHERE ($2::uuid IS NULL OR EXISTS (SELECT FROM parent))
       AND ($4::uuid IS NULL OR EXISTS (
           SELECT FROM conversations WHERE conversation_id = $4 AND user_id = $3::text AND removed_at IS NULL))
    RETURNING expires_at
)
SELECT (SELECT extract(epoch FROM expires_at)::bigint FROM made) AS expires_at,
       $2::uuid IS NULL OR EXISTS (SELECT FROM api_keys WHERE key_id = $2 AND revoked_at IS NULL) AS allowed,
       $2::uuid IS NOT NULL AND NOT EXISTS (SELECT FROM parent) AS held;

-- name: trade_secret
-- A link, once, or a client secret, for a cookie. $1: its hash, $2: as $2 of `find_credential`, $3: the cookie's id,
-- $4: its hash, $5: seconds that a link's cookie is valid; a client secret's is valid for as long as that one. A secret
-- that was made without a key is none: the first key shuts it out. Neither its row nor its key's can be revoked
-- meanwhile; held: one of them is locked. user_id NULL: not traded, for that or because there is no such secret.
WITH wanted AS MATERIALIZED (
    SELECT secret_id, key_id FROM client_secrets
     WHERE secret_hash = $1 AND revoked_at IS NULL AND expires_at > now()
       AND created_at < now() + make_interval(secs => $2)
       AND (form = 'link' AND used_at IS NULL OR form = 'bearer' AND key_id IS NOT NULL)
), parent AS MATERIALIZED (
    SELECT key_id FROM api_keys WHERE key_id = (SELECT key_id FROM wanted) AND revoked_at IS NULL
       FOR SHARE SKIP LOCKED
), locked AS MATERIALIZED (
    SELECT c.* FROM client_secrets c WHERE secret_id = (SELECT secret_id FROM wanted) AND revoked_at IS NULL
       AND (form <> 'link' OR used_at IS NULL) AND (key_id IS NULL OR EXISTS (SELECT FROM parent))
       FOR NO KEY UPDATE SKIP LOCKED
), used AS (
    UPDATE client_secrets SET used_at = now() WHERE secret_id = (SELECT secret_id FROM locked)
), made AS (
    INSERT INTO client_secrets
           (secret_id, key_id, user_id, conversation_id, session, secret_hash, expires_at, form, origin, link_id)
    SELECT $3, key_id, user_id, conversation_id, session, $4,
           CASE form WHEN 'link' THEN now() + make_interval(secs => $5) ELSE expires_at END, 'cookie', origin, secret_id
      FROM locked
    RETURNING user_id, extract(epoch FROM expires_at - now()) AS seconds_left
)
SELECT (SELECT user_id FROM made) AS user_id, (SELECT seconds_left FROM made) AS seconds_left,
       EXISTS (SELECT FROM wanted) AND NOT EXISTS (SELECT FROM made) AS held;

-- name: sign_out
-- Its sessions end with it.
UPDATE client_secrets SET revoked_at = now()
 WHERE secret_hash = $1 AND form = 'cookie' AND revoked_at IS NULL
RETURNING secret_id;

-- name: finish_revocations
-- A revocation is finished once a pass finds no session of its credential left. Rows that are locked are left for the
-- next pass.
WITH revoked AS MATERIALIZED (
    SELECT revocation_id, credential_id FROM unfinished_revocations ORDER BY revocation_id LIMIT 100
), secrets AS (
    UPDATE client_secrets SET revoked_at = now() WHERE secret_id IN (
        SELECT secret_id FROM client_secrets
         WHERE key_id IN (SELECT credential_id FROM revoked) AND revoked_at IS NULL FOR NO KEY UPDATE SKIP LOCKED)
), free AS MATERIALIZED (
    SELECT session_id FROM conversation_sessions
     WHERE is_active AND credential_id IN (SELECT credential_id FROM revoked) FOR NO KEY UPDATE SKIP LOCKED
), finished AS (
    DELETE FROM unfinished_revocations WHERE revocation_id IN (
        SELECT revocation_id FROM revoked r WHERE NOT EXISTS (
               SELECT FROM conversation_sessions s WHERE s.credential_id = r.credential_id AND is_active)
           AND NOT EXISTS (SELECT FROM client_secrets c WHERE c.key_id = r.credential_id AND revoked_at IS NULL))
)
UPDATE conversation_sessions SET is_active = false, end_reason = 'revoked'
 WHERE session_id IN (SELECT session_id FROM free) AND is_active
RETURNING session_id;

-- name: list_keys
-- active_sessions: includes those of its client secrets.
SELECT k.key_id, k.prefix, k.subject, k.scope, k.created_at, k.revoked_at,
       (SELECT count(*) FROM conversation_sessions s WHERE s.is_active AND s.credential_id IN (
            SELECT k.key_id UNION ALL SELECT secret_id FROM client_secrets c WHERE c.key_id = k.key_id))
           AS active_sessions
  FROM api_keys k ORDER BY created_at DESC LIMIT $1;

-- name: list_sessions
-- $1: user, $2: states, $3: end reason, $4: seconds back; NULL: all. $5: limit. lasted_seconds: so far, while active.
SELECT session_id, conversation_id, user_id, state, session_start, session_end, duration_seconds, end_reason,
       close_code, memory_status, hostname, pid, original_id,
       coalesce(duration_seconds, greatest(extract(epoch FROM now() - session_start), 0)::double precision)
           AS lasted_seconds
  FROM session_truth
 WHERE ($1::text IS NULL OR user_id = $1) AND ($2::text[] IS NULL OR state = ANY ($2))
   AND ($3::text IS NULL OR end_reason = $3)
   AND ($4::double precision IS NULL OR session_start > now() - make_interval(secs => $4))
 ORDER BY session_start DESC LIMIT $5;

-- name: daily_stats
-- From $1 until before $2, both at midnight in UTC, as our connections count days. Sessions by their start, answers by
-- their end.
WITH used AS (
    SELECT (ended_at AT TIME ZONE 'UTC')::date AS date, count(*) AS answers,
           sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens
      FROM agent_responses WHERE ended_at >= $1 AND ended_at < $2 GROUP BY 1
)
SELECT date, coalesce(total_sessions, 0) AS total_sessions, avg_duration, coalesce(still_active, 0) AS still_active,
       coalesce(memory_pending, 0) AS memory_pending, coalesce(memory_failed, 0) AS memory_failed,
       coalesce(answers, 0) AS answers, input_tokens, output_tokens
  FROM (SELECT * FROM daily_session_stats
         WHERE date >= ($1::timestamptz AT TIME ZONE 'UTC')::date AND date < ($2::timestamptz AT TIME ZONE 'UTC')::date
  ) sessions FULL JOIN used USING (date) ORDER BY date DESC;

-- name: list_orphans
SELECT session_id, conversation_id, user_id, instance_id, hostname, pid, session_start, owner_last_seen, hours_active
  FROM orphaned_sessions ORDER BY session_start LIMIT $1;

-- name: orphans_owners
SELECT DISTINCT instance_id, owner_last_seen FROM orphaned_sessions WHERE instance_id IS NOT NULL;

-- name: count_overdue
-- The count of the operators' alert, for any age. $1: seconds.
SELECT count(*) AS orphaned_count FROM conversation_sessions
 WHERE is_active AND session_start < now() - make_interval(secs => $1);

-- name: close_ownerless
-- Sessions that no server ever owned, at their last stored item. Rows that are locked are left to whoever writes there.
WITH free AS MATERIALIZED (
    SELECT session_id FROM conversation_sessions WHERE instance_id IS NULL AND is_active
       FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE conversation_sessions s
   SET is_active = false, end_reason = 'by_hand',
       session_end = last_item_at(s.user_id, s.session_id)
  FROM free WHERE s.session_id = free.session_id AND s.is_active
RETURNING s.session_id, s.user_id, s.session_start, s.session_end, s.duration_seconds, s.end_reason;

-- name: find_session
SELECT session_id, is_active FROM conversation_sessions WHERE session_id = $1;

-- name: list_memories
SELECT memory_id, user_id, kind, content, quote, valid_from, source_session_id, updated_at FROM user_memories
 WHERE ($1::text IS NULL OR user_id = $1) ORDER BY user_id, updated_at DESC, memory_id DESC LIMIT $2;

-- name: memory_backlog
SELECT memory_status, count(*) AS sessions, max(memory_attempts) AS attempts_max, max(memory_error) AS last_error
  FROM conversation_sessions WHERE memory_status IN ('pending', 'failed') GROUP BY memory_status;

-- name: import_sessions
-- $1: JSON, a page of sessions of another table, none of them twice. Those that are there already are left alone. The
-- answer for each: `new`; `present`, as it was imported before; or `other`, where a session with its id is another one.
WITH asked AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset($1::text::jsonb) AS t (
        session_id uuid, conversation_id uuid, user_id text, session_start timestamptz, session_end timestamptz,
        end_reason text, original_id text, imported_from text)
), missing AS MATERIALIZED (
    SELECT * FROM asked WHERE session_id NOT IN (
        SELECT session_id FROM conversation_sessions WHERE session_id = ANY (ARRAY (SELECT session_id FROM asked)))
), new_conversation AS (
    INSERT INTO conversations (conversation_id, user_id, created_at)
    SELECT conversation_id, user_id, session_start FROM missing ON CONFLICT (conversation_id) DO NOTHING
), imported AS (
    INSERT INTO conversation_sessions
           (session_id, conversation_id, user_id, is_active, session_start, session_end, end_reason, original_id,
            imported_from)
    SELECT session_id, conversation_id, user_id, false, session_start, session_end, end_reason, original_id,
           imported_from FROM missing
    ON CONFLICT (session_id) DO NOTHING RETURNING session_id
)
SELECT a.session_id, CASE
           WHEN a.session_id IN (SELECT session_id FROM imported) THEN 'new'
           WHEN s.session_id IS NULL OR (s.user_id, s.session_start) = (a.user_id, a.session_start) THEN 'present'
           ELSE 'other' END AS outcome
  FROM asked a LEFT JOIN conversation_sessions s USING (session_id);

-- name: find_imported
-- What `import_sessions` would answer.
SELECT a.session_id, CASE
           WHEN s.session_id IS NULL THEN 'new'
           WHEN (s.user_id, s.session_start) = (a.user_id, a.session_start) THEN 'present'
           ELSE 'other' END AS outcome
  FROM jsonb_to_recordset($1::text::jsonb) AS a (session_id uuid, user_id text, session_start timestamptz)
  LEFT JOIN conversation_sessions s USING (session_id);
