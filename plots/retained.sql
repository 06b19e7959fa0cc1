-- SPDX-License-Identifier: Apache-2.0
-- A few positions stay in the recycled cache for good; most come and go.
-- Needs the stays in a recycled cache.
-- One row per stay in C_r, of the first layer and head that the first run with any has stored.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id FROM json_each(:runs)),
one AS (SELECT run_id, layer, head FROM retained JOIN chosen USING (run_id)
        ORDER BY n, layer, head LIMIT 1),
ends AS (SELECT max(step) AS last FROM layer_step JOIN one USING (run_id))
SELECT iif(first_step < 0 AND last_step = last, 'stays throughout', 'comes or goes') AS series,
    pos, first_step AS step, last_step
  FROM retained JOIN one USING (run_id, layer, head), ends ORDER BY series, pos, first_step;

WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs)),
one AS (SELECT run_id, layer, head, series FROM retained JOIN chosen USING (run_id)
        ORDER BY n, layer, head LIMIT 1),
ends AS (SELECT max(step) AS last FROM layer_step JOIN one USING (run_id)),
stay AS (SELECT pos, last_step - max(first_step, 0) + 1 AS steps,
           first_step < 0 AND last_step = last AS stays
         FROM retained JOIN one USING (run_id, layer, head), ends),
middle AS (SELECT steps FROM stay ORDER BY steps
           LIMIT 1 OFFSET (SELECT (count(*) - 1) / 2 FROM stay)),
tally AS (SELECT count(DISTINCT pos) AS many, sum(stays) AS n_stay FROM stay)
SELECT CASE WHEN many = n_stay THEN printf('%s: no difference between steps: all %d positions stay', series, many)
       ELSE printf('%s: of %d positions ever kept %d stay%s throughout; half of the stays end within %d step%s',
                   series, many, n_stay, iif(n_stay = 1, 's', ''), middle.steps, iif(middle.steps = 1, '', 's')) END AS title,
    'layer ' || layer || ', KV head ' || head || '; method: sets of the f64 reference' AS method
  FROM one, tally, middle;
