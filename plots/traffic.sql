-- SPDX-License-Identifier: Apache-2.0
-- A schedule pays where the bytes that it saves per step are also time saved.
-- kv_mb: KV read and written by all layers in a step, MB. time_ms: all attention ops of a step,
-- median over the complete repeats; time_low_ms and time_high_ms: the fastest and slowest of them.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs)),
bytes AS (SELECT run_id, step, sum(kv_read_bytes + kv_write_bytes) / 1e6 AS kv_mb
          FROM layer_step JOIN chosen USING (run_id) WHERE step >= 0 GROUP BY run_id, step),
op AS (SELECT s.run_id, s.step, e.pass_id, sum(e.host_end_ns - e.host_start_ns) / 1e6 AS ms
       FROM scope s JOIN chosen USING (run_id) JOIN scope_exec e ON e.scope_id = s.id
       JOIN pass p ON p.id = e.pass_id
       WHERE s.kind = 'op' AND s.step >= 0 AND p.state = 'complete' AND p.mode = 'bare'
       GROUP BY s.run_id, s.step, e.pass_id),
ranked AS (SELECT *, row_number() OVER w AS rank, count(*) OVER (PARTITION BY run_id, step) AS many
           FROM op WINDOW w AS (PARTITION BY run_id, step ORDER BY ms)),
time AS (SELECT run_id, step, max(CASE WHEN rank = (many + 1) / 2 THEN ms END) AS time_ms,
           min(ms) AS time_low_ms, max(ms) AS time_high_ms FROM ranked GROUP BY run_id, step)
SELECT series, step, kv_mb, time_ms, time_low_ms, time_high_ms
  FROM chosen JOIN bytes USING (run_id) LEFT JOIN time USING (run_id, step) ORDER BY n, step;

-- Times differ only when the slowest repeat of one is faster than the fastest of the other.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs)),
bytes AS (SELECT n, series, sum(kv_read_bytes + kv_write_bytes) * 1.0 / count(DISTINCT step) AS b
          FROM layer_step JOIN chosen USING (run_id) WHERE step >= 0 GROUP BY n),
total AS (SELECT n, series, e.pass_id, sum(e.host_end_ns - e.host_start_ns) * 1.0 AS ns
          FROM scope s JOIN chosen USING (run_id) JOIN scope_exec e ON e.scope_id = s.id
          JOIN pass p ON p.id = e.pass_id
          WHERE s.kind = 'op' AND s.step >= 0 AND p.state = 'complete' AND p.mode = 'bare'
          GROUP BY n, e.pass_id),
span AS (SELECT n, series, min(ns) AS low, max(ns) AS high, avg(ns) AS mean, count(*) AS many
         FROM total GROUP BY n),
least AS (SELECT * FROM bytes ORDER BY b, n LIMIT 1),
most AS (SELECT * FROM bytes ORDER BY b DESC, n LIMIT 1),
fast AS (SELECT * FROM span ORDER BY mean, n LIMIT 1),
slow AS (SELECT * FROM span ORDER BY mean DESC, n LIMIT 1)
SELECT CASE WHEN least.b > 0.99 * most.b THEN 'No difference in KV bytes per step'
       ELSE printf('%s moves %.1f %% of the KV bytes of %s', least.series,
                   100 * least.b / most.b, most.series) END
    || CASE WHEN fast.n IS NULL THEN ''
       WHEN fast.high >= slow.low THEN '; no difference in time'
       ELSE printf('; %s takes %.0f %% of the time of %s', iif(fast.n = least.n, 'it', fast.series),
                   100 * fast.mean / slow.mean, iif(slow.n = most.n, 'that', slow.series)) END
    AS title,
    'method: bytes counted, time '
    || coalesce(r.method || ', median and range of ' || span.many || ' repeats', 'not measured')
    || iif(r.result_json ->> 'cache_resident', ', cache-resident', '') AS method,
    'Time, ' || coalesce(r.method, 'none') AS time_label, count(span.n) AS is_timed
  FROM least, most LEFT JOIN fast LEFT JOIN slow
  LEFT JOIN span ON span.n = least.n JOIN chosen ON chosen.n = least.n JOIN run r ON r.id = chosen.run_id;
