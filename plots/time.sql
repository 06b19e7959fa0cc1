-- SPDX-License-Identifier: Apache-2.0
-- A sparse schedule gives some of its gain back to choosing and moving: where its time goes.
-- Needs times of a backend, by operation or of whole steps.
-- One row per schedule and operation: time_ms is its mean per decode step, all layers, in the repeat
-- with the median total; from_ms is where its part of the bar begins. total_ms, low_ms, high_ms: the
-- whole bar, and the fastest and the slowest repeat. A device that times steps alone has one part; a late
-- step, in which it waited for the host, has no time.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series,
                  value ->> 'is_bound' AS is_bound FROM json_each(:runs)),
part AS (SELECT p.run_id, e.pass_id, iif(s.kind = 'step', 'whole step', t.value) AS op,
           sum(iif(s.kind = 'step', e.event_us * 1e3, e.host_end_ns - e.host_start_ns)) / 1e6 AS ms,
           count(DISTINCT s.step) FILTER (WHERE s.kind = 'op' OR e.event_us IS NOT NULL) AS steps
         FROM chosen CROSS JOIN pass p USING (run_id) CROSS JOIN scope_exec e ON e.pass_id = p.id
         JOIN scope s ON s.id = e.scope_id JOIN run r ON r.id = p.run_id JOIN string_ids t ON t.id = s.name_id
         WHERE s.kind IN ('op', 'step') AND s.step >= 0 AND p.state = 'complete' AND p.mode = 'bare'
           AND r.method IS NOT NULL
         GROUP BY p.run_id, e.pass_id, op),
ranked AS (SELECT run_id, pass_id, sum(ms) / max(steps) AS ms, max(steps) AS steps,
             row_number() OVER (PARTITION BY run_id ORDER BY sum(ms) / max(steps), pass_id) AS rank,
             count(*) OVER (PARTITION BY run_id) AS many FROM part GROUP BY run_id, pass_id HAVING max(steps) > 0),
middle AS (SELECT run_id, max(CASE WHEN rank = (many + 1) / 2 THEN pass_id END) AS pass_id,
             max(CASE WHEN rank = (many + 1) / 2 THEN ms END) AS ms,
             max(CASE WHEN rank = (many + 1) / 2 THEN steps END) AS steps, min(ms) AS low, max(ms) AS high
           FROM ranked GROUP BY run_id),
place(op, place) AS (VALUES ('attend', 1), ('scores', 2), ('select', 3), ('refresh', 4), ('evict', 5),
                       ('append', 6), ('cosine', 7)),
bar AS (SELECT n, series, is_bound, op, coalesce(place, 8) AS place, part.ms / middle.steps AS ms,
          middle.ms AS total, low, high
        FROM chosen JOIN middle USING (run_id)
        JOIN part USING (run_id, pass_id) LEFT JOIN place USING (op) WHERE part.ms > 0)
SELECT op AS series, dense_rank() OVER (ORDER BY n) AS row,
    iif(length(series) > 44, substr(series, 1, 41) || '...', series)
      || iif(is_bound, ' (a bound)', '') AS policy, ms AS time_ms,
    sum(ms) OVER (PARTITION BY n ORDER BY place, op) - ms AS from_ms,
    total AS total_ms, low AS low_ms, high AS high_ms
  FROM bar ORDER BY place, op, n;

-- The schedule that spends the largest share outside attend; bounds are drawn, and never named.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series,
                  value ->> 'is_bound' AS is_bound FROM json_each(:runs)),
part AS (SELECT p.run_id, e.pass_id, iif(s.kind = 'step', 'whole step', t.value) AS op,
           sum(iif(s.kind = 'step', e.event_us * 1e3, e.host_end_ns - e.host_start_ns)) / 1e6 AS ms,
           count(DISTINCT s.step) FILTER (WHERE s.kind = 'op' OR e.event_us IS NOT NULL) AS steps
         FROM chosen CROSS JOIN pass p USING (run_id) CROSS JOIN scope_exec e ON e.pass_id = p.id
         JOIN scope s ON s.id = e.scope_id JOIN run r ON r.id = p.run_id JOIN string_ids t ON t.id = s.name_id
         WHERE s.kind IN ('op', 'step') AND s.step >= 0 AND p.state = 'complete' AND p.mode = 'bare'
           AND r.method IS NOT NULL
         GROUP BY p.run_id, e.pass_id, op),
ranked AS (SELECT run_id, pass_id, sum(ms) / max(steps) AS ms, max(steps) AS steps,
             row_number() OVER (PARTITION BY run_id ORDER BY sum(ms) / max(steps), pass_id) AS rank,
             count(*) OVER (PARTITION BY run_id) AS many FROM part GROUP BY run_id, pass_id HAVING max(steps) > 0),
middle AS (SELECT * FROM ranked WHERE rank = (many + 1) / 2),
other AS (SELECT n, series, part.ms / middle.steps / middle.ms AS share, part.op
          FROM middle JOIN part USING (run_id, pass_id) JOIN chosen USING (run_id) WHERE part.ms > 0 AND op NOT IN ('attend', 'whole step')
            AND (NOT is_bound OR NOT EXISTS (SELECT 1 FROM chosen WHERE NOT is_bound))),
worst AS (SELECT n, series, sum(share) AS share, count(*) AS n_ops FROM other GROUP BY n
          ORDER BY sum(share) DESC, n LIMIT 1),
most AS (SELECT op, share FROM other WHERE n = (SELECT n FROM worst) ORDER BY share DESC, op LIMIT 1),
whole AS (SELECT min(r.method) AS method, max(r.result_json ->> 'cache_resident') AS is_resident,
            (SELECT count(*) FROM middle) AS bars, (SELECT max(many) FROM ranked) AS repeats
          FROM run r JOIN chosen ON chosen.run_id = r.id)
SELECT CASE WHEN whole.method = 'synthetic' THEN 'No device took these times: they are synthetic'
       WHEN NOT EXISTS (SELECT 1 FROM part WHERE op <> 'whole step') THEN
         'Steps are timed as a whole, not by operation'
       WHEN worst.n IS NULL THEN 'No operation but attend takes time'
       WHEN worst.n_ops = 1 THEN printf('%s spends %.0f %% of its time outside attend: %s', worst.series,
                                        100 * worst.share, most.op)
       ELSE printf('%s spends %.0f %% of its time outside attend, %.0f %% in %s', worst.series,
                   100 * worst.share, 100 * most.share, most.op) END AS title,
    'method: ' || whole.method || ' of attention in all replayed layers, mean of a step, '
    || iif(repeats = 1, '1 repeat, so no range', 'median and range of ' || repeats || ' repeats')
    || iif(is_resident, ', cache-resident', '') AS method,
    bars AS rows
  FROM whole LEFT JOIN worst LEFT JOIN most WHERE bars > 0;
