-- SPDX-License-Identifier: Apache-2.0
-- Kernels of counted steps in the last timing pass of each run, the twelve that take most. What is read
-- between layers is no part of a step.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs)),
timed AS (SELECT c.n, c.run_id, c.series, max(p.id) AS pass_id FROM chosen c JOIN pass p USING (run_id)
          WHERE p.mode = 'timing' AND p.kernels_recorded > 0 AND p.state IN ('complete', 'incomplete') GROUP BY c.n),
each AS (SELECT t.n, t.run_id, t.series, s.step, o.value AS op, k.name_id, k.end_ns - k.start_ns AS ns
         FROM timed t CROSS JOIN kernel k ON k.pass_id = t.pass_id JOIN scope s ON s.id = k.scope_id
         JOIN string_ids o ON o.id = s.name_id
         WHERE s.step >= 0 AND o.value != 'between' AND k.start_ns IS NOT NULL AND k.end_ns IS NOT NULL),
whole AS (SELECT n, count(DISTINCT step) AS steps, sum(ns) AS ns FROM each GROUP BY n),
summed AS (SELECT e.n, e.run_id, e.series, e.op, v.value AS name, count(*) AS launches, sum(e.ns) AS ns,
             row_number() OVER (PARTITION BY e.n ORDER BY sum(e.ns) DESC, e.op, v.value) AS place
           FROM each e JOIN string_ids v ON v.id = e.name_id GROUP BY e.n, e.op, v.value)
SELECT run_id AS "run#", series AS "policy", op AS "operation", name AS "kernel",
    launches * 1.0 / steps AS "launches a step#1", a.ns / 1e3 / launches AS "us each#2",
    a.ns / 1e3 / steps AS "us a step#2", 100.0 * a.ns / w.ns AS "% of kernels#1"
  FROM summed a JOIN whole w USING (n) WHERE place <= 12 ORDER BY n, place;

-- A step of the same passes: from its first kernel's start to its last one's end, what of it kernels
-- fill, and what the host took to launch it. Kernels on two streams may fill more than there is.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs)),
timed AS (SELECT c.n, c.run_id, c.series, max(p.id) AS pass_id FROM chosen c JOIN pass p USING (run_id)
          WHERE p.mode = 'timing' AND p.kernels_recorded > 0 AND p.state IN ('complete', 'incomplete') GROUP BY c.n),
steps AS (SELECT t.n, t.run_id, t.series, t.pass_id, s.step, count(*) AS launches, sum(k.end_ns - k.start_ns) AS busy,
            max(k.end_ns) - min(k.start_ns) AS span
          FROM timed t CROSS JOIN kernel k ON k.pass_id = t.pass_id JOIN scope s ON s.id = k.scope_id
          WHERE s.step >= 0 AND k.start_ns IS NOT NULL AND k.end_ns IS NOT NULL GROUP BY t.n, s.step),
hosts AS (SELECT t.n, avg(e.host_end_ns - e.host_start_ns) AS ns FROM timed t CROSS JOIN scope_exec e ON e.pass_id = t.pass_id
          JOIN scope s ON s.id = e.scope_id WHERE s.kind = 'step' AND s.step >= 0 GROUP BY t.n)
SELECT run_id AS "run#", series AS "policy", count(*) AS "steps#", avg(launches) AS "launches a step#1",
    avg(span) / 1e3 AS "first to last us#2", avg(busy) / 1e3 AS "in kernels us#2",
    max(0, avg(span) - avg(busy)) / 1e3 AS "gaps us#2", h.ns / 1e3 AS "launched by the host in us#2"
  FROM steps JOIN hosts h USING (n) GROUP BY n ORDER BY n;
