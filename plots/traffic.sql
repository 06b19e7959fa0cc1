-- SPDX-License-Identifier: Apache-2.0
-- A schedule pays where the bytes that it saves per step are also time saved.
-- Needs decode steps.
-- kv_mb: KV read and written by all layers in a step. time_ms: all attention ops of a step, median
-- over the complete repeats, or the device's time of the whole step; time_low_ms and time_high_ms: the
-- fastest and slowest of them. A run without a method has no time, nor has a late step, in which the
-- device waited for the host. More than 256 steps (16 where there are more than six series) are drawn as
-- means of 2, 4, 8, ... steps, which strides mostly divide; step is the first of them, and the rest at
-- the end is left out.
WITH RECURSIVE chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs)),
bytes AS (SELECT run_id, step, sum(kv_read_bytes + kv_write_bytes) / 1e6 AS kv_mb
          FROM layer_step JOIN chosen USING (run_id) WHERE step >= 0 GROUP BY run_id, step),
op AS (SELECT s.run_id, s.step, e.pass_id,
         sum(iif(s.kind = 'step', e.event_us * 1e3, e.host_end_ns - e.host_start_ns)) / 1e6 AS ms
       FROM scope s JOIN chosen USING (run_id) JOIN scope_exec e ON e.scope_id = s.id
       JOIN pass p ON p.id = e.pass_id JOIN run r ON r.id = s.run_id AND r.method IS NOT NULL
       WHERE s.kind IN ('op', 'step') AND s.step >= 0 AND p.state = 'complete' AND p.mode = 'bare'
       GROUP BY s.run_id, s.step, e.pass_id HAVING ms IS NOT NULL),
ranked AS (SELECT *, row_number() OVER w AS rank, count(*) OVER (PARTITION BY run_id, step) AS many
           FROM op WINDOW w AS (PARTITION BY run_id, step ORDER BY ms)),
time AS (SELECT run_id, step, max(CASE WHEN rank = (many + 1) / 2 THEN ms END) AS time_ms,
           min(ms) AS time_low_ms, max(ms) AS time_high_ms FROM ranked GROUP BY run_id, step),
wide(width) AS (SELECT 1 UNION ALL SELECT 2 * width FROM wide
                WHERE width * (SELECT iif(count(*) > 6, 16, 256) FROM chosen)
                  < (SELECT max(step) + 1 FROM bytes)),
bin AS (SELECT max(width) AS width FROM wide)
SELECT series, min(step) AS step, avg(kv_mb) AS kv_mb, avg(time_ms) AS time_ms,
    avg(time_low_ms) AS time_low_ms, avg(time_high_ms) AS time_high_ms
  FROM chosen JOIN bytes USING (run_id) LEFT JOIN time USING (run_id, step), bin
  GROUP BY n, step / width HAVING count(*) = width ORDER BY n, step;

-- Bounds are drawn, and never named, nor are times that no device took. Bytes differ from 1 % on; times
-- only when the slowest repeat of one is faster than the fastest of the other.
WITH RECURSIVE chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series,
                  value ->> 'is_bound' AS is_bound FROM json_each(:runs)),
free AS (SELECT * FROM chosen
         WHERE NOT is_bound OR NOT EXISTS (SELECT 1 FROM chosen WHERE NOT is_bound)),
bytes AS (SELECT n, series, sum(kv_read_bytes + kv_write_bytes) * 1.0 / count(DISTINCT step) AS b
          FROM layer_step JOIN free USING (run_id) WHERE step >= 0 GROUP BY n),
total AS (SELECT n, series, e.pass_id,
            sum(iif(s.kind = 'step', e.event_us * 1e3, e.host_end_ns - e.host_start_ns)) * 1.0
            / count(DISTINCT s.step) FILTER (WHERE s.kind = 'op' OR e.event_us IS NOT NULL) AS ns
          FROM scope s JOIN free USING (run_id) JOIN scope_exec e ON e.scope_id = s.id
          JOIN pass p ON p.id = e.pass_id JOIN run r ON r.id = s.run_id AND r.method IS NOT NULL
          WHERE s.kind IN ('op', 'step') AND s.step >= 0 AND p.state = 'complete' AND p.mode = 'bare'
          GROUP BY n, e.pass_id HAVING ns IS NOT NULL),
span AS (SELECT n, series, min(ns) AS low, max(ns) AS high, avg(ns) AS mean, count(*) AS many
         FROM total GROUP BY n),
least AS (SELECT * FROM bytes ORDER BY b, n LIMIT 1),
most AS (SELECT * FROM bytes ORDER BY b DESC, n LIMIT 1),
fast AS (SELECT * FROM span ORDER BY mean, n LIMIT 1),
slow AS (SELECT * FROM span ORDER BY mean DESC, n LIMIT 1),
wide(width) AS (SELECT 1 UNION ALL SELECT 2 * width FROM wide
                WHERE width * (SELECT iif(count(*) > 6, 16, 256) FROM chosen)
                  < (SELECT max(step) + 1 FROM layer_step JOIN chosen USING (run_id))),
whole AS (SELECT min(r.method) AS method, max(r.result_json ->> 'cache_resident') AS is_resident,
            (SELECT max(width) FROM wide) AS width,
            (SELECT max(many) FROM span) AS repeats
          FROM run r JOIN chosen ON chosen.run_id = r.id)
SELECT CASE WHEN (SELECT count(*) FROM bytes) = 1 THEN
         printf('%s moves %.4g MB of KV per step', least.series, least.b / 1e6)
           || coalesce(printf(' and takes %.3g ms', slow.mean / 1e6), '')
       ELSE CASE WHEN least.b > 0.99 * most.b THEN 'No difference in KV bytes per step'
         ELSE printf('%s moves %.3g %% of the KV bytes of %s', least.series,
                     100 * least.b / most.b, most.series) END
       || CASE WHEN fast.n IS NULL OR whole.method = 'synthetic' THEN ''
         WHEN fast.high >= slow.low THEN '; no difference in time'
         WHEN fast.n = least.n AND slow.n = most.n AND least.b <= 0.99 * most.b THEN
           printf(' and takes %.3g %% of its time', 100 * fast.mean / slow.mean)
         ELSE printf('; %s takes %.3g %% of the time of %s', fast.series, 100 * fast.mean / slow.mean,
                     slow.series) END
       END AS title,
    'method: bytes counted, time ' || CASE WHEN repeats IS NULL OR whole.method IS NULL THEN 'not measured'
      WHEN repeats = 1 THEN whole.method || ' of attention in all replayed layers, 1 repeat, so no range'
      ELSE whole.method || ' of attention in all replayed layers, median and range of ' || repeats || ' repeats' END
    || iif(repeats IS NOT NULL AND is_resident, ', cache-resident', '')
    || iif(width > 1, '; each point the mean of ' || width || ' steps', '') AS method,
    iif(repeats IS NULL, 1, 2) AS panels
  FROM whole, least, most LEFT JOIN fast LEFT JOIN slow;
