-- SPDX-License-Identifier: Apache-2.0
-- Schedules by their error, and whether the order is the one of the paper behind `recycled`.
-- Needs schedules that the paper ranks.
-- That is recycled, and two or more of h2o, streaming and snapkv.
-- One row per schedule, best first; `full` has no error and is left out. output_rel_err: mean relative
-- error of the attention output; p25 and p75: quartiles over layer-steps. policy ends with the bytes,
-- KV and selection, in per cent of those of `full`, where that is among the runs, else in MB per step.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series,
                  value ->> 'is_bound' AS is_bound FROM json_each(:runs)),
paper(name, place) AS (VALUES ('recycled', 1), ('h2o', 2), ('streaming', 3), ('snapkv', 3)),
cost AS (SELECT run_id, sum(kv_read_bytes + kv_write_bytes + selection_bytes) / 1e6
             / count(DISTINCT step) AS mb
         FROM layer_step JOIN chosen USING (run_id) WHERE step >= 0 GROUP BY run_id),
ranked AS (SELECT run_id, output_rel_err_mean AS error,
             row_number() OVER (PARTITION BY run_id ORDER BY output_rel_err_mean) AS rank,
             count(*) OVER (PARTITION BY run_id) AS many
           FROM layer_step JOIN chosen USING (run_id)
           WHERE step >= 0 AND output_rel_err_mean IS NOT NULL),
loss AS (SELECT run_id, avg(error) AS error, max(CASE WHEN rank = (many + 3) / 4 THEN error END) AS p25,
           max(CASE WHEN rank = (3 * many + 3) / 4 THEN error END) AS p75
         FROM ranked GROUP BY run_id),
point AS (SELECT n, series, is_bound, p.name, place, error, p25, p75, mb,
            (SELECT mb FROM cost JOIN run f ON f.id = run_id JOIN policy q ON q.id = f.policy_id
             WHERE q.name = 'full') AS full_mb
          FROM chosen JOIN loss USING (run_id) JOIN cost USING (run_id) JOIN run r ON r.id = run_id
          JOIN policy p ON p.id = r.policy_id LEFT JOIN paper ON paper.name = p.name),
kind AS (SELECT *, iif(is_bound, 'a bound, no schedule',
             iif(place IS NULL, 'not in the paper''s order', 'in the paper''s order')) AS kind,
           row_number() OVER (ORDER BY error, n) AS row
         FROM point WHERE name <> 'full')
SELECT kind AS series, row, iif(length(series) > 46, substr(series, 1, 43) || '...', series) || ': '
      || printf('%.3f, ', error)
      || iif(full_mb > 0, printf('%.1f %%', 100 * mb / full_mb), printf('%.3g MB', mb)) AS policy,
    error AS output_rel_err, p25, p75
  FROM kind
  WHERE EXISTS (SELECT 1 FROM point WHERE place = 1)
    AND (SELECT count(DISTINCT name) FROM point WHERE place > 1) > 1
  ORDER BY kind, row;

-- The first run of each name stands for it. Errors within 1 % are equal.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id FROM json_each(:runs)),
paper(name, place) AS (VALUES ('recycled', 1), ('h2o', 2), ('streaming', 3), ('snapkv', 3)),
point AS (SELECT n, p.name, place, avg(output_rel_err_mean) AS error
          FROM chosen JOIN run r ON r.id = run_id JOIN policy p ON p.id = r.policy_id
          JOIN layer_step USING (run_id) LEFT JOIN paper ON paper.name = p.name
          WHERE step >= 0 GROUP BY n),
first AS (SELECT * FROM point AS f WHERE place > 0 AND error IS NOT NULL
            AND n = (SELECT min(n) FROM point WHERE name = f.name)),
broken AS (SELECT b.name AS ahead, group_concat(a.name, ' and ') AS behind
           FROM (SELECT * FROM first ORDER BY place) AS a JOIN first AS b
             ON a.place < b.place AND a.error > 1.01 * b.error GROUP BY b.n ORDER BY b.error)
SELECT iif(EXISTS (SELECT 1 FROM broken),
         'Not the paper''s order: ' || (SELECT group_concat(ahead || ' is ahead of ' || behind, ', ') FROM broken),
         'The paper''s order holds: ' || (SELECT group_concat(name, ', ') FROM (SELECT name FROM first ORDER BY error)))
         AS title,
    'method: f64 reference, mean and quartiles over layers and steps; KV and selection bytes counted, % of full'
      || '; the paper''s order: recycled, h2o, then streaming and snapkv (arXiv:2411.05787v2, table 1, perplexity), of each name its first run' AS method,
    (SELECT count(*) FROM point WHERE name <> 'full' AND error IS NOT NULL) AS rows;
