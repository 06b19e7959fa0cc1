-- SPDX-License-Identifier: Apache-2.0
-- Bytes buy accuracy: which schedule has the smaller error for what it reads and writes.
-- Needs output errors, which a replay with --no-quality does not measure.
-- kv_mb: mean KV bytes read and written per step, all layers. output_rel_err: mean relative error of
-- the attention output against the full cache; p25 and p75: quartiles over layer-steps.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs)),
ranked AS (SELECT run_id, output_rel_err_mean AS error,
             row_number() OVER (PARTITION BY run_id ORDER BY output_rel_err_mean) AS rank,
             count(*) OVER (PARTITION BY run_id) AS many
           FROM layer_step JOIN chosen USING (run_id)
           WHERE step >= 0 AND output_rel_err_mean IS NOT NULL),
loss AS (SELECT run_id, avg(error) AS error, max(CASE WHEN rank = (many + 3) / 4 THEN error END) AS p25,
           max(CASE WHEN rank = (3 * many + 3) / 4 THEN error END) AS p75
         FROM ranked GROUP BY run_id),
bytes AS (SELECT run_id, sum(kv_read_bytes + kv_write_bytes) / 1e6 / count(DISTINCT step) AS kv_mb
          FROM layer_step JOIN chosen USING (run_id) WHERE step >= 0 GROUP BY run_id)
SELECT series, kv_mb, error AS output_rel_err, p25, p75
  FROM chosen JOIN loss USING (run_id) JOIN bytes USING (run_id) ORDER BY n;

-- Of the schedules with an error at all: the most accurate, and the one that moves least. Bounds are
-- drawn, and named as the distance that is left. Errors within 1 % are equal.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series,
                  value ->> 'is_bound' AS is_bound FROM json_each(:runs)),
point AS (SELECT n, series, is_bound, avg(output_rel_err_mean) AS error,
            sum(kv_read_bytes + kv_write_bytes) / 1e6 / count(DISTINCT step) AS mb
          FROM layer_step JOIN chosen USING (run_id) WHERE step >= 0 GROUP BY n),
lossy AS (SELECT * FROM point WHERE error > 0 AND NOT is_bound),
best AS (SELECT * FROM lossy ORDER BY error, mb, n LIMIT 1),
least AS (SELECT * FROM lossy ORDER BY mb, error, n LIMIT 1)
SELECT CASE WHEN NOT EXISTS (SELECT 1 FROM point WHERE NOT is_bound) THEN
         (SELECT printf('No schedule beside the bound %s: error %.3g', series, error) FROM point ORDER BY n)
       WHEN best.n IS NULL THEN 'No difference: no schedule has an output error'
       WHEN (SELECT count(*) FROM lossy) = 1 THEN
         printf('%s has a mean output error of %.3g at %.3g MB per step', best.series, best.error, best.mb)
       WHEN (SELECT max(error) FROM lossy) < 1.01 * best.error THEN
         printf('No difference in output error between schedules: %.3g', best.error)
       ELSE printf('%s has the smallest error, %.3g at %.3g MB per step', best.series, best.error, best.mb)
         || CASE WHEN best.n = least.n THEN ', and moves least'
            ELSE printf('; %s moves least: %.3g at %.3g MB', least.series, least.error, least.mb) END
       END AS title,
    'method: f64 reference, mean and quartiles over layers and steps; bytes counted' AS method
  FROM (SELECT count(*) AS many FROM point WHERE error IS NOT NULL) AS known
  LEFT JOIN best LEFT JOIN least WHERE known.many > 0;
