-- What `sync` would have left of :personas personas, copied hourly over :versions days, in which each
-- changed once a day: its prompt each third time; and then over a quiet week, in which one in fifty
-- changed for the last time, every other of these its voice, and lost what that was told. Of personas
-- every fourth is set up like five hundred others, and every fiftieth has been removed. Ids are made
-- of a word and a number.
CREATE TEMPORARY TABLE paragraphs AS
SELECT number, string_agg(words[1 + (random() * 70)::integer], ' ') AS paragraph
  FROM (SELECT string_to_array('zebra lantern you are a calm and friendly voice that helps callers'
            ' of our clinic with bookings never gives medical advice always asks for the name first'
            ' repeats numbers slowly and says goodbye politely if the caller is upset stay patient'
            ' offer a human colleague keep answers below three sentences speak plainly avoid lists'
            ' and use no jargon', ' ') AS words) AS _,
       generate_series(0, 699) AS number, generate_series(1, 80) AS word
 GROUP BY number;
CREATE UNIQUE INDEX ON paragraphs (number);
ANALYZE paragraphs;
CREATE TEMPORARY TABLE beginning AS
SELECT date_trunc('hour', now()) - (:versions + 7) * interval '1 day' AS began;

CREATE TEMPORARY TABLE shared AS
SELECT kind, n, md5(kind || n)::uuid AS entity_id, version, began + (version - 1) * interval '6 days'
           + n * interval '1 second' AS valid_from,
       CASE WHEN version < 3 THEN began + version * interval '6 days' + n * interval '1 second' END
           AS valid_to,
       sha256(convert_to(kind || ' ' || n || ' ' || version, 'UTF8')) AS content_hash
  FROM beginning, (VALUES ('avatar', 120), ('voice', 90), ('tool', 150), ('knowledge_group', 60))
       AS each (kind, many), generate_series(1, many) AS n, generate_series(1, 3) AS version;
INSERT INTO documents (kind, content_hash, entity_id, document)
SELECT kind, content_hash, entity_id, jsonb_build_object(
           CASE WHEN kind IN ('avatar', 'voice') THEN 'displayName' ELSE 'name' END,
           kind || ' ' || n, 'description', repeat(kind || ' ', version))
  FROM shared;
INSERT INTO document_versions (kind, entity_id, version, valid_from, valid_to, last_observed_at,
                               content_hash, change, changed_paths)
SELECT kind, entity_id, version, valid_from, valid_to, valid_from, content_hash,
       CASE version WHEN 1 THEN 'created' ELSE 'updated' END,
       CASE version WHEN 1 THEN '{}'::text[] ELSE '{description}' END
  FROM shared;
INSERT INTO avatars (avatar_id, display_name, first_seen_at, last_changed_at)
SELECT entity_id, 'avatar ' || n, began, valid_from FROM beginning, shared
 WHERE kind = 'avatar' AND valid_to IS NULL;
INSERT INTO voices (voice_id, display_name, provider, first_seen_at, last_changed_at)
SELECT entity_id, 'voice ' || n, 'ELEVENLABS', began, valid_from FROM beginning, shared
 WHERE kind = 'voice' AND valid_to IS NULL;
INSERT INTO tools (tool_id, name, type, first_seen_at, last_changed_at)
SELECT entity_id, 'tool ' || n, 'CLIENT', began, valid_from FROM beginning, shared
 WHERE kind = 'tool' AND valid_to IS NULL;
INSERT INTO knowledge_groups (knowledge_group_id, name, first_seen_at, last_changed_at)
SELECT entity_id, 'group ' || n, began, valid_from FROM beginning, shared
 WHERE kind = 'knowledge_group' AND valid_to IS NULL;

INSERT INTO runs (run_id, command, status, started_at, finished_at, requested, host, pid, version)
SELECT md5('run' || nth)::uuid, 'sync', 'succeeded', began + nth * interval '1 hour',
       began + nth * interval '1 hour' + interval '3 minutes', :personas, 'here', 1, '0'
  FROM beginning, generate_series(0, (:versions + 7) * 24) AS nth;
DROP INDEX ix_documents_share_links;
-- next
CREATE TEMPORARY TABLE made AS
SELECT n, version, md5('persona' || n)::uuid AS persona_id, alike, late,
       began + nth * interval '1 hour' + n % 170 * interval '1 second' AS valid_from,
       began + next * interval '1 hour' + n % 170 * interval '1 second' AS valid_to,
       md5('run' || nth)::uuid AS run_id,
       n % 50 = 0 AND version = :versions AND version > 1 AS is_removed, is_moved,
       version / 3 + CASE WHEN late > 0 AND version = :versions THEN 1 ELSE 0 END AS third,
       began + hour * interval '1 hour' + n % 170 * interval '1 second' AS first_seen_at,
       sha256(convert_to('persona ' || n || ' ' || version, 'UTF8')) AS content_hash,
       md5('avatar' || (1 + (120 * power(luck, 2))::integer % 120))::uuid AS avatar_id,
       md5('voice' || (1 + ((90 * power(luck, 2))::integer + is_moved::integer) % 90))::uuid
                 AS voice_id,
       ARRAY[md5('tool' || (1 + alike % 150))::uuid, md5('tool' || (1 + (alike + 1) % 150))::uuid,
             md5('tool' || (1 + (alike + 9) % 150))::uuid] AS tool_ids,
       md5('knowledge_group' || (1 + alike % 60))::uuid AS group_id,
       CASE alike % 9 WHEN 0 THEN 'CUSTOMER_CLIENT_V1' ELSE md5('llm' || alike % 4) END AS llm_id,
       'Persona ' || n || ' v' || version AS name
  FROM beginning, generate_series(:first, :last) AS n,
       generate_series(1, :versions) AS version,
       LATERAL (SELECT CASE n % 4 WHEN 0 THEN n % 200 ELSE n END AS alike, n % 24 AS hour,
                       -- Which runs of the quiet week saw it change.
                       CASE n % 50 WHEN 1 THEN 24 + n / 50 % 144 ELSE 0 END AS late) AS _,
       LATERAL (SELECT alike * 7919 % 1000 / 1000.0 AS luck,
                       n % 100 = 1 AND version = :versions AND version > 1 AS is_moved,
                       (version - 1) * 24 + hour
                           + CASE version WHEN :versions THEN late ELSE 0 END AS nth,
                       CASE WHEN version < :versions THEN version * 24 + hour
                           + CASE version WHEN :versions - 1 THEN late ELSE 0 END END AS next) AS __;
CREATE TEMPORARY TABLE prompts AS
SELECT alike, third, string_agg(paragraph, E'\n\n' ORDER BY part) AS prompt
  FROM (SELECT DISTINCT alike, third FROM made) AS each,
       LATERAL (SELECT abs(hashtext(alike || ' ' || third) % 1000000) AS chance) AS _,
       generate_series(1, 2 + alike % 5) AS part, paragraphs
 WHERE number = (chance + part) % 700
 GROUP BY alike, third;
ANALYZE made, prompts;

INSERT INTO documents (kind, content_hash, entity_id, document)
SELECT 'persona', content_hash, persona_id, jsonb_build_object(
           'name', name, 'description', 'Helps with what callers ask, number ' || n,
           'avatar', jsonb_build_object('id', avatar_id), 'voice', jsonb_build_object('id', voice_id),
           'avatarModel', 'cara-3', 'voiceSpeed', 1, 'llmId', llm_id, 'skipGreeting', false,
           'zeroDataRetention', alike % 5 = 0, 'enableAudioPassthrough', false, 'widgetConfig', '{}',
           'brain', jsonb_build_object('systemPrompt', prompt, 'personality', 'calm and clear'),
           'tools', (SELECT jsonb_agg(jsonb_build_object('id', id)) FROM unnest(tool_ids) AS id),
           'knowledge', jsonb_build_array(jsonb_build_object('id', group_id)),
           'shareLinks', jsonb_build_array(jsonb_build_object(
               'id', md5('link' || n)::uuid, 'token', 'sha256:' || md5('t' || n) || md5('u' || n),
               'type', 'LINK', 'usageLimit', 100, 'enabled', true,
               'allowedOrigins', jsonb_build_array('https://example.com'))),
           'voiceGenerationOptions', CASE WHEN NOT is_moved THEN
               jsonb_build_object('stability', alike % 10 / 10.0, 'speed', 1) END)
  FROM made JOIN prompts USING (alike, third)
 WHERE NOT is_removed;
INSERT INTO observations (kind, entity_id, observed_at, persona_id, content_hash, run_id)
SELECT 'persona', persona_id, valid_from, persona_id,
       CASE WHEN NOT is_removed THEN content_hash END, run_id
  FROM made;
INSERT INTO document_versions (kind, entity_id, version, valid_from, valid_to, last_observed_at,
                               content_hash, change, changed_paths, run_id)
SELECT 'persona', persona_id, version, valid_from, valid_to,
       COALESCE(valid_to - interval '1 hour', valid_from),
       CASE WHEN NOT is_removed THEN content_hash END,
       CASE WHEN is_removed THEN 'removed' WHEN version = 1 THEN 'created' ELSE 'updated' END,
       CASE WHEN is_removed OR version = 1 THEN '{}'::text[]
            WHEN is_moved THEN '{name,voice.id,voiceGenerationOptions}'
            WHEN late > 0 AND version = :versions THEN '{brain.systemPrompt,name}'
            WHEN version % 3 = 0 THEN '{brain.systemPrompt,name}' ELSE '{name}' END,
       run_id
  FROM made;
INSERT INTO run_items (run_id, persona_id, outcome, http_status, attempts, duration_ms, message)
SELECT run_id, persona_id,
       CASE WHEN is_removed THEN 'missing' WHEN version = 1 THEN 'created' ELSE 'updated' END,
       CASE WHEN is_removed THEN 404 ELSE 200 END, 1, 100, NULL
  FROM made
UNION ALL
-- Now and then one fails, twelve hours later.
SELECT md5('run' || ((day - 1) * 24 + (n + 12) % 24))::uuid, persona_id, 'failed', 503, 3, 900,
       'the API answered 503 three times'
  FROM (SELECT DISTINCT n, persona_id FROM made) AS each,
       generate_series(1, :versions + 7) AS day WHERE (n + day) % 100 = 0;

-- What the last version tells; of a removed persona the one before.
CREATE TEMPORARY TABLE last AS
SELECT DISTINCT ON (n) made.*, prompt
  FROM made JOIN prompts USING (alike, third)
 WHERE NOT is_removed ORDER BY n, version DESC;
ANALYZE last;
INSERT INTO observations (kind, entity_id, observed_at, persona_id, content_hash)
SELECT shared.kind, shared.entity_id, shared.valid_from + last.n * interval '1 microsecond',
       last.persona_id, shared.content_hash
  FROM last, shared
 WHERE shared.entity_id = ANY (last.tool_ids || ARRAY[last.avatar_id, last.voice_id, last.group_id])
   AND shared.valid_to IS NULL;
INSERT INTO personas (persona_id, name, description, avatar_id, avatar_model, voice_id, voice_speed,
                      llm_id, skip_greeting, zero_data_retention, enable_audio_passthrough,
                      widget_config, removed_at, first_seen_at, last_changed_at)
SELECT persona_id, name, 'Helps with what callers ask, number ' || n, avatar_id, 'cara-3', voice_id,
       1, llm_id, false, alike % 5 = 0, false, '{}',
       CASE WHEN n % 50 = 0 AND :versions > 1 THEN valid_from + interval '1 day' END,
       first_seen_at, valid_from
  FROM last;
INSERT INTO brains (persona_id, personality, system_prompt)
SELECT persona_id, 'calm and clear', prompt FROM last;
INSERT INTO voice_generation_options (persona_id, stability, speed)
SELECT persona_id, alike % 10 / 10.0, 1 FROM last WHERE NOT is_moved;
INSERT INTO persona_tools (persona_id, tool_id, position)
SELECT persona_id, id, place - 1 FROM last, unnest(tool_ids) WITH ORDINALITY AS _ (id, place);
INSERT INTO persona_knowledge_groups (persona_id, knowledge_group_id, position)
SELECT persona_id, group_id, 0 FROM last;
INSERT INTO share_links (share_link_id, persona_id, token_sha256, type, usage_limit, usage_count,
                         enabled, expires_at)
SELECT md5('link' || n)::uuid, persona_id, md5('t' || n) || md5('u' || n), 'LINK', 100, n % 110,
       n % 10 > 0, CASE WHEN n % 3 > 0 THEN now() + (n % 400 - 100) * interval '1 day' END
  FROM last;
INSERT INTO share_link_allowed_origins (share_link_id, origin, position)
SELECT md5('link' || n)::uuid, 'https://example.com', 0 FROM last;
INSERT INTO persona_sync_state (persona_id, last_attempt_at, last_success_at, last_outcome,
                                consecutive_failures, last_run_id)
SELECT persona_id, now(), now() - CASE WHEN n % 30 = 0 THEN interval '5 hours' ELSE '0' END,
       'unchanged', 0, md5('run' || (:versions + 7) * 24)::uuid
  FROM last;
INSERT INTO value_issues (kind, entity_id, path, problem, first_seen_at, last_seen_at, resolved_at)
SELECT 'persona', persona_id, 'voiceSpeed', 'no number', valid_from, valid_from,
       CASE WHEN n % 40 = 0 THEN now() END
  FROM last WHERE n % 20 = 0;
INSERT INTO rejected_payloads (id, persona_id, run_id, observed_at, reason, body, length)
SELECT md5('rejected' || n)::uuid, persona_id, run_id, valid_from, 'no object', '[]', 2
  FROM last WHERE n % 50 = 0;
DROP TABLE last, made, prompts;
-- next
INSERT INTO drift_paths (kind, path, problem, json_types, first_seen_at, last_seen_at, occurrences,
                         status)
SELECT 'persona', 'unheardOf' || n, 'unknown', '{string}', began, began, 1, 'open'
  FROM beginning, generate_series(1, 100) AS n;
CREATE INDEX ix_documents_share_links ON documents
 USING gin ((document -> 'shareLinks') jsonb_path_ops) WHERE kind = 'persona';
