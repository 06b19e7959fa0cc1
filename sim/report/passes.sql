-- SPDX-License-Identifier: Apache-2.0
-- Every pass. Its total is the time of the operations, or of the whole steps where those are timed; late
-- steps, in which the device waited for the host, have none.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs)),
total AS (SELECT e.pass_id, count(DISTINCT s.step) AS steps,
            count(DISTINCT s.step) FILTER (WHERE s.kind = 'op' OR e.event_us IS NOT NULL) AS timed,
            sum(iif(s.kind = 'step', e.event_us * 1e3, e.host_end_ns - e.host_start_ns)) AS ns
          FROM chosen CROSS JOIN pass p USING (run_id) CROSS JOIN scope_exec e ON e.pass_id = p.id
          JOIN scope s ON s.id = e.scope_id
          WHERE s.kind IN ('op', 'step') AND s.step >= 0 GROUP BY e.pass_id),
ranked AS (SELECT p.id AS pass_id, count(*) OVER (PARTITION BY p.run_id) AS many,
             row_number() OVER (PARTITION BY p.run_id ORDER BY t.ns * 1.0 / t.timed, p.id) AS rank
           FROM pass p JOIN total t ON t.pass_id = p.id
           WHERE p.mode = 'bare' AND p.state = 'complete' AND t.ns IS NOT NULL)
SELECT c.run_id AS "run#", c.series AS "policy", p.ordinal AS "pass#", p.mode AS "mode", p.state AS "state",
    coalesce(p.launch_mode, r.launch_mode) AS "launch mode",
    CASE p.launch_hash WHEN (SELECT b.launch_hash FROM pass b WHERE b.run_id = p.run_id AND b.mode = 'bare' LIMIT 1)
      THEN 'the same' ELSE iif(p.launch_hash IS NULL, NULL, 'others') END AS "launches",
    t.steps AS "steps#", t.steps - t.timed AS "late steps#", t.ns / 1e6 AS "total ms#3",
    CASE WHEN k.rank = (k.many + 1) / 2 THEN 'times of the table'
      WHEN k.rank IS NOT NULL THEN 'range of the times'
      WHEN p.metric_set IS NOT NULL THEN 'counts of ' || p.metric_set
      WHEN p.kernels_recorded > 0 THEN 'kernels of a profile' END AS "gave"
  FROM chosen c JOIN run r ON r.id = c.run_id JOIN pass p ON p.run_id = c.run_id
  LEFT JOIN total t ON t.pass_id = p.id LEFT JOIN ranked k ON k.pass_id = p.id
  ORDER BY c.n, p.ordinal;

-- What a profiler should have recorded, and what of it is missing. A pass without a profiler has no row.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id FROM json_each(:runs))
SELECT run_id AS "run#", ordinal AS "pass#", mode AS "mode", launches_expected AS "launches expected#",
    kernels_recorded AS "kernels recorded#", kernels_zero_time AS "kernels without time#",
    records_dropped AS "records dropped#", ranges_dropped AS "ranges dropped#"
  FROM chosen JOIN pass USING (run_id)
  WHERE coalesce(launches_expected, kernels_recorded, kernels_zero_time, records_dropped, ranges_dropped)
    IS NOT NULL ORDER BY n, ordinal;

-- What watching costs: time of a step of a pass that watches over the median bare pass of the same run.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs)),
total AS (SELECT p.run_id, p.ordinal, p.mode, p.id,
            sum(iif(s.kind = 'step', e.event_us * 1e3, e.host_end_ns - e.host_start_ns)) * 1.0
            / count(DISTINCT s.step) FILTER (WHERE s.kind = 'op' OR e.event_us IS NOT NULL) AS ns
          FROM chosen CROSS JOIN pass p USING (run_id) CROSS JOIN scope_exec e ON e.pass_id = p.id
          JOIN scope s ON s.id = e.scope_id
          WHERE p.state = 'complete' AND s.kind IN ('op', 'step') AND s.step >= 0 GROUP BY p.id),
ranked AS (SELECT *, row_number() OVER (PARTITION BY run_id ORDER BY ns, id) AS rank,
             count(*) OVER (PARTITION BY run_id) AS many FROM total WHERE mode = 'bare' AND ns IS NOT NULL)
SELECT c.run_id AS "run#", c.series AS "policy", t.ordinal AS "pass#", t.mode AS "mode",
    r.method AS "method", t.ns * 1.0 / b.ns AS "time over bare#3"
  FROM chosen c JOIN run r ON r.id = c.run_id JOIN total t USING (run_id) JOIN ranked b USING (run_id)
  WHERE t.mode IN ('timing', 'counter') AND b.rank = (b.many + 1) / 2 ORDER BY c.n, t.ordinal;
