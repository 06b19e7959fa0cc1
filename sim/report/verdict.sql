-- SPDX-License-Identifier: Apache-2.0
-- The fastest and the slowest complete repeat of each run, ns over all steps.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id FROM json_each(:runs)),
total AS (SELECT s.run_id, e.pass_id,
            sum(coalesce(e.event_us * 1e3, e.host_end_ns - e.host_start_ns)) AS ns
          FROM scope s JOIN chosen USING (run_id) JOIN scope_exec e ON e.scope_id = s.id
          JOIN pass p ON p.id = e.pass_id AND p.mode = 'bare' AND p.state = 'complete'
          WHERE s.kind IN ('op', 'step') AND s.step >= 0 GROUP BY s.run_id, e.pass_id)
SELECT run_id, min(ns) AS low, max(ns) AS high FROM total GROUP BY run_id;
