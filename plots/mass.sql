-- SPDX-License-Identifier: Apache-2.0
-- What a recycled cache holds of the attention fades with the steps since it was rebuilt.
-- Needs full steps, steps between them, and their mass, which --no-quality does not measure.
-- age: steps since the layer's last full step (or the prefill). mass_recovered: mean over layers and
-- steps that do not attend to everything, n of them; p25 and p75: quartiles. An age that fewer than nine in
-- ten caches reach is left out: the long-lived ones are not like the others. A schedule without full steps has one mean, drawn flat.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs)),
dated AS (SELECT run_id, is_full, mass_recovered_mean AS mass,
            step - max(CASE WHEN is_full OR step < 0 THEN step END) OVER
              (PARTITION BY run_id, layer ORDER BY step) AS age
          FROM layer_step JOIN chosen USING (run_id) WHERE step < 0 OR mass_recovered_mean IS NOT NULL),
kind AS (SELECT run_id, sum(is_full) > 0 AS renews FROM dated GROUP BY run_id),
ranked AS (SELECT run_id, age, mass, row_number() OVER (PARTITION BY run_id, age ORDER BY mass) AS rank,
             count(*) OVER (PARTITION BY run_id, age) AS many
           FROM dated JOIN kind USING (run_id) WHERE age > 0 AND renews),
curve AS (SELECT run_id, age, avg(mass) AS mass, many,
            max(CASE WHEN rank = (many + 3) / 4 THEN mass END) AS p25,
            max(CASE WHEN rank = (3 * many + 3) / 4 THEN mass END) AS p75
          FROM ranked AS r GROUP BY run_id, age
          HAVING many >= 0.9 * (SELECT max(many) FROM ranked WHERE run_id = r.run_id AND age = 1)),
flat AS (SELECT run_id, avg(mass) AS mass, count(*) AS many FROM dated JOIN kind USING (run_id)
         WHERE NOT renews AND age > 0 GROUP BY run_id),
ends AS (SELECT 1 AS age UNION SELECT max(age) FROM curve)
SELECT series, age, mass AS mass_recovered, p25, p75, many AS n
  FROM (SELECT run_id, age, mass, p25, p75, many FROM curve
        UNION ALL SELECT run_id, ends.age, mass, NULL, NULL, many FROM flat, ends
        WHERE ends.age IS NOT NULL AND EXISTS (SELECT 1 FROM curve))
  JOIN chosen USING (run_id) ORDER BY chosen.n, age;

-- The curve that changes most between its first and its last quarter; less than 0.02 is no change.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs)),
dated AS (SELECT run_id, n, series, is_full, mass_recovered_mean AS mass,
            step - max(CASE WHEN is_full OR step < 0 THEN step END) OVER
              (PARTITION BY run_id, layer ORDER BY step) AS age
          FROM layer_step JOIN chosen USING (run_id) WHERE step < 0 OR mass_recovered_mean IS NOT NULL),
every AS (SELECT n, series, age, avg(mass) AS mass, count(*) AS many FROM dated
          WHERE age > 0 AND run_id IN (SELECT run_id FROM dated WHERE is_full) GROUP BY n, age),
curve AS (SELECT * FROM every AS e
          WHERE many >= 0.9 * (SELECT many FROM every WHERE n = e.n AND age = 1)),
reach AS (SELECT n, max(age) AS oldest FROM curve GROUP BY n),
quarter AS (SELECT n, series, oldest,
              sum(CASE WHEN age <= (oldest + 3) / 4 THEN mass * many END)
                / sum(CASE WHEN age <= (oldest + 3) / 4 THEN many END) AS young,
              sum(CASE WHEN age > oldest - (oldest + 3) / 4 THEN mass * many END)
                / sum(CASE WHEN age > oldest - (oldest + 3) / 4 THEN many END) AS old
            FROM curve JOIN reach USING (n) GROUP BY n)
SELECT CASE WHEN (SELECT max(oldest) FROM quarter) = 1 THEN
         printf('%s recovers %.2f of the mass in the step after a refresh', series, young)
       WHEN abs(young - old) < 0.02 THEN
         printf('No difference: mass recovered changes by %.3f at most (under 0.02) from the first to the last of %d steps after a refresh', abs(young - old), oldest)
       ELSE printf('%s: mass recovered %s from %.2f to %.2f within %d steps of a refresh', series,
                   iif(old < young, 'falls', 'rises'), young, old, oldest) END AS title,
    'method: f64 reference, mean and quartiles over layers and steps; ages that nine in ten caches reach' AS method
  FROM quarter ORDER BY abs(young - old) DESC, n LIMIT 1;
