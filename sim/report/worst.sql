-- SPDX-License-Identifier: Apache-2.0
-- The layers with the least mass in any one step, five of each schedule that loses any.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs)),
least AS (SELECT run_id, layer, step, mass_recovered_min AS least,
            row_number() OVER (PARTITION BY run_id, layer ORDER BY mass_recovered_min, step) AS place,
            avg(mass_recovered_mean) OVER (PARTITION BY run_id, layer) AS mean
          FROM layer_step JOIN chosen USING (run_id)
          WHERE step >= 0 AND mass_recovered_min IS NOT NULL),
ranked AS (SELECT *, row_number() OVER (PARTITION BY run_id ORDER BY least, layer) AS rank
           FROM least WHERE place = 1 AND least < 1)
SELECT run_id AS "run#", series AS "policy", layer AS "layer#", least AS "least mass#4",
    step AS "at step#", mean AS "mass mean#4"
  FROM chosen JOIN ranked USING (run_id) WHERE rank <= 5 ORDER BY n, rank;

-- The layers with the largest error in any one step, likewise.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs)),
most AS (SELECT run_id, layer, step, output_rel_err_max AS most,
           row_number() OVER (PARTITION BY run_id, layer ORDER BY output_rel_err_max DESC, step) AS place,
           avg(output_rel_err_mean) OVER (PARTITION BY run_id, layer) AS mean
         FROM layer_step JOIN chosen USING (run_id)
         WHERE step >= 0 AND output_rel_err_max IS NOT NULL),
ranked AS (SELECT *, row_number() OVER (PARTITION BY run_id ORDER BY most DESC, layer) AS rank
           FROM most WHERE place = 1 AND most > 0)
SELECT run_id AS "run#", series AS "policy", layer AS "layer#", most AS "largest error#4",
    step AS "at step#", mean AS "error mean#4"
  FROM chosen JOIN ranked USING (run_id) WHERE rank <= 5 ORDER BY n, rank;
