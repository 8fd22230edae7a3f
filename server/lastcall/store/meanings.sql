-- What turns of the past mean, as vectors. Made where the extra `lastcall[meaning]` is installed and the database has
-- pgvector; without it, schema.sql is all there is. Applied as one transaction, after schema.sql.

-- Where pgvector was dropped, its column went along.
DO $$ BEGIN
    IF to_regclass('recall_meanings') IS NOT NULL AND NOT EXISTS (
       SELECT FROM pg_attribute
        WHERE attrelid = to_regclass('recall_meanings') AND attname = 'meaning' AND NOT attisdropped) THEN
        DROP TABLE recall_meanings;
    END IF;
END $$;

-- One row for each turn: searched by a scan of the user's newest, for which no index is needed but the key.
CREATE TABLE IF NOT EXISTS recall_meanings (
    user_id    text         NOT NULL,
    passage_id bigint       NOT NULL,
    turn       smallint     NOT NULL,   -- its number in the passage, from 0
    meaning    halfvec(512) NOT NULL,   -- of the length 500, in whole numbers
    PRIMARY KEY (user_id, passage_id, turn)
);
ALTER TABLE recall_meanings ALTER meaning SET STORAGE PLAIN; -- it always fits a page, and is never read in part
SELECT partition_by_user('recall_meanings', (SELECT count(*)::integer FROM pg_inherits
                                           WHERE inhparent = 'messages'::regclass))
 WHERE NOT EXISTS (SELECT FROM recall_meanings);

-- Passages that a server encodes at the moment, since they were indexed without meanings; and those that it gave up.
CREATE TABLE IF NOT EXISTS meaning_claims (
    user_id       text        NOT NULL,
    passage_id    bigint      NOT NULL,
    claimed_until timestamptz NOT NULL,
    tries         smallint    NOT NULL,
    PRIMARY KEY (user_id, passage_id)
);

-- A turn that is deleted leaves its passage, and a session its passages; so their meanings go, in the same transaction,
-- whoever does it. Not by a foreign key, which would forbid to truncate recall_passages.
CREATE OR REPLACE FUNCTION forget_turn_meanings() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM recall_meanings
     WHERE user_id = NEW.user_id AND passage_id = NEW.passage_id AND NEW.message_ids[turn + 1] IS NULL;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION forget_meanings() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM recall_meanings m USING before WHERE m.user_id = before.user_id AND m.passage_id = before.passage_id;
    DELETE FROM meaning_claims c USING before WHERE c.user_id = before.user_id AND c.passage_id = before.passage_id;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION forget_all_meanings() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM recall_meanings; -- not TRUNCATE, which fails where the same statement truncates it too
    DELETE FROM meaning_claims;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER forget_turn_meanings AFTER UPDATE OF message_ids ON recall_passages
    FOR EACH ROW EXECUTE FUNCTION forget_turn_meanings();
CREATE OR REPLACE TRIGGER forget_meanings AFTER DELETE ON recall_passages
    REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION forget_meanings();
CREATE OR REPLACE TRIGGER forget_all_meanings AFTER TRUNCATE ON recall_passages
    FOR EACH STATEMENT EXECUTE FUNCTION forget_all_meanings();

-- As finish_memories, with the meanings of the sessions' turns: a list of `TurnMeaning` in each. What was deleted since
-- has none. Where pgvector is gone, words have to do: a memory is worth more.
CREATE OR REPLACE FUNCTION finish_memories_with_meanings(finished jsonb, lifetime interval) RETURNS SETOF uuid
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    done uuid[] := ARRAY(SELECT finish_memories(finished, lifetime));
BEGIN
    BEGIN
        INSERT INTO recall_meanings (user_id, passage_id, turn, meaning)
        SELECT p.user_id, p.passage_id, said.ordinality - 1, (given.meaning ->> 'vector')::halfvec
          FROM jsonb_to_recordset(finished) AS f (session_id uuid, meanings jsonb)
          JOIN conversation_sessions s USING (session_id)
          JOIN recall_passages p ON p.user_id = s.user_id AND p.session_id = s.session_id
         CROSS JOIN LATERAL unnest(p.message_ids) WITH ORDINALITY AS said (message_id, ordinality)
          JOIN messages m ON m.user_id = s.user_id AND m.message_id = said.message_id
         CROSS JOIN LATERAL (SELECT meaning FROM jsonb_array_elements(f.meanings) meaning
                              WHERE meaning ->> 'item_id' = m.item_id LIMIT 1) given
         WHERE s.session_id = ANY (done)
            ON CONFLICT DO NOTHING;
    EXCEPTION WHEN undefined_table OR undefined_column OR undefined_object OR undefined_function THEN
        RAISE WARNING 'turns are indexed by their words only: %', SQLERRM;
    END;
    RETURN QUERY SELECT unnest(done);
END $$;

-- Compares the user's newest turns with a question's vector. Returns the passages `among`, and the passages_max that
-- have the nearest turns: each with its flags, the numbers of its turns and their cosines; and, with every row, how many
-- turns were compared, and the mean, deviation and maximum of their cosines.
CREATE OR REPLACE FUNCTION search_meanings(owner text, asked text, among bigint[], passages_max integer)
RETURNS TABLE (passage_id bigint, flags smallint[], turns smallint[], nearness float8[],
               compared bigint, mean float8, deviation float8, nearest float8)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    turns_max CONSTANT integer := 4000; -- a search takes 1.5 us for each
    question  CONSTANT halfvec := asked;
BEGIN
    RETURN QUERY
    WITH newest AS MATERIALIZED (
        SELECT passage_id, turn, -(meaning <#> question) / 250000 AS cosine FROM recall_meanings
         WHERE user_id = owner ORDER BY passage_id DESC, turn DESC LIMIT turns_max
    ), spread AS (
        SELECT count(*) AS compared, avg(cosine) AS mean, stddev_pop(cosine) AS deviation, max(cosine) AS nearest
          FROM newest
    ), found AS MATERIALIZED (
        SELECT passage_id, max(cosine) AS nearest, array_agg(turn) AS turns, array_agg(cosine) AS nearness
          FROM newest GROUP BY passage_id
    ), chosen AS (
        SELECT passage_id FROM unnest(among) AS passage_id
         UNION (SELECT passage_id FROM found ORDER BY nearest DESC, passage_id DESC LIMIT passages_max)
    )
    SELECT p.passage_id, p.flags, f.turns, f.nearness, s.compared, s.mean, s.deviation, s.nearest
      FROM chosen JOIN found f USING (passage_id), spread s, recall_passages p
     WHERE p.user_id = owner AND p.passage_id = f.passage_id;
END $$;

-- Claims the next passage without meanings, in the order of keys; looks at no more than 500 of them. Returns its turns
-- and the beginnings of their texts. A row without a turn: there was none, and the walk goes on behind that key. No row:
-- there are no more passages.
CREATE OR REPLACE FUNCTION claim_unencoded(after_user text, after_passage bigint, chars_max integer, lease interval)
RETURNS TABLE (user_id text, passage_id bigint, turn smallint, said text)
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    looked_at_max CONSTANT integer := 500;
    tries_max     CONSTANT integer := 3;
    seen          record;
BEGIN
    FOR seen IN SELECT p.user_id, p.passage_id, p.message_ids FROM recall_passages p
                 WHERE (p.user_id, p.passage_id) > (after_user, after_passage)
                 ORDER BY p.user_id, p.passage_id LIMIT looked_at_max LOOP
        CONTINUE WHEN EXISTS (SELECT FROM recall_meanings m
                               WHERE m.user_id = seen.user_id AND m.passage_id = seen.passage_id);
        INSERT INTO meaning_claims AS c (user_id, passage_id, claimed_until, tries)
        VALUES (seen.user_id, seen.passage_id, now() + lease, 1)
            ON CONFLICT (user_id, passage_id) DO UPDATE SET claimed_until = now() + lease, tries = c.tries + 1
         WHERE c.claimed_until < now() AND c.tries < tries_max;
        CONTINUE WHEN NOT FOUND;
        -- Whoever had the claim may have stored the meanings and given it back since the look above.
        IF EXISTS (SELECT FROM recall_meanings m WHERE m.user_id = seen.user_id AND m.passage_id = seen.passage_id) THEN
            DELETE FROM meaning_claims c WHERE c.user_id = seen.user_id AND c.passage_id = seen.passage_id;
            CONTINUE;
        END IF;
        RETURN QUERY SELECT seen.user_id, seen.passage_id, (of_turn.ordinality - 1)::smallint, left(m.content, chars_max)
                       FROM unnest(seen.message_ids) WITH ORDINALITY AS of_turn (message_id, ordinality)
                       JOIN messages m ON m.user_id = seen.user_id AND m.message_id = of_turn.message_id
                      WHERE m.content ~ '\S';
        IF FOUND THEN RETURN; END IF;
        -- Nothing is left to encode in it; a claim without end says so, until the passage goes.
        UPDATE meaning_claims c SET claimed_until = 'infinity'
         WHERE c.user_id = seen.user_id AND c.passage_id = seen.passage_id;
    END LOOP;
    IF seen IS NOT NULL THEN
        RETURN QUERY SELECT seen.user_id, seen.passage_id, NULL::smallint, NULL::text;
    END IF;
END $$;

-- Stores the meanings of a passage that was claimed, a list of turns and vectors. Returns their number. The lock waits for
-- whoever deletes one of its turns at the moment: what is deleted has no meaning.
CREATE OR REPLACE FUNCTION store_encoded(owner text, passage bigint, encoded jsonb) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    there  uuid[];
    stored bigint;
BEGIN
    SELECT message_ids INTO there FROM recall_passages WHERE user_id = owner AND passage_id = passage FOR SHARE;
    INSERT INTO recall_meanings (user_id, passage_id, turn, meaning)
    SELECT owner, passage, e.turn, e.vector::halfvec FROM jsonb_to_recordset(encoded) AS e (turn smallint, vector text)
     WHERE there[e.turn + 1] IS NOT NULL
        ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS stored = ROW_COUNT;
    DELETE FROM meaning_claims c WHERE c.user_id = owner AND c.passage_id = passage;
    RETURN stored;
END $$;

-- How many passages have no meanings and were not given up, at most so many.
CREATE OR REPLACE FUNCTION count_unencoded(count_max integer) RETURNS bigint
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT count(*) FROM (
        SELECT FROM recall_passages p
         WHERE NOT EXISTS (SELECT FROM recall_meanings m WHERE m.user_id = p.user_id AND m.passage_id = p.passage_id)
           AND NOT EXISTS (SELECT FROM meaning_claims c WHERE c.user_id = p.user_id AND c.passage_id = p.passage_id
                            AND (c.claimed_until = 'infinity' OR (c.tries >= 3 AND c.claimed_until < now())))
         LIMIT count_max) AS missing
$$;
