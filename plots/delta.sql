-- SPDX-License-Identifier: Apache-2.0
-- What a schedule saves in keys the model pays for when it decodes: which one pays least.
-- Needs closed loops under schedules that leave keys out, with full attention's beside them.
-- Of runs of eval. keys_share: keys read, of those that full attention reads. delta_nll: mean NLL per
-- token less full attention's; low and high: middle 95 % of a paired bootstrap over the texts, equal to
-- delta_nll where there is one text.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs))
SELECT series, k.value AS keys_share, d.value AS delta_nll, coalesce(d.low, d.value) AS low,
    coalesce(d.high, d.value) AS high
  FROM chosen JOIN eval_result d ON d.run_id = chosen.run_id AND d.metric = 'delta_nll' AND d.value IS NOT NULL
  JOIN eval_result k ON k.run_id = d.run_id AND k.task = d.task AND k.metric = 'keys_share' AND k.value IS NOT NULL
  ORDER BY n;

-- Of the schedules that leave keys out: the one that loses least, and the one that reads least. What
-- loses less than 0.001 nats loses nothing.
WITH chosen AS (SELECT key AS n, value ->> 'id' AS run_id, value ->> 'series' AS series
                FROM json_each(:runs)),
point AS (SELECT n, series, k.value AS share, d.value AS delta, d.n_samples AS texts
          FROM chosen JOIN eval_result d ON d.run_id = chosen.run_id AND d.metric = 'delta_nll' AND d.value IS NOT NULL
          JOIN eval_result k ON k.run_id = d.run_id AND k.task = d.task AND k.metric = 'keys_share'
          AND k.value < 1),
best AS (SELECT * FROM point ORDER BY delta, share, n LIMIT 1),
least AS (SELECT * FROM point ORDER BY share, delta, n LIMIT 1)
SELECT CASE WHEN best.delta < 0.001 AND best.n = least.n THEN
         printf('%s loses nothing at %.0f %% of the keys, and reads least', best.series, 100 * best.share)
       WHEN best.n = least.n THEN
         printf('%s loses least, %+.3f nats per token at %.0f %% of the keys, and reads least', best.series,
                best.delta, 100 * best.share)
       ELSE printf('%s loses %s at %.0f %% of the keys; %s reads least: %+.3f at %.0f %%', best.series,
                   iif(best.delta < 0.001, 'nothing', printf('least, %+.3f nats per token', best.delta)),
                   100 * best.share, least.series, least.delta, 100 * least.share) END AS title,
    'method: closed loop, told the true tokens; '
    || iif(best.texts > 1, 'bars: middle 95 % of a paired bootstrap over ' || best.texts || ' texts',
           'one text, so no interval') AS method
  FROM best, least;
