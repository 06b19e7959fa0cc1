-- SPDX-License-Identifier: Apache-2.0
-- Runs with a complete pass that counted what DRAM gave and took, and what their bytes follow from.
WITH chosen AS (SELECT value ->> 'id' AS run_id FROM json_each(:runs)),
counted AS (SELECT p.run_id FROM chosen CROSS JOIN pass p USING (run_id) CROSS JOIN metric_def m
              ON m.name IN ('dram_read_bytes', 'dram_write_bytes')
            WHERE p.mode = 'counter' AND p.state = 'complete'
              AND EXISTS (SELECT 1 FROM metric_value v WHERE v.metric_id = m.id AND v.pass_id = p.id)
            GROUP BY p.id HAVING count(DISTINCT m.name) = 2),
known AS (SELECT r.*, iif(json_valid(r.config_json), r.config_json, '{}') AS config, l.canonical,
            iif(json_valid(l.params_json), l.params_json, '{}') AS params
          FROM run r LEFT JOIN policy l ON l.id = r.policy_id WHERE r.id IN (SELECT run_id FROM counted))
SELECT id, canonical, device, dtype, cache, scores, config ->> '$.model.Hq' AS Hq,
    config ->> '$.model.Hkv' AS Hkv, config ->> '$.model.D' AS D, config ->> '$.model.Dv' AS Dv,
    config ->> 'batch' AS batch, config ->> 'page' AS page, config ->> 'select' AS choice,
    config ->> 'between' AS filler, config ->> 'cache_bytes' AS cache_bytes,
    json_type(config, '$.batch_of') AS sequences, config ->> 'phase' AS phase, config ->> 'ragged' AS ragged,
    (SELECT max(o.result_json ->> '$.P') FROM run o WHERE json_type(config, '$.batch_of') IS NOT NULL
       AND o.invocation_uuid = known.invocation_uuid AND o.policy_id = known.policy_id
       AND o.config_json = known.config_json AND json_valid(o.result_json)) AS longest_prompt,
    params ->> 'pool' AS pool, params ->> 'agg' AS agg, params ->> 'evict' AS evict
  FROM known ORDER BY id;

-- What each layer of each step reads, writes and chooses: of one sequence, of the layers as recorded. Where
-- a batch is of several sequences, each has a run, of which the first has the counters; where it is of
-- copies that differ, the others are in member_step.
WITH chosen AS (SELECT value ->> 'id' AS run_id FROM json_each(:runs)),
kin AS (SELECT r.id AS run_id, o.id AS of_run, row_number() OVER (PARTITION BY r.id ORDER BY o.id <> r.id, o.id) - 1 AS member,
          iif(json_valid(o.result_json), o.result_json ->> '$.P', NULL) AS P
        FROM chosen JOIN run r ON r.id = chosen.run_id JOIN run o ON o.id = r.id
          OR (o.invocation_uuid = r.invocation_uuid AND o.policy_id = r.policy_id AND o.config_json = r.config_json
              AND iif(json_valid(r.config_json), json_type(r.config_json, '$.batch_of'), NULL) IS NOT NULL)),
every AS (SELECT kin.run_id, member, step, layer, P + step + 1 AS visible_tokens, is_full, keys_read, kv_read_bytes,
            kv_write_bytes, refresh_entries, refresh_bytes, selection_bytes, refresh_overlap, query_cosine
          FROM kin JOIN layer_step y ON y.run_id = of_run WHERE step >= 0
          UNION ALL SELECT run_id, member, step, layer, visible_tokens, is_full, keys_read, kv_read_bytes,
            kv_write_bytes, refresh_entries, refresh_bytes, selection_bytes, refresh_overlap, query_cosine
          FROM member_step WHERE run_id IN (SELECT run_id FROM chosen) AND step >= 0)
SELECT run_id, member, step, layer, visible_tokens, is_full, keys_read, kv_read_bytes, kv_write_bytes, refresh_entries,
    refresh_bytes, selection_bytes, refresh_overlap IS NOT NULL AS refreshes, query_cosine IS NOT NULL AS compared
  FROM every ORDER BY run_id, step, member, layer;

-- What was counted in these steps, by the first complete pass with both counters; sectors of 32 bytes
-- that L2 had, by the first pass that counted them.
WITH chosen AS (SELECT value ->> 'id' AS run_id FROM json_each(:runs)),
counted AS (SELECT p.run_id, p.ordinal, m.name, s.step, sum(v.value) AS value
            FROM chosen CROSS JOIN pass p USING (run_id) CROSS JOIN metric_value v ON v.pass_id = p.id
            JOIN metric_def m ON m.id = v.metric_id JOIN scope s ON s.id = v.scope_id
            WHERE p.mode = 'counter' AND p.state = 'complete' AND s.step >= 0
              AND m.name IN ('dram_read_bytes', 'dram_write_bytes', 'l2_from_l1_read_hit')
              AND EXISTS (SELECT 1 FROM layer_step y WHERE y.run_id = p.run_id AND y.step = s.step)
            GROUP BY 1, 2, 3, 4),
dram AS (SELECT run_id, ordinal FROM counted WHERE name GLOB 'dram_*'
         GROUP BY 1, 2 HAVING count(DISTINCT name) = 2),
chosen_pass AS (SELECT run_id, min(ordinal) AS of_dram FROM dram GROUP BY 1),
hits AS (SELECT run_id, min(ordinal) AS of_hits FROM counted WHERE name = 'l2_from_l1_read_hit' GROUP BY 1)
SELECT run_id, step,
    sum(iif(name = 'dram_read_bytes' AND ordinal = of_dram, value, NULL)) AS read,
    sum(iif(name = 'dram_write_bytes' AND ordinal = of_dram, value, NULL)) AS written,
    32 * sum(iif(name = 'l2_from_l1_read_hit' AND ordinal = of_hits, value, NULL)) AS had_by_l2
  FROM counted JOIN chosen_pass USING (run_id) LEFT JOIN hits USING (run_id) GROUP BY 1, 2 ORDER BY 1, 2;
