-- lastcall's schema for PostgreSQL 14 and up. The state machine of a session lives here, so that no writer, a person
-- in psql included, can store a lie about it. Applying this file again is safe, also by two servers at once.

BEGIN;
SELECT pg_advisory_xact_lock(hashtext('lastcall schema'));

CREATE TABLE IF NOT EXISTS lastcall_schema (
    version    integer     PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now(),
    digest     text                     -- of the file that a server applied; NULL: applied by hand
);

-- One row per server process. Its lease: a heartbeat not older than lease_seconds, by this database's clock.
CREATE TABLE IF NOT EXISTS server_instances (
    instance_id  uuid        PRIMARY KEY,
    hostname     text        NOT NULL,
    pid          integer     NOT NULL,
    version      text        NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    stopped_at   timestamptz,            -- left in good order
    reaped_at    timestamptz             -- declared dead by another server
);
-- Only where they are missing: to add columns locks all writers out, and applying again must not.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute
                    WHERE attrelid = 'server_instances'::regclass AND attname = 'steady_since') THEN
        ALTER TABLE server_instances
            ADD COLUMN lease_seconds   double precision NOT NULL DEFAULT 10,
            ADD COLUMN host_id         text,        -- boot and pid namespace: where pid means something
            ADD COLUMN process_started bigint,      -- by the kernel's clock: a pid may be used again
            ADD COLUMN guarded_at      timestamptz, -- when it last took its advisory lock
            ADD COLUMN steady_since    timestamptz NOT NULL DEFAULT now(); -- no gap in its heartbeats since
    END IF;
END $$;

-- The lock that a server holds with the connection that renews its lease: it is free when that connection is gone.
CREATE OR REPLACE FUNCTION instance_lock_key(instance_id uuid) RETURNS bigint LANGUAGE sql IMMUTABLE AS
$$ SELECT hashtextextended('lastcall instance ' || instance_id::text, 0) $$;

CREATE TABLE IF NOT EXISTS conversations (
    conversation_id uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id         text        NOT NULL,
    title           text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT conversation_of_one_user UNIQUE (conversation_id, user_id),
    CONSTRAINT user_is_named CHECK (length(user_id) BETWEEN 1 AND 256)
);

CREATE TABLE IF NOT EXISTS conversation_sessions (
    session_id          uuid             PRIMARY KEY DEFAULT gen_random_uuid(),
    conversation_id     uuid             NOT NULL,   -- made by the trigger where an import leaves it out
    user_id             text             NOT NULL,
    instance_id         uuid             REFERENCES server_instances,   -- NULL: imported, no server behind it
    is_active           boolean          NOT NULL DEFAULT true,
    session_start       timestamptz      NOT NULL DEFAULT now(),
    session_end         timestamptz,      -- when it truly ended
    ended_at            timestamptz,      -- when the row was closed
    duration_seconds    double precision, -- session_end - session_start
    end_reason          text,
    close_code          integer,          -- of the WebSocket, where a close frame was exchanged
    closed_by           uuid,             -- the instance that closed the row; NULL: a person
    memory_status       text             NOT NULL DEFAULT 'none',
    memory_attempts     integer          NOT NULL DEFAULT 0,
    memory_due_at       timestamptz,      -- a claim and a back-off both move it ahead
    memory_error        text,
    memory_finalized_at timestamptz,
    CONSTRAINT session_in_own_conversation FOREIGN KEY (conversation_id, user_id)
        REFERENCES conversations (conversation_id, user_id),
    CONSTRAINT active_or_ended CHECK (
        is_active = (session_end IS NULL) AND is_active = (ended_at IS NULL)
        AND is_active = (duration_seconds IS NULL) AND is_active = (end_reason IS NULL)
        AND NOT (is_active AND close_code IS NOT NULL)),
    CONSTRAINT ends_after_its_start CHECK (session_end >= session_start),
    CONSTRAINT closed_after_its_end CHECK (ended_at >= session_end),
    CONSTRAINT duration_is_the_difference CHECK (
        duration_seconds = extract(epoch FROM session_end - session_start)::double precision),
    CONSTRAINT memory_status_known CHECK (memory_status IN ('none', 'pending', 'done', 'failed')),
    CONSTRAINT memory_after_the_end CHECK (NOT is_active OR memory_status = 'none'),
    CONSTRAINT memory_done_is_dated CHECK ((memory_status = 'done') = (memory_finalized_at IS NOT NULL))
);
CREATE INDEX IF NOT EXISTS sessions_active ON conversation_sessions (instance_id, session_start) WHERE is_active;
CREATE INDEX IF NOT EXISTS sessions_by_start ON conversation_sessions (session_start);
CREATE INDEX IF NOT EXISTS sessions_by_user ON conversation_sessions (user_id, session_start);
CREATE INDEX IF NOT EXISTS sessions_by_conversation ON conversation_sessions (conversation_id);
CREATE INDEX IF NOT EXISTS memory_pending ON conversation_sessions (memory_due_at) WHERE memory_status = 'pending';
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute
                    WHERE attrelid = 'conversation_sessions'::regclass AND attname = 'credential_id') THEN
        ALTER TABLE conversation_sessions
            ADD COLUMN credential_id uuid;   -- the key or client secret that it was begun with; NULL: neither
    END IF;
END $$;
CREATE INDEX IF NOT EXISTS sessions_of_credential ON conversation_sessions (credential_id)
    WHERE is_active AND credential_id IS NOT NULL;

-- Keys and client secrets are 256 random bits, so a plain SHA-256 hides them: there is nothing to guess from a hash.
CREATE TABLE IF NOT EXISTS api_keys (
    key_id      uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    subject     text        NOT NULL,   -- the user of its sessions, or the name of a backend
    scope       text        NOT NULL,
    prefix      text        NOT NULL,   -- the key's first characters, for people to know it by
    secret_hash bytea       NOT NULL UNIQUE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz,
    CONSTRAINT subject_is_named CHECK (length(subject) BETWEEN 1 AND 256),
    CONSTRAINT scope_known CHECK (scope IN ('service', 'user', 'admin')),
    CONSTRAINT hash_is_sha256 CHECK (length(secret_hash) = 32)
);

-- What a backend hands to a browser. Its expiry limits what it begins, not what has begun.
CREATE TABLE IF NOT EXISTS client_secrets (
    secret_id       uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    key_id          uuid        REFERENCES api_keys ON DELETE CASCADE,  -- that made it; NULL: made where no keys were set
    user_id         text        NOT NULL,
    conversation_id uuid,               -- NULL: any of the user's, and new ones
    session         text        NOT NULL DEFAULT '{}',                  -- JSON: what its sessions begin with
    secret_hash     bytea       NOT NULL UNIQUE,
    created_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz NOT NULL,
    revoked_at      timestamptz,
    CONSTRAINT secret_user_is_named CHECK (length(user_id) BETWEEN 1 AND 256),
    CONSTRAINT secret_hash_is_sha256 CHECK (length(secret_hash) = 32)
);
CREATE INDEX IF NOT EXISTS secrets_of_key ON client_secrets (key_id);
CREATE INDEX IF NOT EXISTS secrets_by_expiry ON client_secrets (expires_at);

-- The transcript: items in order.
CREATE TABLE IF NOT EXISTS messages (
    message_id      uuid        PRIMARY KEY,     -- made by the writer: storing an item again is no second item
    conversation_id uuid        NOT NULL REFERENCES conversations,
    session_id      uuid        NOT NULL REFERENCES conversation_sessions,
    item_id         text        NOT NULL,        -- what clients see
    position        bigint      NOT NULL,        -- orders the conversation's items
    role            text        NOT NULL,
    content         text        NOT NULL,
    status          text        NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT item_once_per_conversation UNIQUE (conversation_id, item_id),
    CONSTRAINT role_known CHECK (role IN ('system', 'user', 'assistant')),
    CONSTRAINT status_known CHECK (status IN ('completed', 'incomplete'))
);
-- Beside messages: calls of the client's functions and what came of them. Such an output has a role of its own: only
-- what a user said makes a session worth remembering. A deleted item stays in the transcript.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'messages'::regclass AND attname = 'deleted_at') THEN
        ALTER TABLE messages
            ADD COLUMN kind       text NOT NULL DEFAULT 'message',
            ADD COLUMN call_id    text,        -- a call's and its output's
            ADD COLUMN name       text,        -- of the function called
            ADD COLUMN deleted_at timestamptz, -- by a client: out of the conversation
            DROP CONSTRAINT role_known,
            ADD CONSTRAINT role_known CHECK (role IN ('system', 'user', 'assistant', 'tool')),
            ADD CONSTRAINT shape_known CHECK (CASE kind
                WHEN 'message' THEN role <> 'tool' AND call_id IS NULL AND name IS NULL
                WHEN 'function_call' THEN role = 'assistant' AND call_id IS NOT NULL AND name IS NOT NULL
                WHEN 'function_call_output' THEN role = 'tool' AND call_id IS NOT NULL AND name IS NULL
                ELSE false END);
    END IF;
END $$;
-- By `message_id` where two sessions chose one position: an order that pages can rely on.
CREATE INDEX IF NOT EXISTS messages_by_position ON messages (conversation_id, position, message_id);
DROP INDEX IF EXISTS messages_in_order; -- of earlier versions
-- Not by IF NOT EXISTS, which locks writers out: those who begin a session take its table and this one in another order.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_index JOIN pg_class c ON c.oid = indexrelid
                    WHERE indrelid = 'conversations'::regclass AND relname = 'conversations_by_user') THEN
        CREATE INDEX conversations_by_user ON conversations (user_id, created_at, conversation_id);
    END IF;
END $$;
CREATE INDEX IF NOT EXISTS messages_by_session ON messages (session_id, position);

CREATE TABLE IF NOT EXISTS user_memories (
    memory_id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id           text        NOT NULL,
    kind              text        NOT NULL,
    content           text        NOT NULL,
    quote             text,
    source_session_id uuid        REFERENCES conversation_sessions ON DELETE SET NULL,
    source_item_id    text,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT kind_is_short CHECK (length(kind) BETWEEN 1 AND 32),
    CONSTRAINT content_is_bounded CHECK (length(content) BETWEEN 1 AND 1000)
);
CREATE UNIQUE INDEX IF NOT EXISTS memory_once_per_user ON user_memories (user_id, kind, md5(lower(content)));
CREATE INDEX IF NOT EXISTS memories_newest_first ON user_memories (user_id, updated_at DESC, memory_id DESC);

-- A session's row moves once, from active to ended, and the end is never rewritten.
CREATE OR REPLACE FUNCTION guard_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.session_start > clock_timestamp() OR NOT isfinite(NEW.session_start) THEN
            RAISE EXCEPTION 'session % starts in the future or at no time at all', NEW.session_id
                USING ERRCODE = 'check_violation';
        END IF;
        IF NEW.conversation_id IS NULL THEN
            INSERT INTO conversations (user_id, created_at) VALUES (NEW.user_id, NEW.session_start)
                RETURNING conversation_id INTO NEW.conversation_id;
        END IF;
    ELSIF (NEW.session_id, NEW.conversation_id, NEW.user_id, NEW.instance_id, NEW.session_start, NEW.credential_id)
            IS DISTINCT FROM
            (OLD.session_id, OLD.conversation_id, OLD.user_id, OLD.instance_id, OLD.session_start, OLD.credential_id) THEN
        RAISE EXCEPTION 'session %: whose it is and when it began is fixed', OLD.session_id
            USING ERRCODE = 'check_violation';
    ELSIF NOT OLD.is_active THEN
        IF (NEW.is_active, NEW.instance_id, NEW.session_end, NEW.ended_at, NEW.duration_seconds, NEW.end_reason,
                NEW.close_code, NEW.closed_by)
            IS DISTINCT FROM (OLD.is_active, OLD.instance_id, OLD.session_end, OLD.ended_at, OLD.duration_seconds,
                OLD.end_reason, OLD.close_code, OLD.closed_by) THEN
            RAISE EXCEPTION 'session % has ended: it cannot be reopened, and its end cannot be rewritten',
                OLD.session_id USING ERRCODE = 'check_violation';
        END IF;
        RETURN NEW;
    END IF;

    IF NOT NEW.is_active THEN
        -- A transaction may be older than the session that it closes, and an age may be measured a hair too long:
        -- the end is held between the start and now, rather than refused.
        NEW.session_end := greatest(NEW.session_start, least(coalesce(NEW.session_end, now()), clock_timestamp()));
        NEW.ended_at := greatest(NEW.session_end, now());
        NEW.duration_seconds := extract(epoch FROM NEW.session_end - NEW.session_start);
        NEW.end_reason := coalesce(NEW.end_reason, 'by_hand');
        IF TG_OP = 'UPDATE' THEN
            -- A snapshot older than the last message cannot see it: finalizing a silent session costs nothing.
            IF current_setting('transaction_isolation') <> 'read committed'
                OR EXISTS (SELECT FROM messages WHERE session_id = NEW.session_id AND role = 'user') THEN
                NEW.memory_status := 'pending';
                NEW.memory_due_at := now();
            END IF;
            -- The owner knows of the ends that it wrote itself; a notification costs a lock that all commits share.
            IF NEW.instance_id IS NOT NULL AND NEW.closed_by IS DISTINCT FROM NEW.instance_id THEN
                PERFORM pg_notify('lastcall_' || replace(NEW.instance_id::text, '-', ''), NEW.session_id::text);
            END IF;
        END IF;
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER guard_session BEFORE INSERT OR UPDATE ON conversation_sessions
    FOR EACH ROW EXECUTE FUNCTION guard_session();

-- A key or client secret is revoked once, for good, and nothing else of it ever changes.
CREATE OR REPLACE FUNCTION guard_credential() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF to_jsonb(NEW) - 'revoked_at' IS DISTINCT FROM to_jsonb(OLD) - 'revoked_at' THEN
        RAISE EXCEPTION 'a key or client secret can only be revoked; create another one instead'
            USING ERRCODE = 'check_violation';
    END IF;
    NEW.revoked_at := coalesce(OLD.revoked_at, NEW.revoked_at);
    RETURN NEW;
END $$;

-- Whoever revokes or deletes it closes its sessions in the same transaction; their servers are told, and drop the
-- sockets. A begin that is not committed yet holds the credential's row FOR SHARE: it is waited for, then seen. An older
-- snapshot would not see it.
CREATE OR REPLACE FUNCTION close_sessions_of_credential() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    credential uuid := coalesce(to_jsonb(OLD) ->> 'secret_id', to_jsonb(OLD) ->> 'key_id');
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'keys and client secrets are revoked in READ COMMITTED transactions'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    UPDATE conversation_sessions SET is_active = false, end_reason = 'revoked'
     WHERE credential_id = credential AND is_active;
    IF TG_TABLE_NAME = 'api_keys' AND TG_OP = 'UPDATE' THEN
        UPDATE client_secrets SET revoked_at = NEW.revoked_at WHERE key_id = OLD.key_id AND revoked_at IS NULL;
    END IF;
    RETURN NULL;
END $$;

DO $$
DECLARE
    credentials text;
BEGIN
    FOREACH credentials IN ARRAY ARRAY['api_keys', 'client_secrets'] LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER guard_credential BEFORE UPDATE ON %I
            FOR EACH ROW EXECUTE FUNCTION guard_credential()', credentials);
        EXECUTE format('CREATE OR REPLACE TRIGGER revoke_credential AFTER UPDATE ON %I
            FOR EACH ROW WHEN (OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL)
            EXECUTE FUNCTION close_sessions_of_credential()', credentials);
        EXECUTE format('CREATE OR REPLACE TRIGGER delete_credential AFTER DELETE ON %I
            FOR EACH ROW EXECUTE FUNCTION close_sessions_of_credential()', credentials);
    END LOOP;
END $$;

-- What the group-commit writer stores, in one statement: one round trip for any mix of writes. `writes` holds lists of
-- `starts`, `items`, `deletions` and `ends`, each of which may be missing. Starts come first and ends last, since one
-- batch may hold a whole session. The answer has the same keys, `at`, when it was, and `fresh`.
--
-- asked: when the server sent it, by its estimate of this clock; ages count back from then. A statement that comes to
-- run more than `patience` later stores nothing (`fresh` is false), and one that takes longer fails: a frozen database
-- runs on waking what it was sent before, also by a process that has long given it up. A start could then land after
-- its session's end.
--
-- Generic plans: all its statements find their rows by keys. Planned anew for each of a connection's first five calls,
-- they took nearly twice as long, on six connections of every server that starts or finds its database again.
CREATE OR REPLACE FUNCTION commit_batch(asked timestamptz, patience interval, writes jsonb) RETURNS jsonb
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    moment timestamptz := least(now(), asked);
    answer jsonb := jsonb_build_object('at', extract(epoch FROM now()), 'fresh', true);
BEGIN
    IF asked NOT BETWEEN now() - patience AND now() + patience THEN
        RETURN answer || '{"fresh": false}';
    END IF;
    IF writes ? 'starts' THEN
        answer := answer || jsonb_build_object('starts', begin_sessions(writes -> 'starts', moment));
    END IF;
    IF writes ? 'items' THEN
        answer := answer || jsonb_build_object('items', append_items(writes -> 'items'));
    END IF;
    IF writes ? 'deletions' THEN
        answer := answer || jsonb_build_object('deletions', delete_items(writes -> 'deletions'));
    END IF;
    IF writes ? 'ends' THEN
        answer := answer || jsonb_build_object('ends', end_sessions(writes -> 'ends', moment));
    END IF;
    IF clock_timestamp() > now() + patience THEN
        RAISE EXCEPTION 'the batch took longer than %', patience USING ERRCODE = 'query_canceled';
    END IF;
    RETURN answer;
END $$;

-- The values of a key in a list of objects.
CREATE OR REPLACE FUNCTION ids_of(rows jsonb, key text) RETURNS uuid[] LANGUAGE sql IMMUTABLE AS
$$ SELECT array_agg(DISTINCT (each ->> key)::uuid) FROM jsonb_array_elements(rows) each $$;

-- FOR KEY SHARE: an instance is not declared dead while it begins sessions, and begins none once it is; it may renew its
-- lease meanwhile, for which commits that overlap would leave no gap. FOR SHARE: nor is a key or client secret revoked
-- meanwhile. One that somebody is about to change is skipped, not waited for: all sessions share this statement. The
-- answer: which instances, keys and secrets may begin sessions, and of each, whether it is free.
CREATE OR REPLACE FUNCTION begin_sessions(starts jsonb, moment timestamptz) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    instances   uuid[] := ids_of(starts, 'instance_id');
    credentials uuid[] := ids_of(starts, 'credential_id');
    answer      jsonb;
BEGIN
    WITH living AS MATERIALIZED (
        SELECT instance_id FROM server_instances
         WHERE instance_id = ANY (instances) AND reaped_at IS NULL AND stopped_at IS NULL FOR KEY SHARE
    ), free_key AS MATERIALIZED (
        SELECT key_id FROM api_keys WHERE key_id = ANY (credentials) AND revoked_at IS NULL FOR SHARE SKIP LOCKED
    ), free_secret AS MATERIALIZED (
        SELECT secret_id FROM client_secrets
         WHERE secret_id = ANY (credentials) AND revoked_at IS NULL FOR SHARE SKIP LOCKED
    ), allowed AS (
        SELECT instance_id AS id, true AS free FROM living
        UNION ALL SELECT key_id, key_id IN (SELECT key_id FROM free_key) FROM api_keys
                   WHERE key_id = ANY (credentials) AND revoked_at IS NULL
        UNION ALL SELECT secret_id, secret_id IN (SELECT secret_id FROM free_secret) FROM client_secrets
                   WHERE secret_id = ANY (credentials) AND revoked_at IS NULL
    ), starting AS (
        SELECT t.* FROM jsonb_to_recordset(starts) AS t (
            session_id uuid, conversation_id uuid, user_id text, instance_id uuid, age_seconds double precision,
            credential_id uuid) JOIN living USING (instance_id)
         WHERE credential_id IS NULL OR credential_id IN (SELECT id FROM allowed WHERE free)
    ), new_conversation AS (
        INSERT INTO conversations (conversation_id, user_id)
        SELECT conversation_id, user_id FROM starting ON CONFLICT (conversation_id) DO NOTHING
    ), begun AS (
        INSERT INTO conversation_sessions
               (session_id, conversation_id, user_id, instance_id, session_start, credential_id)
        SELECT session_id, conversation_id, user_id, instance_id, moment - make_interval(secs => age_seconds),
               credential_id
          FROM starting
        ON CONFLICT (session_id) DO NOTHING
    )
    SELECT coalesce(jsonb_object_agg(id, free), '{}') INTO answer FROM allowed;
    RETURN answer;
END $$;

-- The fence: FOR SHARE makes a close of the row wait for this commit. A row that somebody else is about to close is
-- skipped, not waited for: all sessions share this statement. The answer says what became of each item: `stored`,
-- `held` (skipped, or closed just now) or `closed`.
CREATE OR REPLACE FUNCTION append_items(items jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    sessions uuid[] := ids_of(items, 'session_id');
    answer   jsonb;
BEGIN
    WITH item AS (
        SELECT * FROM ROWS FROM (jsonb_to_recordset(items) AS (
            message_id uuid, conversation_id uuid, session_id uuid, item_id text, position bigint, role text,
            content text, status text, kind text, call_id text, name text, deleted boolean)) WITH ORDINALITY AS t (
            message_id, conversation_id, session_id, item_id, position, role, content, status, kind, call_id, name,
            deleted, ordinality)
    ), live AS MATERIALIZED (
        SELECT session_id FROM conversation_sessions WHERE session_id = ANY (sessions) AND is_active
         ORDER BY session_id FOR SHARE SKIP LOCKED
    ), stored AS (
        INSERT INTO messages (message_id, conversation_id, session_id, item_id, position, role, content, status, kind,
                              call_id, name, deleted_at)
        SELECT message_id, conversation_id, session_id, item_id, position, role, content, status, kind,
               call_id, name, CASE WHEN deleted THEN now() END
          FROM item JOIN live USING (session_id) ORDER BY ordinality
        ON CONFLICT (message_id) DO NOTHING
    ), seen AS (
        SELECT session_id, is_active FROM conversation_sessions WHERE session_id = ANY (sessions)
    )
    SELECT jsonb_agg(CASE WHEN live.session_id IS NOT NULL THEN 'stored' WHEN is_active THEN 'held' ELSE 'closed' END
                     ORDER BY ordinality)
      INTO answer FROM item LEFT JOIN live USING (session_id) LEFT JOIN seen USING (session_id);
    RETURN answer;
END $$;

-- Fenced as `append_items` is; an item's row that somebody else holds is skipped as a session's is. The answer, of each:
-- deleted (now or before), held, closed (the session) or unknown. The conversation is the session's own. One by one,
-- for they are few, and each reads two rows by their keys. As one statement, which PostgreSQL plans anew each time, a
-- lone deletion costs four times as much; only from some twenty on it costs less.
CREATE OR REPLACE FUNCTION delete_items(deletions jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    deletion record;
    conversation uuid;
    message record;
    words jsonb := '[]';
    word text;
BEGIN
    FOR deletion IN SELECT * FROM jsonb_to_recordset(deletions) AS t (session_id uuid, item_id text) LOOP
        SELECT conversation_id INTO conversation FROM conversation_sessions
         WHERE session_id = deletion.session_id AND is_active FOR SHARE SKIP LOCKED;
        IF NOT FOUND THEN
            PERFORM FROM conversation_sessions WHERE session_id = deletion.session_id AND is_active;
            word := CASE WHEN FOUND THEN 'held' ELSE 'closed' END;
        ELSE
            SELECT message_id, deleted_at INTO message FROM messages
             WHERE conversation_id = conversation AND item_id = deletion.item_id;
            word := CASE WHEN NOT FOUND THEN 'unknown' WHEN message.deleted_at IS NOT NULL THEN 'deleted' ELSE 'held' END;
            IF word = 'held' THEN
                UPDATE messages SET deleted_at = now() WHERE message_id = (
                    SELECT m.message_id FROM messages m WHERE m.message_id = message.message_id
                       FOR NO KEY UPDATE SKIP LOCKED);
                word := CASE WHEN FOUND THEN 'deleted' ELSE 'held' END;
            END IF;
        END IF;
        words := words || to_jsonb(word);
    END LOOP;
    RETURN words;
END $$;

-- A row that somebody else holds is skipped, not waited for, and answered with false: all sessions share this statement.
-- Rows that were closed before are not in the answer.
CREATE OR REPLACE FUNCTION end_sessions(ends jsonb, moment timestamptz) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    sessions uuid[] := ids_of(ends, 'session_id');
    answer   jsonb;
BEGIN
    WITH ending AS (
        SELECT * FROM jsonb_to_recordset(ends) AS t (
            session_id uuid, instance_id uuid, age_seconds double precision, end_reason text, close_code integer)
    ), free AS MATERIALIZED (
        SELECT session_id FROM conversation_sessions WHERE session_id = ANY (sessions) AND is_active
         ORDER BY session_id FOR NO KEY UPDATE SKIP LOCKED
    ), ended AS (
        UPDATE conversation_sessions s
           SET is_active = false, session_end = moment - make_interval(secs => e.age_seconds),
               end_reason = e.end_reason, close_code = e.close_code, closed_by = e.instance_id
          FROM ending e JOIN free USING (session_id) WHERE s.session_id = e.session_id AND s.is_active
        RETURNING s.session_id
    )
    SELECT coalesce(jsonb_object_agg(s.session_id, ended.session_id IS NOT NULL), '{}') INTO answer
      FROM conversation_sessions s LEFT JOIN ended USING (session_id)
     WHERE s.session_id = ANY (sessions) AND s.is_active;
    RETURN answer;
END $$;

-- What is behind each session: 'live', 'orphaned' (active, but no living server owns it) or 'ended'. In the second after
-- an outage of the database itself, before the living have renewed their leases, it may call theirs orphaned.
CREATE OR REPLACE VIEW session_truth AS
SELECT s.session_id, s.conversation_id, s.user_id, s.instance_id, s.is_active, s.session_start, s.session_end,
       s.ended_at, s.duration_seconds, s.end_reason, s.close_code, s.memory_status,
       CASE WHEN NOT s.is_active THEN 'ended'
            WHEN i.stopped_at IS NULL AND i.reaped_at IS NULL
                AND i.heartbeat_at > now() - make_interval(secs => i.lease_seconds)
                THEN 'live'
            ELSE 'orphaned' END AS state,
       i.hostname, i.pid,
       i.heartbeat_at AS owner_last_seen
  FROM conversation_sessions s LEFT JOIN server_instances i USING (instance_id);

CREATE OR REPLACE VIEW orphaned_sessions AS
SELECT session_id, conversation_id, user_id, instance_id, hostname, pid, session_start, owner_last_seen,
       extract(epoch FROM now() - session_start) / 3600 AS hours_active
  FROM session_truth WHERE state = 'orphaned';

CREATE OR REPLACE VIEW daily_session_stats AS
SELECT date(session_start) AS date, count(*) AS total_sessions, avg(duration_seconds) AS avg_duration,
       count(*) FILTER (WHERE is_active) AS still_active,
       count(*) FILTER (WHERE memory_status = 'pending') AS memory_pending,
       count(*) FILTER (WHERE memory_status = 'failed') AS memory_failed
  FROM conversation_sessions GROUP BY date(session_start);

INSERT INTO lastcall_schema (version) VALUES (6) ON CONFLICT (version) DO UPDATE SET applied_at = now(), digest = NULL;
COMMIT;
