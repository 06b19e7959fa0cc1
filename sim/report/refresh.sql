-- SPDX-License-Identifier: Apache-2.0
-- A refresh is a full step of one layer that rebuilds its recycled cache; the prefill is none.
-- Overlap: mean over KV heads of |old and new| / |new|. Bytes are read once and written once.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs)),
kept AS (SELECT run_id, count(*) AS refreshes, avg(refresh_overlap) AS overlap,
           min(refresh_overlap) AS least, avg(refresh_entries) AS entries, avg(refresh_bytes) AS bytes,
           sum(refresh_bytes) AS total
         FROM layer_step JOIN chosen USING (run_id)
         WHERE step >= 0 AND is_full AND (refresh_overlap IS NOT NULL OR refresh_entries > 0)
         GROUP BY run_id)
SELECT run_id AS "run#", series AS "policy", refreshes AS "layer refreshes#",
    overlap AS "overlap mean#4", least AS "overlap least#4",
    entries AS "entries per refresh#1", bytes / 1e3 AS "kB per refresh#1",
    total / 1e6 AS "MB in all#3"
  FROM chosen JOIN kept USING (run_id) ORDER BY n;
