-- SPDX-License-Identifier: Apache-2.0
-- What a step moves is what the schedule reads and writes, and what its kernels need beside that.
-- Needs passes that counted what DRAM gave and took.
-- One row per bar: dram_mb is its mean per decode step, from_mb where it begins. What was measured is of
-- the first complete pass with both counters. No table holds what is predicted: sim/traffic.c computes it
-- of layer_step and puts it into :runs, whose objects have for this figure parts [{words, bytes}], empty
-- where nothing could be predicted, between_bytes and is_emulated as well. head names the run above its
-- first bar.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series, value -> 'parts' AS parts,
                  value ->> 'is_emulated' AS is_emulated FROM json_each(:runs) WHERE value ->> 'parts' IS NOT NULL),
counted AS (SELECT p.run_id, p.ordinal, s.step, m.name, sum(v.value) AS bytes
            FROM chosen CROSS JOIN pass p USING (run_id) CROSS JOIN metric_value v ON v.pass_id = p.id
            JOIN metric_def m ON m.id = v.metric_id JOIN scope s ON s.id = v.scope_id
            WHERE p.mode = 'counter' AND p.state = 'complete' AND s.step >= 0
              AND m.name IN ('dram_read_bytes', 'dram_write_bytes')
              AND EXISTS (SELECT 1 FROM layer_step y WHERE y.run_id = p.run_id AND y.step = s.step)
            GROUP BY 1, 2, 3, 4),
whole AS (SELECT run_id, ordinal, sum(bytes) / count(DISTINCT step) AS bytes FROM counted
          GROUP BY 1, 2 HAVING count(DISTINCT name) = 2),
measured AS (SELECT run_id, min(ordinal), bytes FROM whole GROUP BY 1),
predicted AS (SELECT n, run_id, p.key AS place, p.value ->> 'words' AS words, p.value ->> 'bytes' AS bytes
              FROM chosen JOIN measured USING (run_id) JOIN json_each(parts) p),
total AS (SELECT run_id, sum(bytes) AS bytes FROM predicted GROUP BY 1),
bar(kind, n, place, words, bytes, from_bytes) AS (
  SELECT 'predicted', n, place, words, bytes, sum(bytes) OVER (PARTITION BY n ORDER BY place) - bytes FROM predicted
  UNION ALL SELECT iif(is_emulated, 'emulated', 'measured'), n, 100,
    iif(is_emulated, 'emulated', 'measured') || ': read and written', bytes, 0 FROM chosen JOIN measured USING (run_id)
  UNION ALL SELECT 'unexplained', n, 101, 'unexplained', measured.bytes - total.bytes, total.bytes
    FROM chosen JOIN measured USING (run_id) JOIN total USING (run_id)),
line AS (SELECT *, row_number() OVER (ORDER BY n, place) + dense_rank() OVER (ORDER BY n) AS row,
           place = min(place) OVER (PARTITION BY n) AS is_first FROM bar)
SELECT kind AS series, row, iif(is_first, iif(length(series) > 60, substr(series, 1, 57) || '...', series), '') AS head,
    words, bytes / 1e6 AS dram_mb, from_bytes / 1e6 AS from_mb
  FROM line JOIN chosen USING (n) ORDER BY kind = 'unexplained', kind <> 'predicted', row;

-- The run of which most is left, either way, of what it moves apart from what is read between layers.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series, value -> 'parts' AS parts,
                  value ->> 'between_bytes' AS between_bytes, value ->> 'is_emulated' AS is_emulated
                FROM json_each(:runs) WHERE value ->> 'parts' IS NOT NULL),
counted AS (SELECT p.run_id, p.ordinal, s.step, m.name, sum(v.value) AS bytes
            FROM chosen CROSS JOIN pass p USING (run_id) CROSS JOIN metric_value v ON v.pass_id = p.id
            JOIN metric_def m ON m.id = v.metric_id JOIN scope s ON s.id = v.scope_id
            WHERE p.mode = 'counter' AND p.state = 'complete' AND s.step >= 0
              AND m.name IN ('dram_read_bytes', 'dram_write_bytes')
              AND EXISTS (SELECT 1 FROM layer_step y WHERE y.run_id = p.run_id AND y.step = s.step)
            GROUP BY 1, 2, 3, 4),
whole AS (SELECT run_id, ordinal, sum(bytes) / count(DISTINCT step) AS bytes FROM counted
          GROUP BY 1, 2 HAVING count(DISTINCT name) = 2),
measured AS (SELECT run_id, min(ordinal), bytes FROM whole GROUP BY 1),
predicted AS (SELECT run_id, sum(p.value ->> 'bytes') AS bytes, count(*) AS n_parts
              FROM chosen JOIN json_each(parts) p GROUP BY 1),
share AS (SELECT series, n, measured.bytes, n_parts, is_emulated,
            (measured.bytes - predicted.bytes) / nullif(measured.bytes - between_bytes, 0) AS unexplained
          FROM chosen JOIN measured USING (run_id) LEFT JOIN predicted USING (run_id)),
worst AS (SELECT * FROM share ORDER BY abs(unexplained) IS NULL, abs(unexplained) DESC, n LIMIT 1),
lines AS (SELECT sum(coalesce(n_parts + 1, 0) + 2) AS lines, count(*) AS runs FROM share)
SELECT CASE WHEN unexplained IS NULL THEN printf('%s moves %.3g MB per step, of which nothing is explained', series, bytes / 1e6)
       WHEN runs = 1 THEN printf('%.1f %% of what %s moves per step is not explained', 100 * unexplained, series)
       ELSE printf('At most %.1f %% of what a step moves is not explained: %s', 100 * unexplained, series) END AS title,
    'method: ' || iif(is_emulated, 'emulated on the host: what kernels asked memory for, without a cache',
                      'counters of DRAM') || ', mean of a step; parts predicted from counts and formulas' AS method,
    (lines * 11 + 19) / 20 AS rows, lines AS n_rows
  FROM worst, lines;
