-- SPDX-License-Identifier: Apache-2.0
-- Layers differ in how much of the recycled cache a refresh keeps.
-- Needs full steps that rebuild a recycled cache.
-- One box per layer and refresh of the run with the most of them, from the refresh to the layer's
-- next; refresh_overlap: mean over KV heads of |old and new| / |new|. row: the layer's place among
-- those recorded. Of more than 128 refreshes of a layer a box is the mean of as many as make no more.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs)),
one AS (SELECT run_id, max(step) + 1 AS steps FROM layer_step JOIN chosen USING (run_id)
        GROUP BY run_id HAVING count(refresh_overlap) > 0
        ORDER BY count(refresh_overlap) DESC, min(n) LIMIT 1),
kept AS (SELECT step, layer, refresh_overlap AS overlap, dense_rank() OVER (ORDER BY layer) AS row,
           row_number() OVER (PARTITION BY layer ORDER BY step) - 1 AS at
         FROM layer_step WHERE run_id = (SELECT run_id FROM one) AND refresh_overlap IS NOT NULL),
box AS (SELECT min(step) AS step, layer, row, avg(overlap) AS overlap FROM kept
        GROUP BY layer, at / ((SELECT max(at) + 128 FROM kept) / 128))
SELECT step, lead(step, 1, (SELECT steps FROM one)) OVER (PARTITION BY layer ORDER BY step) AS next,
    layer, row, overlap AS refresh_overlap FROM box ORDER BY layer, step;

WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs)),
one AS (SELECT run_id, series FROM layer_step JOIN chosen USING (run_id) GROUP BY run_id
        HAVING count(refresh_overlap) > 0 ORDER BY count(refresh_overlap) DESC, min(n) LIMIT 1),
by_layer AS (SELECT layer, avg(refresh_overlap) AS mean FROM layer_step JOIN one USING (run_id)
             WHERE refresh_overlap IS NOT NULL GROUP BY layer),
low AS (SELECT * FROM by_layer ORDER BY mean, layer LIMIT 1),
high AS (SELECT * FROM by_layer ORDER BY mean DESC, layer LIMIT 1),
many AS (SELECT (max(n) + 127) / 128 AS width
         FROM (SELECT count(refresh_overlap) AS n FROM layer_step JOIN one USING (run_id) GROUP BY layer))
SELECT CASE WHEN (SELECT count(*) FROM by_layer) = 1 THEN
         printf('%s: a refresh keeps %.0f %% of C_r in layer %d', series, 100 * low.mean, low.layer)
       WHEN high.mean - low.mean < 0.01 THEN
         printf('%s: no difference between layers; a refresh keeps %.0f %% of C_r', series, 100 * low.mean)
       ELSE printf('%s: a refresh keeps %.0f %% of C_r in layer %d, %.0f %% in layer %d', series,
                   100 * low.mean, low.layer, 100 * high.mean, high.layer) END AS title,
    'method: overlap counted from the sets of the f64 reference, mean over KV heads'
    || iif(width > 1, '; each box the mean of ' || width || ' refreshes', '') AS method
  FROM one, low, high, many;
