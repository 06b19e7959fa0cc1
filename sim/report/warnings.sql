-- SPDX-License-Identifier: Apache-2.0
-- Runs and passes that are not complete, and complete runs that hold no result.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs))
SELECT run_id AS "run#", ordinal AS "pass#", series AS "policy", what AS "state" FROM (
  SELECT n, r.id AS run_id, NULL AS ordinal, series,
      iif(state = 'complete', 'complete, but without a result', state) AS what
    FROM chosen JOIN run r ON r.id = chosen.run_id WHERE state <> 'complete' OR result_json IS NULL
  UNION ALL
  SELECT n, p.run_id, p.ordinal, series, p.state || ' ' || p.mode || ' pass'
    FROM chosen JOIN pass p USING (run_id) WHERE p.state <> 'complete')
  ORDER BY n, ordinal;

-- Notes that the runs, their passes and the store itself left.
WITH chosen AS (SELECT value ->> 'id' AS run_id FROM json_each(:runs))
SELECT d.severity AS "severity", coalesce(d.run_id, p.run_id) AS "run#", p.ordinal AS "pass#",
    datetime(d.unix_ns / 1000000000, 'unixepoch') || ' UTC' AS "date", d.source AS "source", d.code AS "code#",
    d.message AS "message"
  FROM diagnostic d LEFT JOIN pass p ON p.id = d.pass_id
  WHERE coalesce(d.run_id, p.run_id) IS NULL OR coalesce(d.run_id, p.run_id) IN (SELECT run_id FROM chosen)
  ORDER BY d.id;
