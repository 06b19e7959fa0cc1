-- SPDX-License-Identifier: Apache-2.0
-- What the runs of one invocation have in common, as a list of names and values.
WITH chosen AS (SELECT value ->> 'id' AS run_id FROM json_each(:runs))
SELECT iif(count(*) > 1 AND max(r.id) - min(r.id) + 1 = count(*),
           min(r.id) || ' to ' || max(r.id), group_concat(r.id, ', ')) AS "runs",
    datetime(min(r.started_unix_ns) / 1000000000, 'unixepoch') || ' UTC' AS "date",
    group_concat(DISTINCT iif(r.kind = 'eval', NULL, r.trace_path)) AS "trace",
    group_concat(DISTINCT iif(r.kind = 'eval', r.trace_path, NULL)) AS "texts",
    group_concat(DISTINCT r.trace_sha256) AS "trace SHA-256",
    group_concat(DISTINCT r.seq) AS "sequences",
    group_concat(DISTINCT r.schedule_of_trace) AS "recorded under",
    group_concat(DISTINCT r.result_json ->> 'synthetic') AS "synthetic trace",
    group_concat(DISTINCT r.model_id) AS "model",
    (SELECT group_concat(value, ', ') FROM json_each(max(r.result_json), '$.layers'))
      || ' of ' || max(r.result_json ->> 'n_layers') AS "layers",
    (SELECT group_concat(value, ', ') FROM json_each(max(r.result_json), '$.window_layers')) AS "window layers",
    group_concat(DISTINCT r.result_json ->> 'P') AS "P, prompt tokens",
    group_concat(DISTINCT r.result_json ->> 'N') AS "N, decode steps",
    group_concat(DISTINCT r.device) AS "device",
    (SELECT group_concat(DISTINCT d.name || coalesce(', ' || d.chip, '') || coalesce(', ' || d.sm_count || ' SMs', '')
       || coalesce(', driver ' || d.driver_version, '')) FROM device d JOIN chosen USING (run_id)
       JOIN run q ON q.id = d.run_id WHERE q.invocation_uuid IS r.invocation_uuid) AS "card",
    group_concat(DISTINCT r.backend) AS "backend",
    group_concat(DISTINCT r.dtype) AS "KV stored as",
    group_concat(DISTINCT r.scores) AS "scores",
    group_concat(DISTINCT r.cache) AS "recycled cache",
    coalesce(group_concat(DISTINCT r.method), 'none: nothing was timed') AS "method of times",
    group_concat(DISTINCT r.launch_mode) AS "launch mode",
    group_concat(DISTINCT r.result_json ->> 'repeats') AS "repeats",
    group_concat(DISTINCT nullif(r.result_json ->> 'batch', 1)) AS "batch",
    group_concat(DISTINCT nullif(r.result_json ->> 'tile_layers', 1)) AS "layers laid out",
    group_concat(DISTINCT r.result_json ->> 'between') AS "between layers",
    group_concat(DISTINCT 'rattn-sim ' || r.tool_version) AS "tool",
    group_concat(DISTINCT r.seed) AS "seed",
    r.invocation_uuid AS "invocation",
    iif(json_valid(r.config_json), r.config_json ->> 'cwd', NULL) AS "folder",
    CASE WHEN json_valid(r.argv_json) THEN (SELECT group_concat(CASE
        WHEN value = '' OR value GLOB '*[^A-Za-z0-9_./:=,+@%-]*' THEN '''' || replace(value, '''', '''\''''') || ''''
        ELSE value END, ' ') FROM json_each(r.argv_json)) END AS "command line"
  FROM run r JOIN chosen ON chosen.run_id = r.id
  GROUP BY coalesce(r.invocation_uuid, r.uuid) ORDER BY min(r.id);
