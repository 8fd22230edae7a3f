-- The schema of lastcall, for PostgreSQL 14 and up. It holds the state machine of a session, so that no writer, not
-- even a person in psql, can store a contradiction. Applying it again is safe, also while servers run or apply it too.

BEGIN;
SELECT pg_advisory_xact_lock(hashtext('lastcall schema'));
-- Every plpgsql function below keeps this search path (SET search_path FROM CURRENT): the schema of the tables, and
-- temporary tables last. So no table or function of the same name elsewhere on a caller's path takes the place of ours.
-- The functions in plain SQL need none: RETURN binds their names when they are created, and they can still be inlined.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

CREATE TABLE IF NOT EXISTS lastcall_schema (
    version    integer     PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now(),
    digest     text,                    -- SHA-256 of the file that a server applied; NULL: applied by hand
    release    text                     -- of lastcall that applied it; an older one leaves it alone
);
ALTER TABLE lastcall_schema ADD COLUMN IF NOT EXISTS release text;

-- Replaces an empty table by one of the same name that is hash-partitioned by user_id, with the same columns, checks and
-- keys. 0: it stays as it is: partitions cost each statement time, and pay off only for a table that one is too large for.
CREATE OR REPLACE FUNCTION partition_by_user(name text, partitions integer) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    whole     text := name || '_whole';
    keys      text[];
    storage   text;
    statement text;
BEGIN
    IF partitions NOT BETWEEN 0 AND 1024 THEN
        RAISE EXCEPTION 'lastcall.partitions must be 0 to 1024' USING ERRCODE = 'invalid_parameter_value';
    ELSIF partitions = 0 OR EXISTS (SELECT FROM pg_partitioned_table WHERE partrelid = name::regclass) THEN
        RETURN;
    END IF;
    SELECT array_agg(format('ALTER TABLE %I ADD CONSTRAINT %I %s', name, conname, pg_get_constraintdef(oid))) INTO keys
      FROM pg_constraint WHERE conrelid = name::regclass AND contype IN ('p', 'f');
    SELECT coalesce('WITH (' || array_to_string(reloptions, ', ') || ')', '') INTO storage
      FROM pg_class WHERE oid = name::regclass;
    EXECUTE format('ALTER TABLE %I RENAME TO %I', name, whole);
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)'
                   ' PARTITION BY HASH (user_id)', name, whole);
    EXECUTE format('DROP TABLE %I', whole);
    FOR number IN 0 .. partitions - 1 LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS %s, REMAINDER %s) %s',
                       name || '_' || number, name, partitions, number, storage);
    END LOOP;
    FOREACH statement IN ARRAY keys LOOP
        EXECUTE statement;
    END LOOP;
END $$;

-- How many partitions each large table gets that is made here. Chosen once: where there are tables, they stay as they are.
SELECT set_config('lastcall.partitions', CASE WHEN to_regclass('messages') IS NULL
                  THEN coalesce(nullif(current_setting('lastcall.partitions', true), ''), '0') ELSE '0' END, true);

-- ---------------------------------------------------------------------------------------------- instances

-- One row per server process. Its lease: a heartbeat at least every lease_seconds. Others watch it by their own clocks,
-- since the clock of this database may be set.
CREATE TABLE IF NOT EXISTS server_instances (
    instance_id     uuid             PRIMARY KEY,
    hostname        text             NOT NULL,
    pid             integer          NOT NULL,
    host_id         text,                      -- boot id and pid namespace: where the pid is valid
    process_started bigint,                    -- by the kernel's clock, since pids are reused
    version         text             NOT NULL,
    lease_seconds   double precision NOT NULL DEFAULT 10,
    started_at      timestamptz      NOT NULL DEFAULT now(),
    heartbeat_at    timestamptz      NOT NULL DEFAULT now(),
    guarded_at      timestamptz,               -- when it last took its advisory lock
    guarded_by      timestamptz,               -- pg_postmaster_start_time() then: names that run of PostgreSQL
    stopped_at      timestamptz,               -- shut down in order
    reaped_at       timestamptz                -- declared dead by another server
);

ALTER TABLE server_instances ADD COLUMN IF NOT EXISTS guarded_by timestamptz;

-- Key of the advisory lock that an instance holds on its lease connection: free once that connection is gone.
CREATE OR REPLACE FUNCTION instance_lock_key(instance_id uuid) RETURNS bigint LANGUAGE sql IMMUTABLE
RETURN hashtextextended('lastcall instance ' || instance_id::text, 0);

-- -------------------------------------------------------------------------------------------- credentials

-- Keys and client secrets are 256 random bits: a plain SHA-256 is enough, there is nothing to guess from it.
CREATE TABLE IF NOT EXISTS api_keys (
    key_id      uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    subject     text        NOT NULL,   -- the user of its sessions, or the name of a backend
    scope       text        NOT NULL,
    prefix      text        NOT NULL,   -- first characters of the key, so that people can recognise it
    secret_hash bytea       NOT NULL UNIQUE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz,
    CONSTRAINT subject_is_named CHECK (length(subject) BETWEEN 1 AND 256),
    CONSTRAINT scope_known CHECK (scope IN ('service', 'user', 'admin', 'reader')),
    CONSTRAINT hash_is_sha256 CHECK (length(secret_hash) = 32)
);

-- Held by a browser. The expiry limits which sessions it may begin, not how long they last. Links and cookies stand here
-- too: in a table of their own, each begin and each revocation would have to lock one more.
CREATE TABLE IF NOT EXISTS client_secrets (
    secret_id       uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    key_id          uuid        REFERENCES api_keys ON DELETE CASCADE,  -- created with it; NULL: no keys were set
    user_id         text        NOT NULL,
    conversation_id uuid,               -- NULL: any conversation of the user, and new ones
    session         text        NOT NULL DEFAULT '{}',                  -- JSON: initial configuration of its sessions
    secret_hash     bytea       NOT NULL UNIQUE,
    created_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz NOT NULL,
    revoked_at      timestamptz,
    used_at         timestamptz,        -- when it was traded for a cookie; a link is worth nothing from then on
    form            text        NOT NULL DEFAULT 'bearer',  -- how it is shown; in any other way it is worth nothing
    origin          text        NOT NULL DEFAULT 'backend', -- who vouches for the user
    link_id         uuid,               -- of a cookie: the secret that it was traded for, and goes with
    CONSTRAINT form_known CHECK (form IN ('bearer', 'link', 'cookie')),
    CONSTRAINT origin_known CHECK (origin IN ('backend', 'operator', 'provider')),
    CONSTRAINT secret_user_is_named CHECK (length(user_id) BETWEEN 1 AND 256),
    CONSTRAINT secret_hash_is_sha256 CHECK (length(secret_hash) = 32)
);
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute
                    WHERE attrelid = 'client_secrets'::regclass AND attname = 'form' AND NOT attisdropped) THEN
        ALTER TABLE client_secrets
            ADD COLUMN form    text NOT NULL DEFAULT 'bearer',
            ADD COLUMN origin  text NOT NULL DEFAULT 'backend',
            ADD COLUMN link_id uuid,
            ADD COLUMN used_at timestamptz,
            ADD CONSTRAINT form_known CHECK (form IN ('bearer', 'link', 'cookie')),
            ADD CONSTRAINT origin_known CHECK (origin IN ('backend', 'operator', 'provider'));
    END IF;
END $$;
CREATE INDEX IF NOT EXISTS secrets_of_key ON client_secrets (key_id);
CREATE INDEX IF NOT EXISTS secrets_by_expiry ON client_secrets (expires_at);
CREATE INDEX IF NOT EXISTS secrets_of_link ON client_secrets (link_id) WHERE link_id IS NOT NULL;

-- A credential can be revoked, once and for good, and a client secret be used; nothing else in its row can change.
CREATE OR REPLACE FUNCTION guard_credential() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    permitted record := OLD;
BEGIN
    permitted.revoked_at := NEW.revoked_at;
    IF TG_TABLE_NAME = 'client_secrets' THEN
        NEW.used_at := coalesce(OLD.used_at, NEW.used_at);
        permitted.used_at := NEW.used_at;
    END IF;
    IF NEW IS DISTINCT FROM permitted THEN
        RAISE EXCEPTION 'a key or client secret can only be revoked; create another one instead'
            USING ERRCODE = 'check_violation';
    END IF;
    NEW.revoked_at := coalesce(OLD.revoked_at, NEW.revoked_at);
    RETURN NEW;
END $$;

-- Revocations whose transaction had an older snapshot, so that it may have overlooked a session or client secret that
-- the credential had just begun. A server finishes them; a credential in here begins nothing more.
CREATE TABLE IF NOT EXISTS unfinished_revocations (
    revocation_id bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    credential_id uuid        NOT NULL,
    revoked_at    timestamptz NOT NULL DEFAULT now()
);

-- Revoking or deleting a credential closes its sessions in the same transaction; the trigger on sessions notifies their
-- servers, which drop the sockets. A begin that is not committed yet holds the credential's row FOR SHARE: the
-- revocation waits for it and then sees its session. In a transaction of another isolation level it does not. Likewise a
-- trade that is not committed yet holds the link, and then its cookie is seen; it writes the link's row too, so that a
-- revocation of another level fails, rather than overlook the cookie.
CREATE OR REPLACE FUNCTION close_sessions_of_credential() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    credential uuid := coalesce(to_jsonb(OLD) ->> 'secret_id', to_jsonb(OLD) ->> 'key_id');
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        INSERT INTO unfinished_revocations (credential_id) VALUES (credential);
    END IF;
    UPDATE conversation_sessions SET is_active = false, end_reason = 'revoked'
     WHERE credential_id = credential AND is_active;
    IF TG_TABLE_NAME = 'api_keys' AND TG_OP = 'UPDATE' THEN
        UPDATE client_secrets SET revoked_at = NEW.revoked_at WHERE key_id = OLD.key_id AND revoked_at IS NULL;
    END IF;
    -- Not where a secret goes because it expired long ago: its cookie has a time of its own.
    IF TG_TABLE_NAME = 'client_secrets'
       AND (TG_OP = 'UPDATE' OR (to_jsonb(OLD) ->> 'expires_at')::timestamptz > now()) THEN
        UPDATE client_secrets SET revoked_at = now() WHERE link_id = credential AND revoked_at IS NULL;
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER guard_credential BEFORE UPDATE ON api_keys
    FOR EACH ROW EXECUTE FUNCTION guard_credential();
CREATE OR REPLACE TRIGGER revoke_credential AFTER UPDATE ON api_keys
    FOR EACH ROW WHEN (OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL)
    EXECUTE FUNCTION close_sessions_of_credential();
CREATE OR REPLACE TRIGGER delete_credential AFTER DELETE ON api_keys
    FOR EACH ROW EXECUTE FUNCTION close_sessions_of_credential();
CREATE OR REPLACE TRIGGER guard_credential BEFORE UPDATE ON client_secrets
    FOR EACH ROW EXECUTE FUNCTION guard_credential();
CREATE OR REPLACE TRIGGER revoke_credential AFTER UPDATE ON client_secrets
    FOR EACH ROW WHEN (OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL)
    EXECUTE FUNCTION close_sessions_of_credential();
CREATE OR REPLACE TRIGGER delete_credential AFTER DELETE ON client_secrets
    FOR EACH ROW EXECUTE FUNCTION close_sessions_of_credential();

-- ------------------------------------------------------------------------------ conversations and sessions

CREATE TABLE IF NOT EXISTS conversations (
    conversation_id uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id         text        NOT NULL,
    title           text,               -- given by hand; NULL: the first words that the user said there
    created_at      timestamptz NOT NULL DEFAULT now(),
    removed_at      timestamptz,        -- by its user: no longer shown, nor resumed
    CONSTRAINT conversation_of_one_user UNIQUE (conversation_id, user_id),
    CONSTRAINT user_is_named CHECK (length(user_id) BETWEEN 1 AND 256),
    -- For lists, newest first. A constraint, because CREATE INDEX locks writers out even where the index exists, and would
    -- deadlock with them: some write here before they write to conversation_sessions, some after.
    CONSTRAINT conversations_by_user UNIQUE (user_id, created_at, conversation_id)
);

-- Only where it is missing: even a column that is there would lock writers out, and deadlock with them.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute
                    WHERE attrelid = 'conversations'::regclass AND attname = 'removed_at' AND NOT attisdropped) THEN
        ALTER TABLE conversations ADD COLUMN removed_at timestamptz;
    END IF;
END $$;

-- What a conversation is called that nobody has given a title: the first words of a text, in one line.
CREATE OR REPLACE FUNCTION title_of(words text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN nullif(left(btrim(regexp_replace(left(words, 500), '\s+', ' ', 'g')), 80), '');

CREATE TABLE IF NOT EXISTS conversation_sessions (
    session_id          uuid             PRIMARY KEY DEFAULT gen_random_uuid(),
    conversation_id     uuid             NOT NULL,   -- created by the trigger where an import leaves it out
    user_id             text             NOT NULL,
    instance_id         uuid             REFERENCES server_instances,   -- NULL: imported, no server behind it
    credential_id       uuid,             -- key or client secret that it was begun with; NULL: neither
    is_active           boolean          NOT NULL DEFAULT true,
    session_start       timestamptz      NOT NULL DEFAULT now(),
    session_end         timestamptz,      -- when the session really ended
    ended_at            timestamptz,      -- when the row was closed
    duration_seconds    double precision, -- session_end - session_start
    end_reason          text,
    close_code          integer,          -- of the WebSocket, where a close frame was exchanged
    closed_by           uuid,             -- instance that closed the row; NULL: a person
    memory_status       text             NOT NULL DEFAULT 'none',
    memory_attempts     integer          NOT NULL DEFAULT 0,
    memory_due_at       timestamptz,      -- moved ahead by a claim and by a back-off
    memory_error        text,
    memory_finalized_at timestamptz,
    shared              boolean          NOT NULL DEFAULT false,  -- others are open in its conversation: they are told of changes
    CONSTRAINT session_in_own_conversation FOREIGN KEY (conversation_id, user_id)
        REFERENCES conversations (conversation_id, user_id),
    CONSTRAINT sessions_by_conversation UNIQUE (conversation_id, session_id, user_id),
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
DO $$ BEGIN -- only where it is missing, as above
    IF NOT EXISTS (SELECT FROM pg_attribute
                    WHERE attrelid = 'conversation_sessions'::regclass AND attname = 'shared' AND NOT attisdropped) THEN
        ALTER TABLE conversation_sessions ADD COLUMN shared boolean NOT NULL DEFAULT false;
    END IF;
END $$;
CREATE INDEX IF NOT EXISTS sessions_active ON conversation_sessions (instance_id, session_start) WHERE is_active;
CREATE INDEX IF NOT EXISTS sessions_by_start ON conversation_sessions (session_start);
CREATE INDEX IF NOT EXISTS sessions_by_user ON conversation_sessions (user_id, session_start);
CREATE INDEX IF NOT EXISTS sessions_of_credential ON conversation_sessions (credential_id)
    WHERE is_active AND credential_id IS NOT NULL;
-- Empty while no conversation is open twice.
CREATE INDEX IF NOT EXISTS sessions_shared ON conversation_sessions (conversation_id) WHERE is_active AND shared;
CREATE INDEX IF NOT EXISTS memory_pending ON conversation_sessions (memory_due_at) WHERE memory_status = 'pending';
CREATE INDEX IF NOT EXISTS memory_pending_of_user ON conversation_sessions (user_id) WHERE memory_status = 'pending';

-- A session's row changes once, from active to ended; after that only its memory columns may change. Columns that are
-- not named in `permitted` are refused, so that a new column is protected until somebody decides otherwise.
CREATE OR REPLACE FUNCTION guard_session() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    permitted record;
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.session_start > clock_timestamp() OR NOT isfinite(NEW.session_start) THEN
            RAISE EXCEPTION 'session %: session_start must be a finite time that is not in the future', NEW.session_id
                USING ERRCODE = 'check_violation';
        END IF;
        IF NEW.conversation_id IS NULL THEN
            INSERT INTO conversations (user_id, created_at) VALUES (NEW.user_id, NEW.session_start)
                RETURNING conversation_id INTO NEW.conversation_id;
        END IF;
    ELSE
        permitted := OLD;
        IF NOT OLD.is_active THEN
            permitted.memory_status       := NEW.memory_status;
            permitted.memory_attempts     := NEW.memory_attempts;
            permitted.memory_due_at       := NEW.memory_due_at;
            permitted.memory_error        := NEW.memory_error;
            permitted.memory_finalized_at := NEW.memory_finalized_at;
        ELSIF NOT NEW.is_active THEN
            permitted.is_active        := NEW.is_active;
            permitted.session_end      := NEW.session_end;
            permitted.ended_at         := NEW.ended_at;
            permitted.duration_seconds := NEW.duration_seconds;
            permitted.end_reason       := NEW.end_reason;
            permitted.close_code       := NEW.close_code;
            permitted.closed_by        := NEW.closed_by;
        ELSE
            permitted.shared           := OLD.shared OR NEW.shared;
        END IF;
        IF NEW IS DISTINCT FROM permitted THEN
            RAISE EXCEPTION 'session % %', OLD.session_id, CASE WHEN OLD.is_active
                THEN 'is active: it can be ended, but not changed'
                ELSE 'has ended: only its memory columns can still change' END
                USING ERRCODE = 'check_violation';
        END IF;
        IF NOT OLD.is_active THEN
            RETURN NEW;
        END IF;
    END IF;

    IF NOT NEW.is_active THEN
        -- A transaction may be older than the session that it closes, and a measured age may be slightly too long: the
        -- end is clamped to between the start and now, not refused.
        NEW.session_end := greatest(NEW.session_start, least(coalesce(NEW.session_end, now()), clock_timestamp()));
        NEW.ended_at := greatest(NEW.session_end, now());
        NEW.duration_seconds := extract(epoch FROM NEW.session_end - NEW.session_start);
        NEW.end_reason := coalesce(NEW.end_reason, 'by_hand');
        IF TG_OP = 'UPDATE' THEN
            -- A snapshot from before the last message would miss it, so other isolation levels always queue the memory
            -- work: for a session in which the user said nothing it costs nothing.
            IF current_setting('transaction_isolation') <> 'read committed'
                OR user_spoke(NEW.user_id, NEW.session_id) THEN
                NEW.memory_status := 'pending';
                NEW.memory_due_at := now();
            END IF;
            -- Not for ends that the owner wrote itself: a notification takes a lock that all commits share.
            IF NEW.instance_id IS NOT NULL AND NEW.closed_by IS DISTINCT FROM NEW.instance_id THEN
                PERFORM pg_notify('lastcall_' || replace(NEW.instance_id::text, '-', ''), NEW.session_id::text);
            END IF;
        END IF;
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER guard_session BEFORE INSERT OR UPDATE ON conversation_sessions
    FOR EACH ROW EXECUTE FUNCTION guard_session();

-- A row that is deleted, by whatever cascade, ends its session as a closed one does: its server drops the socket.
CREATE OR REPLACE FUNCTION notify_of_deleted_session() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM pg_notify('lastcall_' || replace(OLD.instance_id::text, '-', ''), OLD.session_id::text);
    RETURN NULL;
END $$;

-- BEFORE: once the table is truncated, nobody can tell which sessions were open.
CREATE OR REPLACE FUNCTION notify_of_truncated_sessions() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM pg_notify('lastcall_' || replace(instance_id::text, '-', ''), session_id::text)
       FROM conversation_sessions WHERE is_active AND instance_id IS NOT NULL;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER delete_session AFTER DELETE ON conversation_sessions
    FOR EACH ROW WHEN (OLD.is_active AND OLD.instance_id IS NOT NULL) EXECUTE FUNCTION notify_of_deleted_session();
CREATE OR REPLACE TRIGGER truncate_sessions BEFORE TRUNCATE ON conversation_sessions
    FOR EACH STATEMENT EXECUTE FUNCTION notify_of_truncated_sessions();

-- The transcript: messages, and calls of the client's functions with their outputs. The output of a function has a role
-- of its own, since only what the user said makes a session worth remembering. A deleted item stays in the transcript.
CREATE TABLE IF NOT EXISTS messages (
    user_id         text        NOT NULL,        -- of the session; what is said of a user is in their partition
    message_id      uuid        NOT NULL,        -- chosen by the writer, so that storing an item twice has no effect
    conversation_id uuid        NOT NULL,
    session_id      uuid        NOT NULL,
    item_id         text        NOT NULL,        -- the id that clients see; free again once its item is deleted
    position        bigint      NOT NULL,        -- order within the conversation
    kind            text        NOT NULL DEFAULT 'message',
    role            text        NOT NULL,
    content         text        NOT NULL,        -- a message's text, a call's arguments, or its output
    call_id         text,                        -- joins a call and its output
    name            text,                        -- of the function called
    status          text        NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    deleted_at      timestamptz,                 -- by a client: no longer part of the conversation
    PRIMARY KEY (user_id, message_id),
    CONSTRAINT role_known CHECK (role IN ('system', 'user', 'assistant', 'tool')),
    CONSTRAINT status_known CHECK (status IN ('completed', 'incomplete')),
    CONSTRAINT shape_known CHECK (CASE kind
        WHEN 'message' THEN role <> 'tool' AND call_id IS NULL AND name IS NULL
        WHEN 'function_call' THEN role = 'assistant' AND call_id IS NOT NULL AND name IS NOT NULL
        WHEN 'function_call_output' THEN role = 'tool' AND call_id IS NOT NULL AND name IS NULL
        ELSE false END),
    CONSTRAINT item_of_its_session FOREIGN KEY (user_id, conversation_id, session_id) -- and so of a conversation there is
        REFERENCES conversation_sessions (user_id, conversation_id, session_id)
);
SELECT partition_by_user('messages', current_setting('lastcall.partitions')::integer);
-- An older schema had a constraint of this name, which kept the ids of deleted items from being used again. Dropped only
-- where it is there: that locks the table.
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_constraint
                WHERE conrelid = 'messages'::regclass AND conname = 'item_once_per_conversation') THEN
        ALTER TABLE messages DROP CONSTRAINT item_once_per_conversation;
    END IF;
END $$;
CREATE UNIQUE INDEX IF NOT EXISTS item_once_per_conversation ON messages (user_id, conversation_id, item_id)
    WHERE deleted_at IS NULL;
-- Deleted items are found by their id too: for a deletion that is sent again, and for pages that begin at one.
CREATE INDEX IF NOT EXISTS deleted_items ON messages (user_id, conversation_id, item_id)
    WHERE deleted_at IS NOT NULL;
-- A resumed conversation is told of these however old they are.
CREATE INDEX IF NOT EXISTS system_items ON messages (user_id, conversation_id, position, message_id)
    WHERE role = 'system' AND deleted_at IS NULL;
-- With message_id, since two sessions may choose the same position and pages need a total order.
CREATE INDEX IF NOT EXISTS messages_by_position ON messages (user_id, conversation_id, position, message_id);
CREATE INDEX IF NOT EXISTS messages_by_session ON messages (user_id, session_id, position);

-- Functions, so that no table is read from end to end for each session that a sweep closes: the plans of both may be from
-- when all messages were of one session, and EXISTS hopes for an early row.
CREATE OR REPLACE FUNCTION user_spoke(owner text, session uuid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET enable_seqscan = off AS $$
BEGIN
    RETURN EXISTS (SELECT FROM messages WHERE user_id = owner AND session_id = session AND role = 'user');
END $$;

CREATE OR REPLACE FUNCTION last_item_at(owner text, session uuid) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET enable_seqscan = off AS $$
BEGIN
    RETURN (SELECT max(created_at) FROM messages WHERE user_id = owner AND session_id = session);
END $$;

-- What each answer of the agent took, whether or not it left an item: it may have failed, or been outside the
-- conversation. Rows stay when items are deleted, and go with their session (see forget_sessions). Without a foreign key,
-- whose lock would wait, and whose own look-up would need a key that does not begin with the user.
CREATE TABLE IF NOT EXISTS agent_responses (
    user_id       text        NOT NULL,
    session_id    uuid        NOT NULL,
    response_id   uuid        NOT NULL,
    key_id        uuid,                   -- of the session, or whose client secret it was opened with; NULL: none
    started_at    timestamptz NOT NULL,
    first_at      timestamptz,            -- the agent's first piece; NULL: there was none
    ended_at      timestamptz NOT NULL,   -- its last one, before it was stored
    outcome       text        NOT NULL,   -- completed, incomplete, cancelled or failed
    reason        text,                   -- of every outcome but `completed`
    agent         text        NOT NULL,
    model         text,                   -- NULL: the agent names none
    input_tokens  bigint,                 -- as the model reported them, here and below; NULL: it did not
    output_tokens bigint,
    cached_tokens bigint,                 -- of input_tokens
    PRIMARY KEY (user_id, session_id, response_id),
    CONSTRAINT outcome_known CHECK (outcome IN ('completed', 'incomplete', 'cancelled', 'failed')),
    CONSTRAINT ends_after_its_start CHECK (started_at <= ended_at)
);
-- BRIN, for the reason that sessions_by_end has.
CREATE INDEX IF NOT EXISTS responses_by_end ON agent_responses USING brin (ended_at)
    WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE IF NOT EXISTS user_memories (
    memory_id         bigint      GENERATED ALWAYS AS IDENTITY,
    user_id           text        NOT NULL,
    kind              text        NOT NULL,
    content           text        NOT NULL,
    quote             text,
    source_session_id uuid        REFERENCES conversation_sessions ON DELETE SET NULL,
    source_item_id    text,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, memory_id),
    CONSTRAINT kind_is_short CHECK (length(kind) BETWEEN 1 AND 32),
    CONSTRAINT content_is_bounded CHECK (length(content) BETWEEN 1 AND 1000)
);
ALTER TABLE user_memories
    ADD COLUMN IF NOT EXISTS slot       text        NOT NULL DEFAULT '',    -- what it is about
    ADD COLUMN IF NOT EXISTS words      text[]      NOT NULL DEFAULT '{}',  -- by which an ending finds it
    ADD COLUMN IF NOT EXISTS ended      boolean     NOT NULL DEFAULT false, -- it says that something is so no longer
    ADD COLUMN IF NOT EXISTS valid_from timestamptz NOT NULL DEFAULT now(), -- when it was said
    ADD COLUMN IF NOT EXISTS edited_at  timestamptz,                        -- by a person
    ADD COLUMN IF NOT EXISTS expires_at timestamptz;                        -- NULL: never
CREATE UNIQUE INDEX IF NOT EXISTS memory_once_per_user ON user_memories (user_id, kind, md5(lower(content)));
CREATE INDEX IF NOT EXISTS memories_newest_first ON user_memories (user_id, updated_at DESC, memory_id DESC);
CREATE INDEX IF NOT EXISTS memories_of_item ON user_memories (source_session_id, source_item_id);
CREATE INDEX IF NOT EXISTS memories_by_expiry ON user_memories (expires_at) WHERE expires_at IS NOT NULL;

-- Memories that are not current any more. In a table of their own, so that no reader of user_memories has to know of
-- them. They come back if what superseded them is deleted with its item.
CREATE TABLE IF NOT EXISTS superseded_memories (
    LIKE user_memories,
    superseded_at timestamptz NOT NULL,
    superseded_by bigint,                -- the memory that took its place
    PRIMARY KEY (user_id, memory_id)
);
CREATE INDEX IF NOT EXISTS superseded_of_item ON superseded_memories (source_session_id, source_item_id);

-- What a user had forgotten is not learned again from the same words. Nobody can read them here: they are hashed with
-- a key of this database.
CREATE TABLE IF NOT EXISTS memory_tombstones (
    user_id    text        NOT NULL,
    digest     bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, digest)
);
CREATE TABLE IF NOT EXISTS memory_key (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    key      text    NOT NULL DEFAULT gen_random_uuid()::text || gen_random_uuid()::text
);
INSERT INTO memory_key DEFAULT VALUES ON CONFLICT DO NOTHING;

-- A text in lower case, without white space and punctuation but single spaces.
CREATE OR REPLACE FUNCTION plain_words(said text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN btrim(regexp_replace(lower(said), '[[:space:].,;:!?"''()…。！？、，“”„’-]+', ' ', 'g'));

-- The keyed hash of a user's words, whatever their case, white space and punctuation.
CREATE OR REPLACE FUNCTION words_digest(owner text, said text) RETURNS bytea
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
BEGIN
    RETURN sha256(convert_to((SELECT key FROM memory_key) || length(owner) || owner || plain_words(said), 'UTF8'));
END $$;

-- Turns that a user had forgotten: the conversation keeps them, but they do not come back in another one. Without a
-- foreign key, whose lock would wait for a deletion of the message that waits for the session that is finalized here.
CREATE TABLE IF NOT EXISTS forgotten_turns (
    user_id    text NOT NULL,
    message_id uuid NOT NULL,
    PRIMARY KEY (user_id, message_id)
);

-- Adds the turns that have all of these words, or one of these quotes word for word; until: all turns until then.
CREATE OR REPLACE FUNCTION forget_turns(owner text, words text[], quotes text[], until timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    -- Singular and plural; of languages that put no spaces between words, anywhere.
    patterns text[] := ARRAY(
        SELECT CASE WHEN word ~ '[\u3040-\u30ff\u3400-\u9fff]' THEN word
                    ELSE '\m' || regexp_replace(regexp_replace(word, '([^[:alnum:]])', '\\\1', 'g'), 'y$', '(y|ie)')
                         || '(s|es|[''’]s)?\M' END
          FROM unnest(words) word);
    wanted   text[] := ARRAY(SELECT plain_words(quote) FROM unnest(quotes) quote WHERE length(plain_words(quote)) >= 3);
BEGIN
    INSERT INTO forgotten_turns (user_id, message_id)
    SELECT owner, message_id
      FROM messages, left(content, 8000) said -- no more is searched
     WHERE user_id = owner AND kind = 'message' AND role IN ('user', 'assistant') AND deleted_at IS NULL
       AND (created_at <= until OR (patterns <> '{}' AND lower(said) ~ ALL (patterns))
            OR EXISTS (SELECT FROM unnest(wanted) quote WHERE position(quote IN plain_words(said)) > 0))
    ON CONFLICT DO NOTHING;
END $$;

-- Of these slots, only the newest memory is current; memory/facts/slots.py has the same list.
CREATE OR REPLACE FUNCTION is_one_valued(slot text) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN slot IN ('name', 'home', 'employer', 'age', 'relationship', 'diet', 'vehicle')
    OR (slot LIKE 'favourite:%' AND slot <> 'favourite:thing');

-- Makes memories past ones; by: what supersedes them, or NULL.
CREATE OR REPLACE FUNCTION supersede_memories(owner text, old bigint[], by bigint, at timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    WITH gone AS (DELETE FROM user_memories WHERE user_id = owner AND memory_id = ANY (old) RETURNING *)
    INSERT INTO superseded_memories SELECT gone.*, at, by FROM gone ON CONFLICT DO NOTHING;
END $$;

-- Deletes memories of a user for good, with those that they superseded, and remembers by their hashes not to learn them
-- again. The turns that said so do not come back. Returns the number of memories.
CREATE OR REPLACE FUNCTION forget_memories(owner text, ids bigint[]) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    forgotten bigint;
    quotes    text[];
BEGIN
    WITH gone AS (
        DELETE FROM user_memories WHERE user_id = owner AND memory_id = ANY (ids) RETURNING content, quote
    ), past AS (
        DELETE FROM superseded_memories WHERE user_id = owner AND memory_id = ANY (ids) RETURNING content, quote
    ), each AS (
        SELECT true AS is_current, * FROM gone UNION ALL SELECT false, * FROM past
    ), noted AS (
        INSERT INTO memory_tombstones (user_id, digest)
        SELECT DISTINCT owner, words_digest(owner, said) FROM each, unnest(ARRAY[content, quote]) said
         WHERE said <> '' ON CONFLICT DO NOTHING
    )
    SELECT count(*) FILTER (WHERE is_current), array_agg(quote) INTO forgotten, quotes FROM each;
    DELETE FROM superseded_memories WHERE user_id = owner AND superseded_by = ANY (ids);
    IF quotes IS NOT NULL THEN
        PERFORM forget_turns(owner, '{}', quotes, NULL);
    END IF;
    RETURN forgotten;
END $$;

-- Keeps what was extracted from a session: a list of `Memory`, in order, of which the first `kept` are kept already.
-- Called by finish_memories, which has the user's lock. lifetime: how long a memory is kept after it was said; NULL:
-- forever.
CREATE OR REPLACE FUNCTION keep_memories(
    owner text, session uuid, ended_at timestamptz, memories jsonb, lifetime interval, kept integer) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    memory record;
BEGIN
    FOR memory IN
        SELECT * FROM ROWS FROM (jsonb_to_recordset(memories) AS (
            kind text, content text, item_id text, quote text, slot text, words text[], op text, closes text[],
            replaces bigint[])) WITH ORDINALITY AS t (kind, content, item_id, quote, slot, words, op, closes, replaces,
            ordinality)
         WHERE ordinality > kept ORDER BY ordinality
    LOOP
        PERFORM keep_memory(owner, session, ended_at, lifetime, memory.kind, memory.content, memory.item_id,
                            memory.quote, memory.slot, memory.words, memory.op, memory.closes, memory.replaces);
    END LOOP;
    -- What was forgotten does not come back either where it is said again in the same words.
    IF EXISTS (SELECT FROM memory_tombstones WHERE user_id = owner) THEN
        INSERT INTO forgotten_turns (user_id, message_id)
        SELECT DISTINCT owner, m.message_id
          FROM jsonb_to_recordset(memories) AS t (content text, item_id text, quote text, op text)
          JOIN messages m ON m.user_id = owner AND m.session_id = session AND m.item_id = t.item_id
         WHERE t.op = 'forget' OR EXISTS (
               SELECT FROM memory_tombstones d WHERE d.user_id = owner
                  AND d.digest IN (words_digest(owner, t.content), words_digest(owner, t.quote)))
            ON CONFLICT DO NOTHING;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION keep_memory(
    owner text, session uuid, session_ended timestamptz, lifetime interval, its_kind text, its_content text, item text,
    its_quote text, its_slot text, its_words text[], op text, closes text[], replaces bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    said_at timestamptz;
    gone    boolean;
    old     bigint[] := '{}';
    new_id  bigint;
BEGIN
    -- A deletion of the item comes before, and is seen here, or after, and removes this memory: forget_items waits for the
    -- session's row. Some items have been deleted and created anew under the same id.
    SELECT created_at, deleted_at IS NOT NULL INTO said_at, gone
      FROM messages WHERE user_id = owner AND session_id = session AND item_id = item
     ORDER BY deleted_at IS NOT NULL LIMIT 1;
    IF gone THEN
        RETURN;
    END IF;
    said_at := coalesce(said_at, session_ended);

    IF op = 'forget' THEN
        -- Who has "I live in Oslo" forgotten does not mean all that was said of Oslo: its verb counts too.
        PERFORM forget_turns(owner, its_words || ARRAY(
            SELECT word FROM regexp_split_to_table(plain_words(its_quote), ' ') word
             WHERE closes <> '{}' AND length(word) > 3), ARRAY[its_quote], CASE WHEN its_slot = '*' THEN said_at END);
        PERFORM forget_memories(owner, ARRAY(
            SELECT memory_id FROM (SELECT memory_id, slot, words, valid_from FROM user_memories WHERE user_id = owner
                                   UNION ALL SELECT memory_id, slot, words, valid_from FROM superseded_memories
                                    WHERE user_id = owner) known
             WHERE valid_from <= said_at AND (its_slot = '*' OR (slot = ANY (closes) AND its_words = '{}')
                OR (its_words <> '{}' AND (words @> its_words OR (slot = ANY (closes) AND words && its_words))))));
        INSERT INTO memory_tombstones (user_id, digest) SELECT owner, words_digest(owner, its_quote)
         WHERE its_slot <> '*' ON CONFLICT DO NOTHING;
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM memory_tombstones WHERE user_id = owner) THEN -- else there is nothing to hash the words for
        IF EXISTS (SELECT FROM memory_tombstones WHERE user_id = owner
                      AND digest IN (words_digest(owner, its_content), words_digest(owner, its_quote))) THEN
            RETURN;
        END IF;
    END IF;

    IF EXISTS (SELECT FROM user_memories WHERE user_id = owner) THEN
        -- Something newer was said meanwhile: this session was finalized late.
        IF is_one_valued(its_slot) AND EXISTS (
            SELECT FROM user_memories WHERE user_id = owner AND slot = its_slot AND valid_from > said_at) THEN
            RETURN;
        END IF;
        old := ARRAY(
            SELECT memory_id FROM user_memories
             WHERE user_id = owner AND valid_from <= said_at AND (kind, lower(content)) <> (its_kind, lower(its_content))
               AND (memory_id = ANY (replaces)
                    OR (op = 'add' AND slot = its_slot AND CASE WHEN is_one_valued(its_slot) THEN true
                        ELSE ended AND its_words <> '{}' AND its_words <@ words END)
                    OR (op = 'close' AND NOT ended AND slot = ANY (closes)
                        AND (words && its_words OR (its_words = '{}' AND is_one_valued(slot))))));
        IF op = 'close' THEN
            -- "I don't like coffee" ends "I like coffee", not "I like iced coffee"; and where it ends one that has all of its
            -- words, it does not end those that have some.
            IF EXISTS (SELECT FROM user_memories
                        WHERE user_id = owner AND memory_id = ANY (old) AND its_words <> '{}' AND words @> its_words) THEN
                old := ARRAY(SELECT memory_id FROM user_memories WHERE user_id = owner AND memory_id = ANY (old)
                                AND (words @> its_words OR memory_id = ANY (replaces)));
            ELSIF its_kind = 'dislike' THEN
                old := replaces;
            END IF;
            -- That something else is so no longer says nothing of what is so.
            IF old = '{}' AND is_one_valued(its_slot)
                AND EXISTS (SELECT FROM user_memories WHERE user_id = owner AND slot = its_slot) THEN
                RETURN;
            END IF;
        END IF;
    END IF;

    INSERT INTO user_memories (user_id, kind, content, quote, source_session_id, source_item_id, slot, words, ended,
                               valid_from, expires_at)
    VALUES (owner, its_kind, its_content, its_quote, session, item, its_slot, its_words, op = 'close', said_at,
            said_at + lifetime)
    ON CONFLICT (user_id, kind, md5(lower(content))) DO UPDATE
       SET updated_at = now(), quote = excluded.quote, source_session_id = excluded.source_session_id,
           source_item_id = excluded.source_item_id, valid_from = greatest(user_memories.valid_from, excluded.valid_from),
           expires_at = excluded.expires_at
    RETURNING memory_id INTO new_id;
    IF old <> '{}' THEN
        PERFORM supersede_memories(owner, old, new_id, said_at);
    END IF;
END $$;

-- Keeps the first memory of each user of whom nothing is known or forgotten: there is nothing that it could contradict,
-- so one statement does for all of them, where keep_memory takes several for each. Returns the sessions whose first
-- memory it kept. finished, lifetime: as in finish_memories. done: the sessions that count.
CREATE OR REPLACE FUNCTION keep_first_memories(finished jsonb, done uuid[], lifetime interval) RETURNS SETOF uuid
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    RETURN QUERY
    INSERT INTO user_memories (user_id, kind, content, quote, source_session_id, source_item_id, slot, words, valid_from,
                               expires_at)
    SELECT user_id, kind, content, quote, session_id, item_id, slot, words, said_at, said_at + lifetime FROM (
        SELECT DISTINCT ON (s.user_id) s.user_id, s.session_id, t.*, gone, coalesce(said_at, s.session_end) AS said_at
          FROM jsonb_to_recordset(finished) AS f (session_id uuid, memories jsonb)
          JOIN conversation_sessions s USING (session_id)
         CROSS JOIN LATERAL jsonb_to_record(f.memories -> 0) AS t (
               kind text, content text, item_id text, quote text, slot text, words text[], op text)
          LEFT JOIN LATERAL ( -- as in keep_memory
               SELECT m.created_at AS said_at, m.deleted_at IS NOT NULL AS gone FROM messages m
                WHERE m.user_id = s.user_id AND m.session_id = s.session_id AND m.item_id = t.item_id
                ORDER BY m.deleted_at IS NOT NULL LIMIT 1) item ON true
         WHERE s.session_id = ANY (done) AND f.memories <> '[]' ORDER BY s.user_id, s.session_end, s.session_id) first
     WHERE op = 'add' AND gone IS NOT TRUE
       AND NOT EXISTS (SELECT FROM user_memories m WHERE m.user_id = first.user_id)
       AND NOT EXISTS (SELECT FROM memory_tombstones m WHERE m.user_id = first.user_id)
    ON CONFLICT DO NOTHING
    RETURNING source_session_id;
END $$;

-- An item that is deleted, or marked as deleted, takes along what came of it, in the same transaction, whoever does it.
-- What that had superseded is current again, unless something else is by now.
CREATE OR REPLACE FUNCTION forget_items() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    sessions uuid[];
    items    text[];
    ids      bigint[];
BEGIN
    IF TG_OP = 'UPDATE' THEN
        SELECT array_agg(before.session_id), array_agg(before.item_id) INTO sessions, items
          FROM before JOIN after USING (user_id, message_id)
         WHERE before.deleted_at IS NULL AND after.deleted_at IS NOT NULL;
    ELSE
        SELECT array_agg(session_id), array_agg(item_id) INTO sessions, items FROM before WHERE deleted_at IS NULL;
    END IF;
    IF items IS NULL THEN
        RETURN NULL;
    END IF;
    -- A server that finishes one of these sessions just now holds its row, and may not have seen the deletion.
    PERFORM FROM conversation_sessions WHERE session_id = ANY (sessions) ORDER BY session_id FOR SHARE;
    WITH gone AS (
        SELECT * FROM unnest(sessions, items) AS gone (session_id, item_id)
    ), past AS (
        DELETE FROM superseded_memories m USING gone
         WHERE m.source_session_id = gone.session_id AND m.source_item_id = gone.item_id
    ), forgotten AS (
        DELETE FROM user_memories m USING gone
         WHERE m.source_session_id = gone.session_id AND m.source_item_id = gone.item_id RETURNING memory_id
    )
    SELECT array_agg(memory_id) INTO ids FROM forgotten;
    IF ids IS NOT NULL THEN
        WITH back AS (
            DELETE FROM superseded_memories s WHERE superseded_by = ANY (ids) AND NOT (is_one_valued(slot) AND EXISTS (
                   SELECT FROM user_memories m WHERE m.user_id = s.user_id AND m.slot = s.slot)) RETURNING *
        )
        INSERT INTO user_memories (memory_id, user_id, kind, content, quote, source_session_id, source_item_id, created_at,
                                   updated_at, slot, words, ended, valid_from, edited_at, expires_at)
        OVERRIDING SYSTEM VALUE
        SELECT memory_id, user_id, kind, content, quote, source_session_id, source_item_id, created_at,
               updated_at, slot, words, ended, valid_from, edited_at, expires_at FROM back
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER forget_marked_items AFTER UPDATE ON messages
    REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION forget_items();
CREATE OR REPLACE TRIGGER forget_deleted_items AFTER DELETE ON messages
    REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION forget_items();

-- Nothing is left of a user: what they said, what came of it, their keys. Their live sessions end, since their rows go.
-- Returns the number of sessions, messages and memories.
CREATE OR REPLACE FUNCTION erase_user(owner text) RETURNS jsonb LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    memories bigint;
    said     bigint;
    sessions bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('lastcall memories of ' || owner, 0));
    -- First: they begin no more sessions. A service's key belongs to a backend, not to this user. Whoever is just being
    -- signed in with one of them holds it: once that is done, the cookie is seen too.
    PERFORM FROM client_secrets WHERE user_id = owner ORDER BY secret_id FOR UPDATE;
    DELETE FROM client_secrets WHERE user_id = owner;
    DELETE FROM api_keys WHERE subject = owner AND scope = 'user';
    -- A session that still lives takes its locks first.
    PERFORM FROM conversation_sessions WHERE user_id = owner ORDER BY session_id FOR UPDATE;
    DELETE FROM superseded_memories WHERE user_id = owner; -- before the messages, which would bring some back
    DELETE FROM user_memories WHERE user_id = owner;
    GET DIAGNOSTICS memories = ROW_COUNT;
    DELETE FROM messages WHERE user_id = owner;
    GET DIAGNOSTICS said = ROW_COUNT;
    DELETE FROM memory_tombstones WHERE user_id = owner;
    DELETE FROM forgotten_turns WHERE user_id = owner;
    DELETE FROM conversation_sessions WHERE user_id = owner;
    GET DIAGNOSTICS sessions = ROW_COUNT;
    DELETE FROM conversations WHERE user_id = owner;
    DELETE FROM webhook_deliveries WHERE user_id = owner; -- last, as ends of sessions write it
    RETURN jsonb_build_object('sessions', sessions, 'messages', said, 'memories', memories);
END $$;

-- ------------------------------------------------------------------------------------------- turns of the past

-- What users and agents have said, by its words, so that it is found again; indexed once, in the transaction that marks
-- the session's memory done. Texts stay in messages. Every key begins with the user.
--
-- A posting for each word costs more than all else that a short session writes, and most users are asked for no past
-- that long. So the words of a user's newest passages stay together in one row each, where every search reads them. Once
-- they are many, they are spread over postings.

-- No identity column: before PostgreSQL 17, a partitioned table cannot have one.
CREATE SEQUENCE IF NOT EXISTS recall_passage_ids;

-- Up to 120 turns of one session that follow each other; arrays have an element for each.
CREATE TABLE IF NOT EXISTS recall_passages (
    user_id     text        NOT NULL,
    passage_id  bigint      NOT NULL DEFAULT nextval('recall_passage_ids'),
    session_id  uuid        NOT NULL,
    message_ids uuid[]      NOT NULL,   -- NULL: deleted since
    flags       smallint[]  NOT NULL,   -- 1: by the user, 2: a question
    words       integer     NOT NULL,   -- of all turns
    stemmers    text[]      NOT NULL,   -- dictionaries of the languages that it is in
    lexemes     text[]      NOT NULL,   -- its keys in recall_lexemes
    together    jsonb,                  -- a list of `IndexedWord`, until these are in recall_lexemes
    lengths     smallint[],             -- in words, for as long as they are together
    said_at     timestamptz,            -- likewise
    PRIMARY KEY (user_id, passage_id)
) WITH (toast_tuple_target = 512);     -- every search reads all passages of its user, but not their lexemes
SELECT partition_by_user('recall_passages', current_setting('lastcall.partitions')::integer);
CREATE INDEX IF NOT EXISTS passages_together ON recall_passages (user_id) WHERE together IS NOT NULL;

-- Which turns of a passage have a word: by its stem, or by its prefix or pair of characters, which begin with `~`.
CREATE TABLE IF NOT EXISTS recall_lexemes (
    user_id    text       NOT NULL,
    lexeme     text       NOT NULL,
    passage_id bigint     NOT NULL,
    mentions   smallint[] NOT NULL,     -- 256 * (number of the turn, from 0) + 100 * BM25 of the word there
    weight_max smallint   NOT NULL,     -- the largest of these BM25
    PRIMARY KEY (user_id, lexeme, passage_id)
);
SELECT partition_by_user('recall_lexemes', current_setting('lastcall.partitions')::integer);

-- The postings of a passage whose words are together. A mention is weighed as in a text of 12 words, for which users need
-- no mean of their own. The day, month and year of a passage are words of each of its turns.
CREATE OR REPLACE FUNCTION postings_of(together jsonb, lengths smallint[], ids uuid[], said_at timestamptz)
RETURNS TABLE (lexeme text, mentions smallint[], weight_max smallint) LANGUAGE sql STABLE
BEGIN ATOMIC
    WITH said AS (
        SELECT text, key, mentions,
               CASE WHEN stemmer IS NOT NULL THEN ts_lexize(stemmer::regdictionary, text)
                    WHEN text IS NOT NULL THEN ARRAY[]::text[] || text END AS stems
          FROM jsonb_to_recordset(together) AS t (text text, key text, stemmer text, mentions integer[])
    ), found AS (
        SELECT unnest(stems) AS lexeme, mentions FROM said
        UNION ALL SELECT key, mentions FROM said WHERE key IS NOT NULL AND stems IS DISTINCT FROM '{}'
    ), counted AS (
        SELECT lexeme, mention / 256 AS turn, sum(mention % 256) AS count
          FROM found, unnest(mentions) mention GROUP BY 1, 2
        UNION ALL
        SELECT lexeme, turn, 1 FROM generate_series(0, cardinality(ids) - 1) turn,
               unnest(ARRAY[to_char(said_at, 'FMDD'), to_char(said_at, 'YYYY')]
                      || ts_lexize('english_stem', to_char(said_at, 'FMmonth'))) lexeme
    ), weighed AS (
        SELECT lexeme, turn,
               round(220 * sum(count) / (sum(count) + 0.72 + 0.04 * lengths[turn + 1]))::integer AS weight
          FROM counted WHERE ids[turn + 1] IS NOT NULL GROUP BY lexeme, turn
    )
    SELECT lexeme, array_agg((256 * turn + weight)::smallint ORDER BY turn), max(weight)::smallint
      FROM weighed GROUP BY lexeme;
END;

-- Spreads the words of these users' passages over postings, where they are more than a search should read. FOR UPDATE: a
-- passage is spread once, and forget_messages waits.
CREATE OR REPLACE FUNCTION spread_words(owners text[]) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    words_max CONSTANT integer := 200; -- of all passages of a user that are together; a search takes 3 us for each
    full_users text[];
    passage    record;
BEGIN
    SELECT array_agg(owner ORDER BY owner) INTO full_users FROM (SELECT DISTINCT unnest(owners) AS owner) each
     WHERE (SELECT sum(words) FROM recall_passages WHERE user_id = owner AND together IS NOT NULL) > words_max;
    IF full_users IS NULL THEN
        RETURN;
    END IF;
    FOR passage IN -- one by one: a join with recall_passages would read the partitions of all users
        SELECT theirs.* FROM unnest(full_users) owner CROSS JOIN LATERAL (
            SELECT user_id, passage_id, together, lengths, message_ids, said_at FROM recall_passages
             WHERE user_id = owner AND together IS NOT NULL ORDER BY passage_id OFFSET 0 FOR UPDATE) theirs
    LOOP
        WITH stored AS (
            INSERT INTO recall_lexemes (user_id, lexeme, passage_id, mentions, weight_max)
            SELECT passage.user_id, lexeme, passage.passage_id, mentions, weight_max
              FROM postings_of(passage.together, passage.lengths, passage.message_ids, passage.said_at)
            RETURNING lexeme
        )
        UPDATE recall_passages
           SET lexemes = ARRAY(SELECT lexeme FROM stored), together = NULL, lengths = NULL, said_at = NULL
         WHERE user_id = passage.user_id AND passage_id = passage.passage_id;
    END LOOP;
END $$;

-- Claims sessions whose memory is pending. SKIP LOCKED: two servers at the same time claim different sessions. An attempt
-- counts when it begins, so that a transcript that crashes its server is not retried forever. Returns the messages of
-- each session, without function calls and deleted items; for a session without messages, one row with NULLs.
--
-- asked: NULL, or the only sessions to claim: found by their keys, however long the queue is.
-- wait_seconds: the longest wait, of a claim or a back-off. What is due later than that, or was never tried and is due
-- later than now, was due before the clock was set back. It is looked for where nothing else is due.
-- bytes_max: of what was said in the sessions that are claimed together; one that has more of it is claimed alone.
--
-- Generic plans and no sequential scans, here and in finish_memories: as for commit_batch.
CREATE OR REPLACE FUNCTION claim_memories(
    sessions_max integer, lease_seconds double precision, asked uuid[], wait_seconds double precision, bytes_max bigint)
RETURNS TABLE (session_id uuid, user_id text, memory_attempts integer, role text, content text, item_id text)
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH oldest AS MATERIALIZED (
        SELECT session_id, user_id, memory_due_at FROM conversation_sessions
         WHERE asked IS NULL AND memory_status = 'pending' AND memory_due_at <= now()
         ORDER BY memory_due_at LIMIT sessions_max FOR UPDATE SKIP LOCKED
    ), stranded AS MATERIALIZED (
        SELECT session_id, user_id, memory_due_at FROM conversation_sessions
         WHERE asked IS NULL AND NOT EXISTS (SELECT FROM oldest) AND memory_status = 'pending' AND memory_due_at > now()
           AND (memory_attempts = 0 OR memory_due_at > now() + make_interval(secs => wait_seconds))
         ORDER BY memory_due_at LIMIT sessions_max FOR UPDATE SKIP LOCKED
    ), these AS MATERIALIZED (
        SELECT session_id, user_id, memory_due_at
          FROM (SELECT session_id, user_id, memory_due_at, memory_status, memory_attempts FROM conversation_sessions
                 WHERE session_id = ANY (asked) LIMIT sessions_max FOR UPDATE SKIP LOCKED) these
         WHERE memory_status = 'pending'
           AND (memory_due_at <= now() OR memory_attempts = 0
                OR memory_due_at > now() + make_interval(secs => wait_seconds))
    ), free AS MATERIALIZED (
        SELECT * FROM oldest UNION ALL SELECT * FROM stranded UNION ALL SELECT * FROM these
    ), item AS MATERIALIZED ( -- of each session by itself, and by its keys: any other plan may read all messages
        SELECT each.* FROM free CROSS JOIN LATERAL (
            SELECT session_id, kind, role, content, item_id, position, created_at, deleted_at FROM messages m
             WHERE m.user_id = free.user_id AND m.session_id = free.session_id OFFSET 0) each
    ), said AS MATERIALIZED (
        SELECT * FROM item WHERE kind = 'message' AND deleted_at IS NULL
    ), fitting AS MATERIALIZED (
        SELECT session_id FROM (
            SELECT session_id, row_number() OVER queue AS number, sum(bytes) OVER queue AS bytes
              FROM free LEFT JOIN (SELECT session_id, sum(octet_length(content)) AS bytes FROM said GROUP BY 1) size
                   USING (session_id)
            WINDOW queue AS (ORDER BY memory_due_at, session_id ROWS UNBOUNDED PRECEDING)) queued
         WHERE number = 1 OR coalesce(bytes, 0) <= bytes_max
    ), claimed AS (
        UPDATE conversation_sessions s
           SET memory_due_at = now() + make_interval(secs => lease_seconds), memory_attempts = memory_attempts + 1
         WHERE session_id = ANY (ARRAY (SELECT session_id FROM fitting))
        RETURNING session_id, user_id, memory_attempts
    )
    SELECT session_id, claimed.user_id, memory_attempts, role, content, item_id
      FROM claimed LEFT JOIN said USING (session_id)
     ORDER BY session_id, position, created_at;
END $$;

-- Marks the memory of sessions as done, keeps their memories and adds them to the index; returns those that were still
-- pending. finished: a list of `FinishedMemory`. The sessions' rows stay locked to the end: forget_messages waits for
-- that, and what it has deleted before is seen here, since each statement looks anew.
--
-- Rows are looked for by their keys alone, and chosen afterwards: whatever else is asked for, a plan that was made without
-- statistics looks up in the partial index of that, and reads all of it.
--
-- The users' locks: sessions of one user may be finished at the same time, and each must see what the other has kept.
-- They are taken by nothing that a conversation waits for. They come first and, like the rows, in an order: two servers
-- that finish sessions of the same users do not wait for each other, nor does erase_user.
CREATE OR REPLACE FUNCTION finish_memories(finished jsonb, lifetime interval) RETURNS SETOF uuid
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    asked  uuid[] := ARRAY(SELECT session_id FROM jsonb_to_recordset(finished) AS f (session_id uuid));
    done   uuid[];
    owners text[];
    firsts uuid[];
    ended  record;
BEGIN
    PERFORM pg_advisory_xact_lock(key) FROM (
        SELECT DISTINCT hashtextextended('lastcall memories of ' || user_id, 0) AS key FROM conversation_sessions
         WHERE session_id = ANY (asked) ORDER BY key) users;
    WITH free AS MATERIALIZED (
        SELECT session_id, memory_status FROM conversation_sessions
         WHERE session_id = ANY (asked) ORDER BY session_id FOR NO KEY UPDATE
    ), marked AS (
        UPDATE conversation_sessions
           SET memory_status = 'done', memory_finalized_at = now(), memory_due_at = NULL, memory_error = NULL
         WHERE session_id = ANY (ARRAY (SELECT session_id FROM free WHERE memory_status = 'pending'))
        RETURNING session_id, user_id
    )
    SELECT array_agg(session_id), array_agg(user_id) INTO done, owners FROM marked;
    firsts := ARRAY(SELECT keep_first_memories(finished, done, lifetime));
    FOR ended IN
        SELECT s.user_id, s.session_id, s.session_end, f.memories, (s.session_id = ANY (firsts))::integer AS kept
          FROM jsonb_to_recordset(finished) AS f (session_id uuid, memories jsonb)
          JOIN conversation_sessions s USING (session_id)
         WHERE s.session_id = ANY (done) AND jsonb_array_length(f.memories) > (s.session_id = ANY (firsts))::integer
         ORDER BY s.session_end, s.session_id
    LOOP
        PERFORM keep_memories(ended.user_id, ended.session_id, ended.session_end, ended.memories, lifetime, ended.kept);
    END LOOP;
    INSERT INTO recall_passages
           (user_id, session_id, message_ids, flags, words, stemmers, lexemes, together, lengths, said_at)
    SELECT s.user_id, s.session_id, said.ids, p.flags, (SELECT sum(length) FROM unnest(p.lengths) length),
           p.stemmers::regdictionary[]::text[], '{}', p.words, p.lengths, said.at
      FROM jsonb_to_recordset(finished) AS f (session_id uuid, passages jsonb)
      JOIN conversation_sessions s USING (session_id)
     CROSS JOIN LATERAL ROWS FROM (jsonb_to_recordset(f.passages) AS (
           items text[], lengths smallint[], flags smallint[], stemmers text[], words jsonb)) WITH ORDINALITY
           AS p (items, lengths, flags, stemmers, words, number)
     CROSS JOIN LATERAL (
           -- An item may have been stored after the session's end, if that was by the clock of an outage.
           SELECT array_agg(m.message_id ORDER BY i.ordinality) AS ids, min(least(m.created_at, s.session_end)) AS at
             FROM unnest(p.items) WITH ORDINALITY AS i (item_id, ordinality)
             LEFT JOIN (SELECT * FROM messages m
                         WHERE m.user_id = s.user_id AND m.session_id = f.session_id OFFSET 0) m
               ON m.item_id = i.item_id AND m.deleted_at IS NULL) said
     WHERE s.session_id = ANY (done) AND said.at IS NOT NULL ORDER BY s.session_end, s.session_id, p.number;
    PERFORM spread_words(owners);
    PERFORM report_memories(done);
    RETURN QUERY SELECT unnest(done);
END $$;

-- A list of `IndexedWord` without what only these turns have.
CREATE OR REPLACE FUNCTION words_without(together jsonb, turns integer[]) RETURNS jsonb LANGUAGE sql IMMUTABLE
RETURN (SELECT jsonb_agg(jsonb_set(word, '{mentions}', kept)) FROM jsonb_array_elements(together) word,
               LATERAL (SELECT jsonb_agg(m) AS kept FROM jsonb_array_elements(word -> 'mentions') m
                         WHERE m::integer / 256 <> ALL (turns)) each WHERE kept IS NOT NULL);

-- A message that is deleted, or marked as deleted, is not found any more: in the same transaction, whoever does it.
CREATE OR REPLACE FUNCTION forget_messages() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    gone     uuid[];
    sessions uuid[];
    owners   text[];
    passage  record;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        SELECT array_agg(message_id), array_agg(DISTINCT before.session_id), array_agg(DISTINCT user_id)
          INTO gone, sessions, owners FROM before JOIN after USING (user_id, message_id)
         WHERE before.deleted_at IS NULL AND after.deleted_at IS NOT NULL;
    ELSE
        SELECT array_agg(message_id), array_agg(DISTINCT session_id), array_agg(DISTINCT user_id)
          INTO gone, sessions, owners FROM before;
    END IF;
    -- A server that indexes one of these sessions just now holds its row, and may not have seen the deletion. One that
    -- begins later sees it.
    PERFORM FROM conversation_sessions WHERE session_id = ANY (sessions) ORDER BY session_id FOR SHARE;
    -- FOR UPDATE: spread_words may be about to make postings of this passage.
    FOR passage IN
        SELECT theirs.* FROM unnest(owners) owner CROSS JOIN LATERAL ( -- by one user: an array of users is in any partition
            SELECT user_id, passage_id, lexemes, together IS NOT NULL AS is_together,
                   ARRAY(SELECT (ordinality - 1)::integer FROM unnest(message_ids) WITH ORDINALITY AS m (id, ordinality)
                          WHERE id = ANY (gone)) AS turns
              FROM recall_passages WHERE user_id = owner AND session_id = ANY (sessions) AND message_ids && gone
             ORDER BY passage_id OFFSET 0 FOR UPDATE) theirs
    LOOP
        UPDATE recall_lexemes l
           SET mentions = ARRAY(SELECT m FROM unnest(l.mentions) m WHERE m / 256 <> ALL (passage.turns))
         WHERE l.user_id = passage.user_id AND l.lexeme = ANY (passage.lexemes) AND l.passage_id = passage.passage_id
           AND EXISTS (SELECT FROM unnest(l.mentions) m WHERE m / 256 = ANY (passage.turns));
        DELETE FROM recall_lexemes l
         WHERE l.user_id = passage.user_id AND l.lexeme = ANY (passage.lexemes) AND l.passage_id = passage.passage_id
           AND l.mentions = '{}';
        UPDATE recall_passages p
           SET lexemes = ARRAY(SELECT l.lexeme FROM recall_lexemes l WHERE l.user_id = passage.user_id
                                  AND l.lexeme = ANY (passage.lexemes) AND l.passage_id = passage.passage_id),
               together = words_without(together, passage.turns),
               message_ids = ARRAY(SELECT CASE WHEN id <> ALL (gone) THEN id END
                                     FROM unnest(p.message_ids) WITH ORDINALITY AS m (id, ordinality)
                                    ORDER BY ordinality)
         WHERE p.user_id = passage.user_id AND p.passage_id = passage.passage_id;
        DELETE FROM recall_passages p
         WHERE p.user_id = passage.user_id AND p.passage_id = passage.passage_id
           AND CASE WHEN passage.is_together THEN array_remove(message_ids, NULL) = '{}' ELSE p.lexemes = '{}' END;
    END LOOP;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER forget_marked_messages AFTER UPDATE ON messages
    REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION forget_messages();
CREATE OR REPLACE TRIGGER forget_deleted_messages AFTER DELETE ON messages
    REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION forget_messages();

-- Nothing is left of a session that is deleted. Not by a foreign key: its own lookup would need a key that does not
-- begin with the user.
CREATE OR REPLACE FUNCTION forget_sessions() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    owner text;
BEGIN
    FOR owner IN SELECT DISTINCT user_id FROM before LOOP -- one by one, here and below: each stays in its partition
        DELETE FROM recall_passages
         WHERE user_id = owner AND session_id = ANY (ARRAY (SELECT session_id FROM before WHERE user_id = owner));
    END LOOP;
    DELETE FROM agent_responses r USING before WHERE r.user_id = before.user_id AND r.session_id = before.session_id;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION forget_passages() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    owner text;
BEGIN
    FOR owner IN SELECT DISTINCT user_id FROM before LOOP
        DELETE FROM recall_lexemes l
         USING (SELECT passage_id, unnest(lexemes) AS lexeme FROM before WHERE user_id = owner) gone
         WHERE l.user_id = owner AND l.lexeme = gone.lexeme AND l.passage_id = gone.passage_id;
    END LOOP;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION forget_all_sessions() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM recall_lexemes; -- not TRUNCATE, which fails where the same statement truncates them too
    DELETE FROM recall_passages;
    DELETE FROM agent_responses;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER forget_sessions AFTER DELETE ON conversation_sessions
    REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION forget_sessions();
CREATE OR REPLACE TRIGGER forget_passages AFTER DELETE ON recall_passages
    REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION forget_passages();
CREATE OR REPLACE TRIGGER forget_all_sessions AFTER TRUNCATE ON conversation_sessions
    FOR EACH STATEMENT EXECUTE FUNCTION forget_all_sessions();

-- ----------------------------------------------------------------------------------------- batches of writes

-- The ids under a key of a list of objects.
CREATE OR REPLACE FUNCTION ids_of(rows jsonb, key text) RETURNS uuid[]
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT AS $$
BEGIN
    RETURN (SELECT array_agg((each ->> key)::uuid) FROM jsonb_array_elements(rows) each);
END $$;

-- Commits a batch of the group-commit writer in one round trip. `writes` has lists of `starts`, `items`, `responses`,
-- `deletions` and `ends`, each optional, and of `recalls`: what sessions that begin want to know of their users. Starts come first
-- and ends last, since one batch may hold a whole session. The answer has the same keys, and `at`, the time, and `fresh`.
--
-- asked: when the server sent it, by its estimate of this clock; ages count back from then. A statement that begins
-- more than `patience` away from that stores nothing (`fresh` is false), and one that takes longer than `patience`
-- fails: a frozen database runs on waking the statements it was sent before, even if their sender has given them up
-- long ago. A start could then land after its session's end.
--
-- Generic plans: every statement here finds its rows by keys. Custom plans made the first five calls on a connection
-- nearly twice as slow, on six connections of every server that starts or reconnects. No sequential scans: a plan that
-- was made while a table was small would read all of it until statistics are next taken, which may be a minute later.
CREATE OR REPLACE FUNCTION commit_batch(asked timestamptz, patience interval, writes jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    moment timestamptz := least(now(), asked);
    answer jsonb := jsonb_build_object('at', extract(epoch FROM now()), 'fresh', true);
BEGIN
    IF asked NOT BETWEEN now() - patience AND now() + patience THEN
        RETURN answer || '{"fresh": false}';
    END IF;
    -- What is acknowledged is on the disk, also where somebody has set it to off for this role since we connected.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    IF writes ? 'starts' THEN
        answer := answer || jsonb_build_object('starts', begin_sessions(writes -> 'starts', moment));
    END IF;
    IF writes ? 'items' THEN
        answer := answer || jsonb_build_object('items', append_items(writes -> 'items'));
    END IF;
    IF writes ? 'responses' THEN
        answer := answer || jsonb_build_object('held', store_responses(
            writes -> 'responses' -> 'rows', (writes -> 'responses' ->> 'clock')::double precision, moment,
            CASE WHEN answer -> 'items' <@ '["stored"]' THEN ids_of(writes -> 'items', 'session_id') ELSE '{}' END));
    END IF;
    IF writes ? 'deletions' THEN
        answer := answer || jsonb_build_object('deletions', delete_items(writes -> 'deletions'));
    END IF;
    IF writes ? 'ends' THEN
        answer := answer || jsonb_build_object('ends', end_sessions(writes -> 'ends', moment));
    END IF;
    IF writes ? 'recalls' THEN
        answer := answer || jsonb_build_object('recalled', recall_memories(writes -> 'recalls'));
    END IF;
    IF clock_timestamp() > now() + patience THEN
        RAISE EXCEPTION 'the batch took longer than %', patience USING ERRCODE = 'query_canceled';
    END IF;
    RETURN answer;
END $$;

-- Begins a session of this instance, stores an item and ends it, takes all of that back, and commits. So it fails where
-- a session would: for a privilege, a lock on a table, a full disk, a database that is read-only. Nobody sees its rows.
CREATE OR REPLACE FUNCTION prove_commit(instance_id uuid) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    -- The same ids each time: then what the last proof has left in the indexes is reused.
    ids    jsonb := jsonb_build_object('session_id', instance_id, 'conversation_id', instance_id,
                                       'message_id', instance_id, 'instance_id', instance_id, 'user_id', 'lastcall');
    writes jsonb := jsonb_build_object(
        'starts', jsonb_build_array(ids || '{"age_seconds": 0}'),
        'items', jsonb_build_array(ids || '{"item_id": "proof", "position": 0, "role": "user", "content": "proof",
                                            "status": "completed", "kind": "message", "deleted": false}'),
        'ends', jsonb_build_array(ids || '{"age_seconds": 0, "end_reason": "client_closed"}'));
BEGIN
    PERFORM FROM api_keys WHERE key_id = prove_commit.instance_id FOR SHARE; -- as where a session has a credential
    PERFORM FROM client_secrets WHERE secret_id = prove_commit.instance_id FOR SHARE;
    PERFORM commit_batch(now(), '1 minute', writes);
    -- These rows may fit where others were. Half a megabyte of a temporary file needs room of its own, and leaves none.
    PERFORM set_config('work_mem', '64kB', true), set_config('temp_tablespaces', '', true);
    PERFORM count(*) FROM generate_series(1, 20000);
    RAISE EXCEPTION USING ERRCODE = 'LC001';
EXCEPTION WHEN SQLSTATE 'LC001' OR configuration_limit_exceeded THEN -- the latter: a temp_file_limit below that
    NULL;
END $$;

-- What the user's last indexed session was about: its conversation, its end, and the conversation's title or else the
-- beginning of the turn that memory/search/topic.py has flagged. NULL: none of the last ones has any.
CREATE OR REPLACE FUNCTION last_talk(owner text) RETURNS jsonb LANGUAGE sql STABLE
RETURN (
    SELECT jsonb_build_array(c.conversation_id, extract(epoch FROM s.session_end), coalesce(c.title, left(m.content, 500)))
      FROM (SELECT session_id, message_ids, flags FROM recall_passages
             WHERE user_id = owner ORDER BY passage_id DESC LIMIT 5) p
     CROSS JOIN LATERAL unnest(p.message_ids, p.flags) AS t (message_id, flag)
      JOIN messages m ON m.user_id = owner AND m.message_id = t.message_id
      JOIN conversation_sessions s ON s.session_id = p.session_id
      JOIN conversations c ON c.conversation_id = s.conversation_id
     WHERE flag & 4 <> 0 -- the others are not looked up
       AND NOT EXISTS (SELECT FROM forgotten_turns f WHERE f.user_id = owner AND f.message_id = t.message_id)
     ORDER BY s.session_end DESC LIMIT 1);

-- By session: the user's newest memories, oldest first; whether some turn of theirs is indexed (`has_past`); and
-- `pending`, whether a session of theirs ended less than `recent_seconds` ago, or is claimed, and is not finalized yet.
-- Empty where somebody has locked one of the tables, or it is damaged: that must not hold up the batch. LIMIT 1, where
-- EXISTS would do: the planner turns that into a table of all users' rows, which each batch would read.
CREATE OR REPLACE FUNCTION recall_memories(recalls jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    answer jsonb;
BEGIN
    LOCK TABLE user_memories, recall_passages, forgotten_turns IN ACCESS SHARE MODE NOWAIT;
    SELECT jsonb_object_agg(session_id, jsonb_build_object(
               'pending', coalesce((SELECT true FROM conversation_sessions s
                                     WHERE s.user_id = asked.user_id AND memory_status = 'pending' AND memory_error IS NULL
                                       AND memory_due_at + make_interval(secs => recent_seconds) > now() LIMIT 1), false),
               'has_past', coalesce((SELECT true FROM recall_passages p WHERE p.user_id = asked.user_id LIMIT 1), false),
               'last', (SELECT last_talk(asked.user_id) FROM recall_passages p WHERE p.user_id = asked.user_id LIMIT 1),
               'facts', ARRAY (SELECT jsonb_build_array(kind, content, slot, extract(epoch FROM valid_from)) FROM (
                            SELECT kind, content, slot, valid_from, updated_at, memory_id FROM user_memories m
                             WHERE m.user_id = asked.user_id
                             ORDER BY updated_at DESC, memory_id DESC LIMIT memories_max) newest
                         ORDER BY updated_at, memory_id)))
      INTO answer FROM jsonb_to_recordset(recalls) AS asked (
           session_id uuid, user_id text, memories_max integer, recent_seconds double precision);
    RETURN answer;
EXCEPTION WHEN lock_not_available OR data_corrupted OR index_corrupted THEN
    RETURN '{}';
END $$;

-- FOR KEY SHARE: an instance is not declared dead while it begins sessions, and begins none afterwards. It can still
-- renew its lease; with a stronger lock, overlapping commits would block renewals without a gap. FOR SHARE: nor is a
-- key or client secret revoked meanwhile. Of a conversation, it is the lock that the foreign key takes. Rows that are
-- locked are skipped: waiting would hold up every session in the batch. The answer maps each instance and credential
-- that may begin sessions to whether its row was free, and each conversation whose row was not to false. A conversation
-- that was removed is never free: who was about to resume it begins nothing there.
--
-- Here and below, an array, in `= ANY (...)`, is looked up by key whatever the tables hold; a join may read them whole.
-- Nothing but keys is asked for, and active rows are chosen afterwards: a plan from when few sessions were active would look
-- for them in the index of active ones, and read all of it. OFFSET 0 keeps the condition out of that plan.
-- To begin a statement, with all of its nodes, takes longer than its rows: most batches have neither credentials nor
-- resumed conversations nor locked rows, and run only what they need.
CREATE OR REPLACE FUNCTION begin_sessions(starts jsonb, moment timestamptz) RETURNS jsonb
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    instances   uuid[];
    credentials uuid[];
    resumed     uuid[];
    free        uuid[];
    locked      uuid[] := '{}';
    answer      jsonb;
BEGIN
    SELECT array_agg(instance_id), coalesce(array_agg(credential_id) FILTER (WHERE credential_id IS NOT NULL), '{}')
      INTO instances, credentials FROM jsonb_to_recordset(starts) AS t (instance_id uuid, credential_id uuid);
    free := ARRAY (SELECT instance_id FROM server_instances WHERE instance_id = ANY (instances)
                      AND reaped_at IS NULL AND stopped_at IS NULL FOR KEY SHARE SKIP LOCKED);
    IF credentials <> '{}' THEN
        free := free || ARRAY (SELECT key_id FROM api_keys
                                WHERE key_id = ANY (credentials) AND revoked_at IS NULL FOR SHARE SKIP LOCKED)
                     || ARRAY (SELECT secret_id FROM client_secrets
                                WHERE secret_id = ANY (credentials) AND revoked_at IS NULL FOR SHARE SKIP LOCKED);
    END IF;
    IF NOT instances || credentials <@ free THEN
        locked := ARRAY (
            SELECT instance_id FROM server_instances
             WHERE instance_id = ANY (instances) AND instance_id <> ALL (free) AND reaped_at IS NULL AND stopped_at IS NULL
            UNION ALL SELECT key_id FROM api_keys
             WHERE key_id = ANY (credentials) AND key_id <> ALL (free) AND revoked_at IS NULL
            UNION ALL SELECT secret_id FROM client_secrets
             WHERE secret_id = ANY (credentials) AND secret_id <> ALL (free) AND revoked_at IS NULL);
    END IF;
    resumed := ARRAY (SELECT conversation_id FROM conversations
                       WHERE conversation_id = ANY (ids_of(starts, 'conversation_id')));
    IF resumed <> '{}' THEN
        locked := locked || ARRAY (SELECT unnest(resumed) EXCEPT ALL SELECT conversation_id FROM (
            SELECT conversation_id FROM conversations
             WHERE conversation_id = ANY (resumed) AND removed_at IS NULL FOR KEY SHARE SKIP LOCKED) free_conversation);
    END IF;
    WITH starting AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(starts) AS t (
               session_id uuid, conversation_id uuid, user_id text, instance_id uuid, age_seconds double precision,
               credential_id uuid)
         WHERE instance_id = ANY (free) AND (credential_id IS NULL OR credential_id = ANY (free))
           AND conversation_id <> ALL (locked)
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
    SELECT coalesce(jsonb_object_agg(id, id = ANY (free)), '{}') INTO answer FROM unnest(free || locked) id;
    RETURN answer;
END $$;

-- Tells the other sessions of a conversation that an item was stored or deleted: a notification to their servers, with the
-- session and the items (none: too many to list). It only wakes them; what has changed they read from the table.
CREATE OR REPLACE FUNCTION tell_of_changes(author uuid, conversation uuid, changed uuid[]) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM pg_notify('lastcall_' || replace(instance_id::text, '-', ''), session_id || ' '
                || CASE WHEN cardinality(changed) > 200 THEN '' ELSE replace(array_to_string(changed, ''), '-', '') END)
       FROM conversation_sessions
      WHERE conversation_id = conversation AND is_active AND shared AND session_id <> author AND instance_id IS NOT NULL;
END $$;

-- Marks all sessions that are open in the conversation of `me`, so that from now on each is told what the others change.
-- Returns `alone` where there is no other one, `left` where one has ended since `me` began, and `held` where a row is
-- locked: to be called again.
--
-- What a session stored before it left, `me` may have missed: its history was loaded before. Five seconds: no statement
-- that ends a session lasts that long, and the end is dated by its beginning.
--
-- Rows that are marked already are locked too: each commit of items holds a lock on its session's row, so that it either
-- is over, and whoever reads after this sees it, or comes later, and tells all that are marked now.
CREATE OR REPLACE FUNCTION share_conversation(me uuid) RETURNS text
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    these uuid[];
    free  uuid[];
BEGIN
    these := ARRAY (SELECT session_id FROM conversation_sessions
                     WHERE conversation_id = (SELECT conversation_id FROM conversation_sessions WHERE session_id = me)
                       AND is_active AND instance_id IS NOT NULL);
    IF these <@ ARRAY[me] THEN
        PERFORM FROM conversation_sessions mine JOIN conversation_sessions other USING (conversation_id)
          WHERE mine.session_id = me AND other.session_id <> me
            AND other.ended_at >= mine.session_start - interval '5 seconds';
        RETURN CASE WHEN FOUND THEN 'left' ELSE 'alone' END;
    END IF;
    free := ARRAY (SELECT session_id FROM conversation_sessions
                    WHERE session_id = ANY (these) AND is_active FOR NO KEY UPDATE SKIP LOCKED);
    UPDATE conversation_sessions SET shared = true WHERE session_id = ANY (free) AND NOT shared;
    IF FOUND THEN -- what these have stored so far, `me` among them, the others were not told
        PERFORM tell_of_changes(me, (SELECT conversation_id FROM conversation_sessions WHERE session_id = me), '{}');
    END IF;
    PERFORM FROM conversation_sessions WHERE session_id = ANY (these) AND session_id <> ALL (free) AND is_active;
    RETURN CASE WHEN FOUND THEN 'held' ELSE 'shared' END;
END $$;

-- The fence: FOR SHARE makes anybody who closes the row wait for this commit; the foreign key of the items needs no lock
-- beyond it. Rows that are locked are skipped: waiting would hold up every session in the batch. The answer for each
-- item: `stored`, `held` (skipped, or closed just now) or `closed`.
CREATE OR REPLACE FUNCTION append_items(items jsonb) RETURNS jsonb LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    live    uuid[];
    owners  text[]; -- of these, in the same order
    sharing uuid[];
    stored  integer;
BEGIN
    SELECT coalesce(array_agg(session_id), '{}'), array_agg(user_id), array_agg(session_id) FILTER (WHERE shared)
      INTO live, owners, sharing FROM (
        SELECT session_id, user_id, shared, is_active FROM conversation_sessions
         WHERE session_id = ANY (ids_of(items, 'session_id')) OFFSET 0 FOR SHARE SKIP LOCKED) locked
     WHERE is_active;
    INSERT INTO messages (user_id, message_id, conversation_id, session_id, item_id, position, role, content, status, kind,
                          call_id, name, deleted_at)
    SELECT owners[array_position(live, session_id)], message_id, conversation_id, session_id, item_id, position, role, content, status, kind,
           call_id, name, CASE WHEN deleted THEN now() END
      FROM jsonb_to_recordset(items) AS item (
           message_id uuid, conversation_id uuid, session_id uuid, item_id text, position bigint, role text, content text,
           status text, kind text, call_id text, name text, deleted boolean)
     WHERE session_id = ANY (live)
    ON CONFLICT (user_id, message_id) DO NOTHING;
    GET DIAGNOSTICS stored = ROW_COUNT;
    IF sharing IS NOT NULL THEN
        PERFORM tell_of_changes(session_id, conversation_id, array_agg(message_id))
           FROM jsonb_to_recordset(items) AS item (
                message_id uuid, session_id uuid, conversation_id uuid, deleted boolean)
          WHERE session_id = ANY (sharing) AND deleted IS NOT TRUE GROUP BY session_id, conversation_id;
    END IF;
    IF stored = jsonb_array_length(items) THEN
        RETURN to_jsonb(array_fill('stored'::text, ARRAY[stored]));
    END IF;
    RETURN (SELECT jsonb_agg(CASE
                       WHEN session_id = ANY (live) THEN 'stored'
                       WHEN EXISTS (SELECT FROM conversation_sessions s WHERE s.session_id = item.session_id AND is_active)
                       THEN 'held' ELSE 'closed' END ORDER BY ordinality)
              FROM ROWS FROM (jsonb_to_recordset(items) AS (session_id uuid)) WITH ORDINALITY AS item (
                   session_id, ordinality));
END $$;

-- Figures are stored for sessions that have ended too, but not for one that was deleted: nothing would delete them. FOR
-- KEY SHARE: a deletion waits for this commit, and then finds them. Returns those that were not stored because the row of
-- their session is locked.
--
-- clock: the server's own, as their times are, at that moment. locked: sessions whose rows append_items has locked: mostly
-- all of these.
CREATE OR REPLACE FUNCTION store_responses(
    responses jsonb, clock double precision, moment timestamptz, locked uuid[]) RETURNS jsonb
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    stored integer;
BEGIN
    IF NOT ids_of(responses, 'session_id') <@ locked THEN
        locked := ARRAY (SELECT session_id FROM conversation_sessions
                          WHERE session_id = ANY (ids_of(responses, 'session_id')) FOR KEY SHARE SKIP LOCKED);
    END IF;
    INSERT INTO agent_responses (user_id, session_id, response_id, key_id, started_at, first_at, ended_at, outcome, reason,
                                 agent, model, input_tokens, output_tokens, cached_tokens)
    SELECT user_id, session_id, response_id, key_id, moment - make_interval(secs => clock - created),
           moment - make_interval(secs => clock - first), moment - make_interval(secs => clock - ended), outcome, reason,
           agent, model, input_tokens, output_tokens, cached_tokens
      FROM jsonb_to_recordset(responses) AS response (
           user_id text, session_id uuid, response_id uuid, key_id uuid, created double precision, first double precision,
           ended double precision, outcome text, reason text, agent text, model text, input_tokens bigint,
           output_tokens bigint, cached_tokens bigint)
     WHERE session_id = ANY (locked)
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS stored = ROW_COUNT;
    IF stored = jsonb_array_length(responses) THEN
        RETURN '[]';
    END IF;
    RETURN (SELECT coalesce(jsonb_agg(response_id), '[]')
              FROM jsonb_to_recordset(responses) AS response (user_id text, session_id uuid, response_id uuid)
             WHERE EXISTS (SELECT FROM conversation_sessions s WHERE s.session_id = response.session_id)
               AND NOT EXISTS (SELECT FROM agent_responses r WHERE r.user_id = response.user_id
                                  AND r.session_id = response.session_id AND r.response_id = response.response_id));
END $$;

-- Fenced like append_items; an item whose row is locked is skipped like a session. The answer for each: `deleted` (now
-- or before), `held`, `closed` (the session) or `unknown`. The conversation is the session's own. One by one: deletions
-- are few and each reads two rows by key. A single statement for all is planned anew each time, which makes a lone
-- deletion four times as slow and pays off only from about twenty on.
--
-- message_id: of the item that the session means; NULL where it does not know it. Where the session itself has created
-- another one under the same id since, this is a deletion that arrives again, late: it must not delete that one. What
-- another session has created there meanwhile is deleted: to the client, the id names the item. spared: items that stand
-- behind the deletion in its batch: where they are there already, this batch was committed before.
CREATE OR REPLACE FUNCTION delete_items(deletions jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    deletion record;
    owner text;
    conversation uuid;
    sharing boolean;
    message uuid;
    answer jsonb := '[]';
    outcome text;
BEGIN
    FOR deletion IN
        SELECT * FROM jsonb_to_recordset(deletions) AS t (session_id uuid, item_id text, message_id uuid, spared uuid[])
    LOOP
        SELECT user_id, conversation_id, shared INTO owner, conversation, sharing FROM (
            SELECT user_id, conversation_id, shared, is_active FROM conversation_sessions
             WHERE session_id = deletion.session_id OFFSET 0 FOR SHARE SKIP LOCKED) locked
         WHERE is_active;
        IF NOT FOUND THEN
            PERFORM FROM conversation_sessions WHERE session_id = deletion.session_id AND is_active;
            outcome := CASE WHEN FOUND THEN 'held' ELSE 'closed' END;
        ELSE
            SELECT m.message_id INTO message FROM messages m
             WHERE user_id = owner AND conversation_id = conversation AND item_id = deletion.item_id AND deleted_at IS NULL
               AND (m.message_id = deletion.message_id OR m.session_id <> deletion.session_id
                    OR deletion.message_id IS NULL) AND m.message_id <> ALL (coalesce(deletion.spared, '{}'));
            IF FOUND THEN
                UPDATE messages SET deleted_at = now() WHERE user_id = owner AND message_id = (
                    SELECT m.message_id FROM messages m JOIN conversation_sessions s USING (session_id)
                     WHERE m.user_id = owner AND m.message_id = message AND deleted_at IS NULL
                       FOR NO KEY UPDATE OF m SKIP LOCKED FOR SHARE OF s SKIP LOCKED); -- s: see forget_messages
                outcome := CASE WHEN FOUND THEN 'deleted' ELSE 'held' END;
                IF FOUND AND sharing THEN
                    PERFORM tell_of_changes(deletion.session_id, conversation, ARRAY[message]);
                END IF;
            ELSE
                PERFORM FROM messages
                  WHERE user_id = owner AND conversation_id = conversation AND item_id = deletion.item_id
                    AND deleted_at IS NOT NULL LIMIT 1;
                outcome := CASE WHEN FOUND THEN 'deleted' ELSE 'unknown' END;
            END IF;
        END IF;
        answer := answer || to_jsonb(outcome);
    END LOOP;
    RETURN answer;
END $$;

-- Rows that are locked are skipped, not waited for, and answered with false: waiting would hold up every session in the
-- batch. Rows that were closed before are left out of the answer.
CREATE OR REPLACE FUNCTION end_sessions(ends jsonb, moment timestamptz) RETURNS jsonb
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    ids    uuid[];
    free   uuid[];
    answer jsonb;
BEGIN
    ids := ids_of(ends, 'session_id');
    free := ARRAY (SELECT session_id FROM (
        SELECT session_id, is_active FROM conversation_sessions
         WHERE session_id = ANY (ids) OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED) locked WHERE is_active);
    WITH ended AS (
        UPDATE conversation_sessions s
           SET is_active = false, session_end = moment - make_interval(secs => e.age_seconds),
               end_reason = e.end_reason, close_code = e.close_code, closed_by = e.instance_id
          FROM jsonb_to_recordset(ends) AS e (
               session_id uuid, instance_id uuid, age_seconds double precision, end_reason text, close_code integer)
         WHERE s.session_id = ANY (free) AND s.session_id = e.session_id
        RETURNING s.session_id
    )
    SELECT coalesce(jsonb_object_agg(session_id, true), '{}') INTO answer FROM ended;
    IF cardinality(free) < cardinality(ids) THEN
        RETURN answer || (SELECT coalesce(jsonb_object_agg(session_id, false), '{}') FROM conversation_sessions
                           WHERE session_id = ANY (ids) AND is_active);
    END IF;
    RETURN answer;
END $$;

-- Deletes a conversation for its user: its live sessions end, so that their servers close the sockets, and its items are
-- marked as deleted ones are. They stay in the transcript. Returns `deleted`, `unknown` where the user has no such
-- conversation, or `held` where a row is locked and nothing was done: waiting would keep a connection from others.
--
-- FOR UPDATE, which conflicts with the lock of a begin: each sees the other. Statements of their own, since the sessions
-- that count are those at the time of the lock.
CREATE OR REPLACE FUNCTION delete_conversation(conversation uuid, owner text) RETURNS text
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM FROM conversations WHERE conversation_id = conversation AND user_id = owner AND removed_at IS NULL;
    IF NOT FOUND THEN
        RETURN 'unknown';
    END IF;
    PERFORM FROM conversations WHERE conversation_id = conversation AND removed_at IS NULL FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 'held';
    END IF;
    IF (SELECT count(*) FROM conversation_sessions WHERE conversation_id = conversation) <>
       (SELECT count(*) FROM (SELECT FROM conversation_sessions WHERE conversation_id = conversation
                                 FOR NO KEY UPDATE SKIP LOCKED) free) THEN -- ended ones too: see forget_messages
        RETURN 'held';
    END IF;
    UPDATE conversation_sessions SET is_active = false, end_reason = 'by_hand'
     WHERE conversation_id = conversation AND is_active;
    UPDATE messages SET deleted_at = now()
     WHERE user_id = owner AND conversation_id = conversation AND deleted_at IS NULL;
    UPDATE conversations SET removed_at = now() WHERE conversation_id = conversation;
    RETURN 'deleted';
END $$;

-- ---------------------------------------------------------------------------------------- what operators do and see

-- Only where it is missing: a constraint that is made anew locks the table and reads all of it.
DO $$ BEGIN
    IF (SELECT pg_get_constraintdef(oid) FROM pg_constraint
         WHERE conrelid = 'api_keys'::regclass AND conname = 'scope_known') NOT LIKE '%reader%' THEN
        ALTER TABLE api_keys DROP CONSTRAINT scope_known,
            ADD CONSTRAINT scope_known CHECK (scope IN ('service', 'user', 'admin', 'reader'));
    END IF;
END $$;

-- Who did what. Written by the statement that does it, so that there is never one without the other. It names no user:
-- whoever is erased leaves no name here.
CREATE TABLE IF NOT EXISTS audit_log (
    audit_id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    done_at       timestamptz NOT NULL DEFAULT now(),
    actor         text        NOT NULL,     -- the subject of the key, or the login of whoever ran the command
    credential_id uuid,                     -- the key; NULL: none
    via           text        NOT NULL,
    action        text        NOT NULL,
    target        text        NOT NULL,     -- the id of a session or key; a keyed hash of a user's name
    details       jsonb       NOT NULL DEFAULT '{}',
    CONSTRAINT via_known CHECK (via IN ('api', 'command'))
);
CREATE INDEX IF NOT EXISTS audit_by_target ON audit_log (target, audit_id);

CREATE OR REPLACE FUNCTION keep_audit() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    RAISE EXCEPTION 'what the audit log says cannot be changed' USING ERRCODE = 'check_violation';
END $$;
CREATE OR REPLACE TRIGGER keep_audit BEFORE UPDATE ON audit_log FOR EACH ROW EXECUTE FUNCTION keep_audit();

-- How a user is named there: whoever knows the name can look it up.
CREATE OR REPLACE FUNCTION audit_name(owner text) RETURNS text LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
BEGIN
    RETURN 'user:' || left(encode(words_digest(owner, owner), 'hex'), 32);
END $$;

-- What each server last counted: its active rows and its sockets. unmatched: sessions that have had only one of the two
-- for a while, as [{"session_id", "lacks", "seconds"}].
CREATE TABLE IF NOT EXISTS server_census (
    instance_id uuid        PRIMARY KEY,
    taken_at    timestamptz NOT NULL,
    row_count   integer     NOT NULL,
    sockets     integer     NOT NULL,
    unmatched   jsonb       NOT NULL DEFAULT '[]'
);

-- How many sessions began and ended in each hour that is over, for charts of long times. They stay where sessions are
-- deleted. kind: 'started', 'ended' (a row for every hour, also with 0), 'reason' with the end's reason as its label,
-- 'lasted' and 'late' with a label n where seconds were up to 2 ^ (n / 2). late: from a session's end to its closed row.
CREATE TABLE IF NOT EXISTS session_counts (
    kind     text        NOT NULL,
    hour     timestamptz NOT NULL,
    label    text        NOT NULL,
    sessions bigint      NOT NULL,
    PRIMARY KEY (kind, hour, label)
);

-- Likewise what the responses took that ended in each hour. They name nobody, and stay where users are erased. kind:
-- 'outcome', 'tokens' (input, output, cached: their sum), 'first' and 'took' (seconds until the first piece and the end,
-- with labels as above).
CREATE TABLE IF NOT EXISTS response_counts (
    kind   text        NOT NULL,
    hour   timestamptz NOT NULL,
    label  text        NOT NULL,
    amount bigint      NOT NULL,
    PRIMARY KEY (kind, hour, label)
);

-- Finds the rows of hours that are not counted yet. BRIN: rows lie about in the order of their ends, and an end adds an
-- entry to it only once in many pages; to a B-tree, each would.
CREATE INDEX IF NOT EXISTS sessions_by_end ON conversation_sessions USING brin (ended_at)
    WITH (pages_per_range = 32, autosummarize = on);

-- Nothing is in it while all goes well.
CREATE INDEX IF NOT EXISTS memory_failed ON conversation_sessions (session_start, session_id)
    WHERE memory_status = 'failed';

CREATE OR REPLACE FUNCTION duration_label(seconds double precision) RETURNS text LANGUAGE sql IMMUTABLE
RETURN greatest(-20, ceil(2 * log(2.0, greatest(seconds, 0.0001)::numeric)))::integer::text;

CREATE OR REPLACE FUNCTION whole_hour(moment timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE
RETURN date_bin('1 hour', moment, '2000-01-01 00:00:00+00');

-- The counts of sessions that began or ended within a time, read from their rows. Sequential scans are off: the planner
-- does not know how few rows the end of the table has.
CREATE OR REPLACE FUNCTION count_rows(since timestamptz, until timestamptz, width interval)
RETURNS TABLE (kind text, bucket timestamptz, label text, sessions bigint)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY
    WITH ended AS MATERIALIZED (
        SELECT date_bin(width, s.ended_at, '2000-01-01 00:00:00+00') AS at, s.end_reason AS reason,
               duration_label(s.duration_seconds) AS lasted,
               duration_label(extract(epoch FROM s.ended_at - s.session_end)::double precision) AS late
          FROM conversation_sessions s WHERE s.ended_at >= since AND s.ended_at < until
    )
    SELECT 'started', date_bin(width, s.session_start, '2000-01-01 00:00:00+00'), '', count(*)
      FROM conversation_sessions s WHERE s.session_start >= since AND s.session_start < until GROUP BY 2
    UNION ALL SELECT 'ended', e.at, '', count(*) FROM ended e GROUP BY e.at
    UNION ALL SELECT 'reason', e.at, e.reason, count(*) FROM ended e GROUP BY e.at, e.reason
    UNION ALL SELECT 'lasted', e.at, e.lasted, count(*) FROM ended e GROUP BY e.at, e.lasted
    UNION ALL SELECT 'late', e.at, e.late, count(*) FROM ended e GROUP BY e.at, e.late;
END $$;

CREATE OR REPLACE FUNCTION count_responses(since timestamptz, until timestamptz, width interval)
RETURNS TABLE (kind text, bucket timestamptz, label text, amount bigint)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY
    WITH ended AS MATERIALIZED (
        SELECT date_bin(width, r.ended_at, '2000-01-01 00:00:00+00') AS at, r.outcome, r.input_tokens, r.output_tokens,
               r.cached_tokens, CASE WHEN r.first_at IS NOT NULL THEN
                   duration_label(extract(epoch FROM r.first_at - r.started_at)::double precision) END AS first,
               duration_label(extract(epoch FROM r.ended_at - r.started_at)::double precision) AS took
          FROM agent_responses r WHERE r.ended_at >= since AND r.ended_at < until
    )
    SELECT 'outcome', e.at, e.outcome, count(*) FROM ended e GROUP BY e.at, e.outcome
    UNION ALL SELECT 'tokens', e.at, 'input', sum(e.input_tokens)::bigint FROM ended e GROUP BY e.at
    UNION ALL SELECT 'tokens', e.at, 'output', sum(e.output_tokens)::bigint FROM ended e GROUP BY e.at
    UNION ALL SELECT 'tokens', e.at, 'cached', sum(e.cached_tokens)::bigint FROM ended e GROUP BY e.at
    UNION ALL SELECT 'first', e.at, e.first, count(*) FROM ended e WHERE e.first IS NOT NULL GROUP BY e.at, e.first
    UNION ALL SELECT 'took', e.at, e.took, count(*) FROM ended e GROUP BY e.at, e.took;
END $$;

-- Until when hours are counted; NULL: none is.
CREATE OR REPLACE FUNCTION counted_until() RETURNS timestamptz LANGUAGE sql STABLE
RETURN (SELECT max(hour) + interval '1 hour' FROM session_counts WHERE kind = 'ended');

-- Counts up to hours_max of the hours that are over, for an hour, so that what was about to be committed is there.
-- Returns how many it counted; 0 also where another server does it.
CREATE OR REPLACE FUNCTION count_hours(hours_max integer) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    since timestamptz;
    until timestamptz;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('lastcall session counts')) THEN
        RETURN 0;
    END IF;
    since := counted_until();
    IF since IS NULL THEN
        SELECT whole_hour(min(session_start)) INTO since FROM conversation_sessions;
    END IF;
    until := least(whole_hour(now()) - interval '1 hour', since + make_interval(hours => hours_max));
    IF since IS NULL OR until <= since THEN
        RETURN 0;
    END IF;
    INSERT INTO session_counts (kind, hour, label, sessions)
    WITH counts AS MATERIALIZED (SELECT * FROM count_rows(since, until, '1 hour'))
    SELECT kind, bucket, label, sessions FROM counts WHERE kind <> 'ended'
    UNION ALL
    SELECT 'ended', hour, '', coalesce(sessions, 0)
      FROM generate_series(since, until - interval '1 hour', '1 hour') hour
      LEFT JOIN (SELECT bucket, sessions FROM counts WHERE kind = 'ended') c ON bucket = hour;
    INSERT INTO response_counts (kind, hour, label, amount)
    SELECT c.kind, c.bucket, c.label, c.amount FROM count_responses(since, until, '1 hour') c WHERE c.amount > 0;
    RETURN extract(epoch FROM until - since) / 3600;
END $$;

-- The counts since a time, in buckets of a whole number of hours, or of any width within the hours not counted yet.
CREATE OR REPLACE FUNCTION session_chart(since timestamptz, width interval)
RETURNS TABLE (kind text, bucket timestamptz, label text, sessions bigint)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    counted timestamptz := since;
BEGIN
    IF width >= interval '1 hour' THEN
        counted := greatest(since, counted_until());
        RETURN QUERY
        SELECT c.kind, date_bin(width, c.hour, '2000-01-01 00:00:00+00'), c.label, sum(c.sessions)::bigint
          FROM session_counts c WHERE c.hour >= since AND c.hour < counted AND c.sessions > 0 GROUP BY 1, 2, 3;
    END IF;
    RETURN QUERY SELECT * FROM count_rows(counted, 'infinity', width);
END $$;

-- The same of responses. Hours are counted together with those of sessions.
CREATE OR REPLACE FUNCTION response_chart(since timestamptz, width interval)
RETURNS TABLE (kind text, bucket timestamptz, label text, amount bigint)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    counted timestamptz := since;
BEGIN
    IF width >= interval '1 hour' THEN
        counted := greatest(since, counted_until());
        RETURN QUERY
        SELECT c.kind, date_bin(width, c.hour, '2000-01-01 00:00:00+00'), c.label, sum(c.amount)::bigint
          FROM response_counts c WHERE c.hour >= since AND c.hour < counted GROUP BY 1, 2, 3;
    END IF;
    RETURN QUERY SELECT * FROM count_responses(counted, 'infinity', width);
END $$;

-- ---------------------------------------------------------------------------------------------------- webhooks

-- Where events are sent. The secret signs them, so it is stored itself; whoever can read this table can sign too.
-- A removed endpoint stays until what was queued for it is deleted.
CREATE TABLE IF NOT EXISTS webhook_endpoints (
    endpoint_id uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    url         text        NOT NULL,
    events      text[]      NOT NULL,
    secret      bytea       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    removed_at  timestamptz,
    CONSTRAINT url_is_bounded CHECK (length(url) BETWEEN 1 AND 2048),
    CONSTRAINT events_known CHECK (events <> '{}' AND events <@ ARRAY['session.ended', 'memory.done']),
    CONSTRAINT secret_is_long CHECK (length(secret) BETWEEN 24 AND 64)
);

-- The outbox: an event for an endpoint, written by the transaction that it is about. endpoint_id is no foreign key,
-- whose lock would make the end of a session wait for whoever changes the endpoint.
CREATE TABLE IF NOT EXISTS webhook_deliveries (
    delivery_id bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint_id uuid        NOT NULL,
    event_id    uuid        NOT NULL,   -- the same for every endpoint and try
    event       text        NOT NULL,
    session_id  uuid,                   -- NULL, as user_id: a test
    user_id     text,
    body        text        NOT NULL,
    state       text        NOT NULL DEFAULT 'pending',
    attempts    integer     NOT NULL DEFAULT 0,
    due_at      timestamptz,            -- moved ahead by a claim and by a back-off; NULL: at once, whatever the clock says
    created_at  timestamptz NOT NULL DEFAULT now(),
    tried_since timestamptz NOT NULL DEFAULT now(),     -- its age counts from then
    finished_at timestamptz,
    status      integer,                -- of the last answer
    error       text,                   -- of the last try
    CONSTRAINT state_known CHECK (state IN ('pending', 'delivered', 'failed')),
    CONSTRAINT finished_is_dated CHECK ((state = 'pending') = (finished_at IS NULL))
);
CREATE INDEX IF NOT EXISTS deliveries_due ON webhook_deliveries (endpoint_id, due_at) WHERE state = 'pending';
CREATE INDEX IF NOT EXISTS deliveries_finished ON webhook_deliveries (state, finished_at) WHERE state <> 'pending';

-- Servers look for deliveries only while there are endpoints.
CREATE OR REPLACE FUNCTION notify_of_endpoints() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    NOTIFY lastcall_webhooks;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER notify_of_endpoints AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON webhook_endpoints
    FOR EACH STATEMENT EXECUTE FUNCTION notify_of_endpoints();

-- Queues an event about a session. Its id follows from both: if a crash of the database takes an event back that was
-- delivered already, the same is reported again, and with the same id.
CREATE OR REPLACE FUNCTION queue_event(its_event text, session uuid, owner text, data jsonb) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO webhook_deliveries (endpoint_id, event_id, event, session_id, user_id, body)
    SELECT endpoint_id, md5(its_event || ' ' || session)::uuid, its_event, session, owner, event_body(its_event, data)
      FROM webhook_endpoints WHERE its_event = ANY (events) AND removed_at IS NULL;
END $$;

CREATE OR REPLACE FUNCTION event_body(its_event text, data jsonb) RETURNS text LANGUAGE sql STABLE
RETURN jsonb_build_object('type', its_event, 'data', data, 'timestamp',
                          to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'));

-- What an event says of any session. Ids as clients see them, times in Unix seconds, nothing that was said.
CREATE OR REPLACE FUNCTION event_data(s conversation_sessions) RETURNS jsonb LANGUAGE sql STABLE
RETURN jsonb_build_object(
    'session_id', 'sess_' || replace(s.session_id::text, '-', ''), 'user', s.user_id,
    'conversation_id', 'conv_' || replace(s.conversation_id::text, '-', ''),
    'started_at', extract(epoch FROM s.session_start), 'ended_at', extract(epoch FROM s.session_end));

CREATE OR REPLACE FUNCTION report_ended_session() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    said record;
BEGIN
    IF EXISTS (SELECT FROM webhook_endpoints) THEN
        SELECT count(*) AS messages, count(*) FILTER (WHERE role = 'user') AS by_user INTO said
          FROM messages
         WHERE user_id = NEW.user_id AND session_id = NEW.session_id AND kind = 'message' AND deleted_at IS NULL;
        PERFORM queue_event('session.ended', NEW.session_id, NEW.user_id, event_data(NEW) || jsonb_build_object(
            'seconds', NEW.duration_seconds, 'end_reason', NEW.end_reason, 'close_code', NEW.close_code,
            'row_closed_at', extract(epoch FROM NEW.ended_at), 'memory_status', NEW.memory_status,
            'messages', said.messages, 'user_messages', said.by_user));
    END IF;
    RETURN NULL;
END $$;

-- For each row and not each statement: that would collect the rows of every update, of memory work too.
CREATE OR REPLACE TRIGGER report_ended_session AFTER UPDATE ON conversation_sessions
    FOR EACH ROW WHEN (OLD.is_active AND NOT NEW.is_active) EXECUTE FUNCTION report_ended_session();

-- Of sessions whose memory this transaction has stored.
CREATE OR REPLACE FUNCTION report_memories(sessions uuid[]) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    IF EXISTS (SELECT FROM webhook_endpoints) THEN
        PERFORM queue_event('memory.done', s.session_id, s.user_id, event_data(s) || jsonb_build_object(
                    'memory_done_at', extract(epoch FROM s.memory_finalized_at), 'memory_attempts', s.memory_attempts,
                    'memories', (SELECT count(*) FROM user_memories m WHERE m.source_session_id = s.session_id)))
           FROM conversation_sessions s WHERE s.session_id = ANY (sessions);
    END IF;
END $$;

-- ------------------------------------------------------------------------------------------- imported sessions

-- What `lastcall import` takes over keeps its id: original_id, as text, unique in what it came from. session_id follows
-- from both, so that importing it twice has no effect. NULL: begun here. Only where they are missing, as above; and
-- without an index, which every begin would have to look at.
DO $$ BEGIN
    IF (SELECT count(*) FROM pg_attribute WHERE attrelid = 'conversation_sessions'::regclass
           AND attname IN ('original_id', 'imported_from') AND NOT attisdropped) < 2 THEN
        ALTER TABLE conversation_sessions
            ADD COLUMN IF NOT EXISTS original_id   text,
            ADD COLUMN IF NOT EXISTS imported_from text;
    END IF;
END $$;

-- ------------------------------------------------------------------------------------- what is not kept for ever

-- A batch of what is older than it may become: of ended sessions that began before `until`, the oldest first and behind
-- the session `behind_id`, which began at `behind`, the transcripts; with_sessions: and the sessions themselves, with
-- conversations that have no others. What is remembered of them stays, without the item that it came from. Passed over:
-- sessions whose memory is pending, and those that somebody is at. Returns {"messages", "sessions", "behind",
-- "behind_id"}, the last two null once there are no more; NULL: another one is at it, and the caller is not patient.
CREATE OR REPLACE FUNCTION drop_transcripts(
    until timestamptz, behind timestamptz, behind_id uuid, sessions_max integer, messages_max integer,
    with_sessions boolean, patient boolean
) RETURNS jsonb LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    due           uuid[];
    theirs        uuid[];
    last          record;
    messages_gone integer;
    sessions_gone integer := 0;
BEGIN
    IF patient THEN
        PERFORM pg_advisory_xact_lock(hashtext('lastcall retention'));
    ELSIF NOT pg_try_advisory_xact_lock(hashtext('lastcall retention')) THEN
        RETURN NULL;
    END IF;
    SELECT session_start, session_id INTO last
      FROM (SELECT session_start, session_id FROM conversation_sessions
             WHERE session_start < until AND session_start >= behind AND (session_start, session_id) > (behind, behind_id)
             ORDER BY session_start, session_id LIMIT sessions_max) page
     ORDER BY session_start DESC, session_id DESC LIMIT 1;
    IF last IS NULL THEN
        RETURN jsonb_build_object('messages', 0, 'sessions', 0, 'behind', NULL, 'behind_id', NULL);
    END IF;
    SELECT array_agg(session_id), array_agg(DISTINCT conversation_id) INTO due, theirs
      FROM (SELECT session_id, conversation_id FROM conversation_sessions
             WHERE session_start BETWEEN behind AND last.session_start
               AND (session_start, session_id) > (behind, behind_id)
               AND (session_start, session_id) <= (last.session_start, last.session_id)
               AND NOT is_active AND memory_status <> 'pending'
             FOR UPDATE SKIP LOCKED) free;

    UPDATE user_memories SET source_item_id = NULL WHERE source_session_id = ANY (due) AND source_item_id IS NOT NULL;
    UPDATE superseded_memories SET source_item_id = NULL
     WHERE source_session_id = ANY (due) AND source_item_id IS NOT NULL;
    -- All at once, where the trigger on messages would take their words out turn by turn.
    DELETE FROM recall_passages p USING conversation_sessions s
     WHERE s.session_id = ANY (due) AND p.user_id = s.user_id AND p.session_id = s.session_id;
    DELETE FROM messages WHERE (user_id, message_id) IN (
        SELECT m.user_id, m.message_id FROM conversation_sessions s JOIN messages m USING (user_id, session_id)
         WHERE s.session_id = ANY (due) LIMIT messages_max);
    GET DIAGNOSTICS messages_gone = ROW_COUNT;
    IF messages_gone = messages_max THEN -- there may be more of these sessions
        RETURN jsonb_build_object('messages', messages_gone, 'sessions', 0, 'behind', behind, 'behind_id', behind_id);
    END IF;

    IF with_sessions THEN
        DELETE FROM conversation_sessions WHERE session_id = ANY (due);
        GET DIAGNOSTICS sessions_gone = ROW_COUNT;
        -- A begin that is not committed holds its conversation; one that comes later finds none. A statement of its own,
        -- since the sessions that count are those at the time of the lock.
        SELECT array_agg(conversation_id) INTO theirs
          FROM (SELECT conversation_id FROM conversations WHERE conversation_id = ANY (theirs) FOR UPDATE SKIP LOCKED) free;
        DELETE FROM conversations c WHERE conversation_id = ANY (theirs)
           AND NOT EXISTS (SELECT FROM conversation_sessions s WHERE s.conversation_id = c.conversation_id);
    END IF;
    RETURN jsonb_build_object('messages', messages_gone, 'sessions', sessions_gone,
                              'behind', last.session_start, 'behind_id', last.session_id);
END $$;

-- Returns how many lines of the audit log are gone: of the oldest `lines_max`, those from before `until`.
CREATE OR REPLACE FUNCTION drop_audit(until timestamptz, lines_max integer) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    gone integer;
BEGIN
    -- The oldest by their ids, and then by date: there is no index on dates.
    DELETE FROM audit_log WHERE done_at < until AND audit_id IN (
        SELECT audit_id FROM audit_log ORDER BY audit_id LIMIT lines_max FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

-- ------------------------------------------------------------------------------------ views for operators

-- The state of each session: 'live', 'orphaned' (active, but no living server owns it) or 'ended'. In the second after
-- an outage of the database, or after its clock was set, before the living servers have renewed their leases, their
-- sessions may appear orphaned. A heartbeat far in the future is one from before the clock was set back.
CREATE OR REPLACE VIEW session_truth AS
SELECT s.session_id, s.conversation_id, s.user_id, s.instance_id, s.is_active, s.session_start, s.session_end,
       s.ended_at, s.duration_seconds, s.end_reason, s.close_code, s.memory_status,
       CASE WHEN NOT s.is_active THEN 'ended'
            WHEN i.stopped_at IS NULL AND i.reaped_at IS NULL
                AND i.heartbeat_at BETWEEN now() - make_interval(secs => i.lease_seconds)
                                       AND now() + make_interval(secs => i.lease_seconds)
                THEN 'live'
            ELSE 'orphaned' END AS state,
       i.hostname, i.pid,
       i.heartbeat_at AS owner_last_seen, s.closed_by, s.credential_id, s.memory_attempts, s.memory_due_at,
       s.memory_error, s.memory_finalized_at, s.original_id, s.imported_from
  FROM conversation_sessions s LEFT JOIN server_instances i USING (instance_id);

CREATE OR REPLACE VIEW orphaned_sessions AS
SELECT session_id, conversation_id, user_id, instance_id, hostname, pid, session_start, owner_last_seen,
       greatest(extract(epoch FROM now() - session_start), 0) / 3600 AS hours_active
  FROM session_truth WHERE state = 'orphaned';

CREATE OR REPLACE VIEW daily_session_stats AS
SELECT date(session_start) AS date, count(*) AS total_sessions, avg(duration_seconds) AS avg_duration,
       count(*) FILTER (WHERE is_active) AS still_active,
       count(*) FILTER (WHERE memory_status = 'pending') AS memory_pending,
       count(*) FILTER (WHERE memory_status = 'failed') AS memory_failed
  FROM conversation_sessions GROUP BY date(session_start);

-- What the console shows of a session. last_event_at: of its newest item, else its start. closed_host: of the server that
-- closed the row. prefix: of the key that it was begun with, or whose client secret that was.
CREATE OR REPLACE VIEW session_details AS
SELECT t.*, c.hostname AS closed_host, c.pid AS closed_pid,
       (SELECT k.prefix FROM api_keys k WHERE k.key_id = coalesce(
            (SELECT e.key_id FROM client_secrets e WHERE e.secret_id = t.credential_id), t.credential_id)) AS prefix,
       coalesce((SELECT max(m.created_at) FROM messages m
                  WHERE m.user_id = t.user_id AND m.session_id = t.session_id), t.session_start)
           AS last_event_at
  FROM session_truth t LEFT JOIN server_instances c ON c.instance_id = t.closed_by;

INSERT INTO lastcall_schema (version) VALUES (1) ON CONFLICT (version)
    DO UPDATE SET applied_at = now(), digest = NULL, release = NULL;
COMMIT;
