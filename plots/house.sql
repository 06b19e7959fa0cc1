-- SPDX-License-Identifier: Apache-2.0
-- What is true of every figure of one choice of runs: the caption, and the layout's counts. :runs
-- is a JSON list of {id, series}; all of them share trace, sequence, device and method, or, of runs of
-- eval, model, task and decoder.
SELECT CASE r.kind WHEN 'eval' THEN
    'Task ' || coalesce(r.result_json ->> 'task', 'none') || ', '
    || replace(coalesce(r.trace_path, 'none'), rtrim(coalesce(r.trace_path, 'none'), replace(coalesce(r.trace_path, 'none'), '/', '')), '')
    || coalesce(', ' || (r.result_json ->> 'texts') || iif(r.result_json ->> 'texts' = 1, ' text', ' texts'), '')
    || '; model ' || coalesce(r.model_id, 'none') || '; decoder ' || coalesce(r.backend, 'none')
  ELSE
    'Trace ' || replace(r.trace_path, rtrim(r.trace_path, replace(r.trace_path, '/', '')), '')
    || ', sequence ' || r.seq
    || coalesce(', P = ' || (r.result_json ->> 'P') || ', N = ' || (r.result_json ->> 'N'), '')
    || coalesce(', ' || json_array_length(r.result_json -> 'layers')
                || ' of ' || (r.result_json ->> 'n_layers') || ' layers', '')
    || '; model ' || coalesce(r.model_id, 'none')
    || '; device ' || coalesce(r.device, 'none') || ' (' || coalesce(r.backend, 'no backend') || ')'
  END AS caption
  FROM run r WHERE r.id = (SELECT min(value ->> 'id') FROM json_each(:runs));
