-- SPDX-License-Identifier: Apache-2.0
-- The fastest and the slowest complete repeat of each run, ns of a step. A late step has no time.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id FROM json_each(:runs)),
total AS (SELECT p.run_id,
            sum(iif(s.kind = 'step', e.event_us * 1e3, e.host_end_ns - e.host_start_ns)) * 1.0
            / count(DISTINCT s.step) FILTER (WHERE s.kind = 'op' OR e.event_us IS NOT NULL) AS ns
          FROM chosen CROSS JOIN pass p USING (run_id) CROSS JOIN scope_exec e ON e.pass_id = p.id
          JOIN scope s ON s.id = e.scope_id
          WHERE p.mode = 'bare' AND p.state = 'complete' AND s.kind IN ('op', 'step') AND s.step >= 0
          GROUP BY p.id)
SELECT run_id, min(ns) AS low, max(ns) AS high FROM total GROUP BY run_id;
