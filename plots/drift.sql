-- SPDX-License-Identifier: Apache-2.0
-- In closed loop the loss of a schedule grows with the steps since it last looked at everything.
-- Needs closed loops under schedules that leave keys out, with full attention's beside them.
-- Of runs of eval. bin: 0 for full steps, then 1, 2 to 3, 4 to 7 steps since and so on; age: the least of
-- them, the mean over layers, from the prefill on where there was no full step. delta_nll: mean over the
-- n tokens of all texts, NLL less full attention's.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs)),
bins AS (SELECT chosen.n AS run_n, series, b.value ->> 'from' AS age, b.value ->> 'delta_nll' AS delta,
           b.value ->> 'n' AS many
         FROM chosen JOIN run r ON r.id = run_id, json_each(r.result_json, '$.by_since') AS b)
SELECT series, (SELECT count(*) FROM (VALUES (1), (2), (4), (8), (16), (32), (64), (128), (256), (512), (1024))
                WHERE column1 <= age) AS bin, age, delta AS delta_nll, many AS n
  FROM bins AS b WHERE delta IS NOT NULL AND EXISTS (SELECT 1 FROM bins WHERE run_n = b.run_n AND age > 0)
  ORDER BY run_n, age;

-- The schedule whose loss changes most between the first and the last bin behind a full step; less than
-- 0.01 nats is no change.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs)),
bins AS (SELECT chosen.n AS run_n, series, b.value ->> 'from' AS age, b.value ->> 'delta_nll' AS delta
         FROM chosen JOIN run r ON r.id = run_id, json_each(r.result_json, '$.by_since') AS b
         WHERE b.value ->> 'from' > 0 AND b.value ->> 'delta_nll' IS NOT NULL),
ends AS (SELECT run_n, min(age) AS young, max(age) AS old FROM bins GROUP BY run_n),
change AS (SELECT run_n, y.series, young, old, y.delta AS first, o.delta AS last
           FROM ends JOIN bins y USING (run_n) JOIN bins o USING (run_n)
           WHERE y.age = young AND o.age = old)
SELECT CASE WHEN young = old THEN printf('%s: %+.3f nats per token between full steps', series, first)
       WHEN abs(last - first) < 0.01 THEN
         printf('No schedule''s loss changes with the steps since a full one; %s: %+.3f, then %+.3f nats',
                series, first, last)
       ELSE printf('%s: %+.3f nats per token %s, %+.3f from %d steps on', series, first,
                   iif(young = 1, 'in the step after a full one', 'soon after a full step'), last, old) END AS title,
    'method: closed loop, told the true tokens; mean over texts and tokens' AS method
  FROM (SELECT * FROM change ORDER BY abs(last - first) DESC, run_n LIMIT 1);
