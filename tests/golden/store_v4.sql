-- SPDX-License-Identifier: Apache-2.0
-- A store of schema 4 with two runs, one of which has a timing pass (sqlite3 .dump). Never edited once released.
PRAGMA application_id = 1380013140;
PRAGMA user_version = 4;
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE string_ids(id INTEGER PRIMARY KEY, value TEXT NOT NULL UNIQUE) STRICT;
INSERT INTO string_ids VALUES(1,'attend');
INSERT INTO string_ids VALUES(50,'decode_split');
INSERT INTO string_ids VALUES(51,'_Z12decode_splitv');
CREATE TABLE policy(   -- a schedule, in its canonical spelling
  id INTEGER PRIMARY KEY, canonical TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
  params_json TEXT NOT NULL) STRICT;
INSERT INTO policy VALUES(1,'recycled:k=256,stride=16','recycled','{"k":256,"stride":16}');
CREATE TABLE run(   -- one (invocation, trace, sequence, policy); holds what is needed to run it again
  id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL CHECK(state IN('running','complete','failed','aborted')),
  started_unix_ns INTEGER NOT NULL, ended_unix_ns INTEGER, pid INTEGER NOT NULL, boot_id TEXT,
  tool_version TEXT NOT NULL, trace_sha256 TEXT, config_json TEXT NOT NULL,
  invocation_uuid TEXT, command TEXT, argv_json TEXT,
  kind TEXT NOT NULL CHECK(kind IN('replay','sweep','eval','calibrate','record')),
  policy_id INTEGER REFERENCES policy(id), trace_path TEXT, seq INTEGER, model_id TEXT,
  backend TEXT, device TEXT, scores TEXT CHECK(scores IN('fused','recompute')),
  cache TEXT CHECK(cache IN('compact','gather')), dtype TEXT,
  method TEXT CHECK(method IN('cpu-wall','cuda-event','cupti-kernel','model','synthetic')),
  launch_mode TEXT, seed INTEGER, schedule_of_trace TEXT,
  fingerprint TEXT, output_hash TEXT, result_json TEXT) STRICT;
INSERT INTO run VALUES(1,'63b26149-3247-4c05-8d90-85941515bb16','complete',1795552190110756767,1795552190111220767,13862,'00000000-0000-4000-8000-00000000b007','0.0',NULL,'{}','00000000-0000-4000-8000-000000000000','replay','["replay","a.safetensors"]','replay',1,'a.safetensors',0,NULL,'cpu',NULL,'fused','compact',NULL,'cpu-wall',NULL,-1,NULL,'f','h',NULL);
INSERT INTO run VALUES(2,'a738cb0e-1b09-40ac-a43b-50e949f492fa','complete',1795552190111282432,1795552190111487918,13862,'00000000-0000-4000-8000-00000000b007','0.0',NULL,'{}','00000000-0000-4000-8000-000000000000','replay','["replay","a.safetensors"]','replay',1,'a.safetensors',0,NULL,'cpu',NULL,'fused','compact',NULL,'cpu-wall',NULL,-1,NULL,'f','h',NULL);
CREATE TABLE device(
  id INTEGER PRIMARY KEY, run_id INTEGER NOT NULL REFERENCES run(id), ordinal INTEGER NOT NULL,
  uuid TEXT NOT NULL, name TEXT NOT NULL, chip TEXT, cc_major INTEGER, cc_minor INTEGER, sm_count INTEGER,
  l2_bytes INTEGER, mem_bytes INTEGER, driver_version INTEGER, runtime_version INTEGER, cupti_version INTEGER,
  sm_clock_khz INTEGER, mem_clock_khz INTEGER) STRICT;
CREATE TABLE pass(   -- one execution of a run from the same initial state: a repeat or a profile mode
  id INTEGER PRIMARY KEY, run_id INTEGER NOT NULL REFERENCES run(id), device_id INTEGER REFERENCES device(id),
  ordinal INTEGER NOT NULL, mode TEXT NOT NULL CHECK(mode IN('bare','timing','counter','pm','model')),
  metric_set TEXT, range_mode TEXT, replay_mode TEXT,
  state TEXT NOT NULL CHECK(state IN('running','complete','incomplete','failed','aborted')),
  t0_realtime_ns INTEGER, t0_monotonic_ns INTEGER, t0_cupti_ns INTEGER,
  t1_realtime_ns INTEGER, t1_monotonic_ns INTEGER, t1_cupti_ns INTEGER,
  launches_expected INTEGER, kernels_recorded INTEGER, records_dropped INTEGER,
  kernels_zero_time INTEGER, ranges_dropped INTEGER,
  launch_mode TEXT, launch_hash INTEGER,   -- what one launch covers; of what the steps launched, in order
  UNIQUE(run_id, ordinal)) STRICT;
INSERT INTO pass VALUES(1,1,NULL,0,'bare',NULL,NULL,NULL,'complete',1795552190110930082,2456517435091,NULL,1795552190111089721,2456517594750,NULL,NULL,NULL,NULL,NULL,NULL,'call',NULL);
INSERT INTO pass VALUES(2,2,NULL,0,'bare',NULL,NULL,NULL,'complete',1795552190111357734,2456517862743,NULL,1795552190111414380,2456517919389,NULL,NULL,NULL,NULL,NULL,NULL,'call',NULL);
INSERT INTO pass VALUES(50,1,NULL,7,'timing',NULL,NULL,NULL,'incomplete',NULL,NULL,NULL,NULL,NULL,NULL,3,2,0,1,NULL,'step-graph',-7);
CREATE TABLE scope(   -- what is measured; one row per step, layer or op, shared by all passes of a run
  id INTEGER PRIMARY KEY, run_id INTEGER NOT NULL REFERENCES run(id), parent_id INTEGER REFERENCES scope(id),
  kind TEXT NOT NULL CHECK(kind IN('trace','step','layer','op')),
  step INTEGER, layer INTEGER, name_id INTEGER NOT NULL REFERENCES string_ids(id),
  seq_len INTEGER, batch INTEGER) STRICT;
INSERT INTO scope VALUES(1,1,NULL,'op',0,9,1,NULL,NULL);
INSERT INTO scope VALUES(2,2,NULL,'op',0,9,1,NULL,NULL);
CREATE TABLE scope_exec(   -- host-side execution of a scope in one pass, CLOCK_MONOTONIC
  pass_id INTEGER NOT NULL REFERENCES pass(id), scope_id INTEGER NOT NULL REFERENCES scope(id),
  host_start_ns INTEGER NOT NULL, host_end_ns INTEGER NOT NULL, event_us REAL, output_hash TEXT,
  launch_hash INTEGER,   -- of what a step launched, in order: operation, grid, block, shared memory
  PRIMARY KEY(pass_id, scope_id)) STRICT, WITHOUT ROWID;
INSERT INTO scope_exec VALUES(1,1,100,250,NULL,NULL,NULL);
INSERT INTO scope_exec VALUES(2,2,100,250,NULL,NULL,NULL);
INSERT INTO scope_exec VALUES(50,1,10,20,3.5,'00000000000000ff',-9);
CREATE TABLE layer_step(   -- counted and measured against the f64 reference, once per run; step -1: prefill
  run_id INTEGER NOT NULL REFERENCES run(id), step INTEGER NOT NULL, layer INTEGER NOT NULL,
  is_full INTEGER NOT NULL CHECK(is_full IN(0,1)), keys_read INTEGER NOT NULL,
  kv_read_bytes INTEGER NOT NULL, kv_write_bytes INTEGER NOT NULL,
  refresh_entries INTEGER NOT NULL, refresh_bytes INTEGER NOT NULL, selection_bytes INTEGER NOT NULL,
  mass_recovered_mean REAL, mass_recovered_min REAL, output_rel_err_mean REAL, output_rel_err_max REAL,
  topk_recall REAL, refresh_overlap REAL, query_cosine REAL,
  PRIMARY KEY(run_id, step, layer)) STRICT, WITHOUT ROWID;
INSERT INTO layer_step VALUES(1,-1,9,0,999,63999,192,0,0,0,0.9000000000000000222,0.8000000000000000444,0.10000000000000000555,0.2000000000000000111,0.69999999999999995559,NULL,NULL);
INSERT INTO layer_step VALUES(1,0,9,0,1000,64000,192,0,0,0,0.9000000000000000222,0.8000000000000000444,0.10000000000000000555,0.2000000000000000111,0.69999999999999995559,NULL,NULL);
INSERT INTO layer_step VALUES(1,1,9,0,1001,64001,192,0,0,0,0.9000000000000000222,0.8000000000000000444,0.10000000000000000555,0.2000000000000000111,0.69999999999999995559,NULL,NULL);
INSERT INTO layer_step VALUES(1,2,9,0,1002,64002,192,0,0,0,0.9000000000000000222,0.8000000000000000444,0.10000000000000000555,0.2000000000000000111,0.69999999999999995559,NULL,NULL);
INSERT INTO layer_step VALUES(2,-1,9,0,999,63999,192,0,0,0,0.9000000000000000222,0.8000000000000000444,0.10000000000000000555,0.2000000000000000111,0.69999999999999995559,NULL,NULL);
INSERT INTO layer_step VALUES(2,0,9,0,1000,64000,192,0,0,0,0.9000000000000000222,0.8000000000000000444,0.10000000000000000555,0.2000000000000000111,0.69999999999999995559,NULL,NULL);
INSERT INTO layer_step VALUES(2,1,9,0,1001,64001,192,0,0,0,0.9000000000000000222,0.8000000000000000444,0.10000000000000000555,0.2000000000000000111,0.69999999999999995559,NULL,NULL);
INSERT INTO layer_step VALUES(2,2,9,0,1002,64002,192,0,0,0,0.9000000000000000222,0.8000000000000000444,0.10000000000000000555,0.2000000000000000111,0.69999999999999995559,NULL,NULL);
CREATE TABLE member_step(   -- layer_step of the copies of a batch that differ from the first, which is the run's
  run_id INTEGER NOT NULL REFERENCES run(id), member INTEGER NOT NULL CHECK(member > 0), step INTEGER NOT NULL,
  layer INTEGER NOT NULL, visible_tokens INTEGER NOT NULL,   -- self included
  is_full INTEGER NOT NULL CHECK(is_full IN(0,1)), keys_read INTEGER NOT NULL,
  kv_read_bytes INTEGER NOT NULL, kv_write_bytes INTEGER NOT NULL,
  refresh_entries INTEGER NOT NULL, refresh_bytes INTEGER NOT NULL, selection_bytes INTEGER NOT NULL,
  refresh_overlap REAL, query_cosine REAL,
  PRIMARY KEY(run_id, step, member, layer)) STRICT, WITHOUT ROWID;
INSERT INTO member_step VALUES(1,1,0,9,12,1,24,3072,256,0,0,0,NULL,NULL);
CREATE TABLE retained(   -- residence of one position in the recycled cache of one layer and KV head
  run_id INTEGER NOT NULL REFERENCES run(id), layer INTEGER NOT NULL, head INTEGER NOT NULL,
  pos INTEGER NOT NULL, first_step INTEGER NOT NULL, last_step INTEGER NOT NULL,
  CHECK(first_step <= last_step),
  PRIMARY KEY(run_id, layer, head, pos, first_step)) STRICT, WITHOUT ROWID;
INSERT INTO retained VALUES(1,9,0,7,-1,2);
INSERT INTO retained VALUES(2,9,0,7,-1,2);
CREATE TABLE kernel(
  id INTEGER PRIMARY KEY, pass_id INTEGER NOT NULL REFERENCES pass(id), scope_id INTEGER REFERENCES scope(id),
  correlation_id INTEGER NOT NULL, start_ns INTEGER, end_ns INTEGER,   -- NULL: the time was lost
  context_id INTEGER NOT NULL, stream_id INTEGER NOT NULL, name_id INTEGER NOT NULL REFERENCES string_ids(id),
  grid_x INTEGER NOT NULL, grid_y INTEGER NOT NULL, grid_z INTEGER NOT NULL,
  block_x INTEGER NOT NULL, block_y INTEGER NOT NULL, block_z INTEGER NOT NULL,
  cluster_x INTEGER, cluster_y INTEGER, cluster_z INTEGER, registers INTEGER,
  smem_static_bytes INTEGER, smem_dynamic_bytes INTEGER, smem_executed_bytes INTEGER, local_total_bytes INTEGER,
  graph_id INTEGER, graph_node_id INTEGER,
  mangled_id INTEGER REFERENCES string_ids(id)) STRICT;
INSERT INTO kernel VALUES(1,50,1,4,100,120,1,7,50,3,2,1,128,1,1,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,9,-9223372036854775807,51);
INSERT INTO kernel VALUES(2,50,1,5,NULL,NULL,1,7,50,3,2,1,128,1,1,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,9,-9223372036854775806,NULL);
CREATE TABLE memop(
  id INTEGER PRIMARY KEY, pass_id INTEGER NOT NULL REFERENCES pass(id), scope_id INTEGER REFERENCES scope(id),
  correlation_id INTEGER NOT NULL, op TEXT NOT NULL CHECK(op IN('memcpy','memset')), copy_kind INTEGER,
  bytes INTEGER NOT NULL, start_ns INTEGER, end_ns INTEGER, stream_id INTEGER NOT NULL) STRICT;
CREATE TABLE api_call(
  id INTEGER PRIMARY KEY, pass_id INTEGER NOT NULL REFERENCES pass(id), correlation_id INTEGER NOT NULL,
  domain TEXT NOT NULL CHECK(domain IN('runtime','driver')), cbid INTEGER NOT NULL,
  name_id INTEGER REFERENCES string_ids(id), thread_id INTEGER NOT NULL,
  start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, result INTEGER NOT NULL) STRICT;
CREATE TABLE overhead(   -- the profiler's own cost
  id INTEGER PRIMARY KEY, pass_id INTEGER NOT NULL REFERENCES pass(id), kind INTEGER NOT NULL,
  start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL) STRICT;
CREATE TABLE metric_def(
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, chip TEXT NOT NULL, cupti_name TEXT NOT NULL, hw_unit TEXT NOT NULL,
  unit TEXT NOT NULL, additive INTEGER NOT NULL CHECK(additive IN(0,1)), UNIQUE(name, chip)) STRICT;
CREATE TABLE metric_value(
  pass_id INTEGER NOT NULL REFERENCES pass(id), scope_id INTEGER NOT NULL REFERENCES scope(id),
  metric_id INTEGER NOT NULL REFERENCES metric_def(id), value REAL NOT NULL,
  PRIMARY KEY(pass_id, scope_id, metric_id)) STRICT, WITHOUT ROWID;
CREATE TABLE pm_sample(
  pass_id INTEGER NOT NULL REFERENCES pass(id), start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL,
  metric_id INTEGER NOT NULL REFERENCES metric_def(id), value REAL NOT NULL,
  PRIMARY KEY(pass_id, metric_id, start_ns)) STRICT, WITHOUT ROWID;
CREATE TABLE cache_overlap(   -- KV reuse of a scope against an earlier one, and where that is known from
  scope_id INTEGER NOT NULL REFERENCES scope(id), versus_scope_id INTEGER NOT NULL REFERENCES scope(id),
  source TEXT NOT NULL CHECK(source IN('trace','model','counter')),
  blocks_selected INTEGER, blocks_shared INTEGER, bytes_selected INTEGER, bytes_shared INTEGER, l2_hit_fraction REAL,
  PRIMARY KEY(scope_id, versus_scope_id, source)) STRICT, WITHOUT ROWID;
CREATE TABLE sweep(   -- context_tokens: L of the cost model, NULL for that of the trace
  id INTEGER PRIMARY KEY, run_id INTEGER NOT NULL REFERENCES run(id), grid TEXT NOT NULL,
  seed INTEGER, context_tokens INTEGER) STRICT;
CREATE TABLE sweep_point(
  sweep_id INTEGER NOT NULL REFERENCES sweep(id), policy_id INTEGER NOT NULL REFERENCES policy(id),
  device TEXT NOT NULL,
  mass_recovered_mean REAL, mass_recovered_p05 REAL, output_rel_err_mean REAL, output_rel_err_p95 REAL,
  kv_read_bytes INTEGER, selection_bytes INTEGER, refresh_bytes INTEGER, effective_stride REAL,
  predicted_ns REAL, predicted_p99_ns REAL, gap_to_opt REAL, pareto INTEGER CHECK(pareto IN(0,1)),
  PRIMARY KEY(sweep_id, policy_id, device)) STRICT, WITHOUT ROWID;
CREATE TABLE device_model(   -- a calibration: one point of the bandwidth curve of one kernel on one device
  run_id INTEGER NOT NULL REFERENCES run(id), device TEXT NOT NULL, kernel TEXT NOT NULL, bytes INTEGER NOT NULL,
  usage TEXT NOT NULL CHECK(usage IN('fit','check')), method TEXT NOT NULL,
  launch_ns REAL, time_ns REAL, bytes_per_s REAL,
  PRIMARY KEY(run_id, device, kernel, bytes)) STRICT, WITHOUT ROWID;
CREATE TABLE eval_result(   -- closed loop: what the model scored under the run's schedule; low, high: interval
  run_id INTEGER NOT NULL REFERENCES run(id), task TEXT NOT NULL, metric TEXT NOT NULL, unit TEXT NOT NULL,
  value REAL, low REAL, high REAL, n_samples INTEGER NOT NULL,
  PRIMARY KEY(run_id, task, metric)) STRICT, WITHOUT ROWID;
CREATE TABLE eval_sample(   -- of eval_result: one text or prompt; nll, kl: means over its steps; hits: share of answers right
  run_id INTEGER NOT NULL REFERENCES run(id), task TEXT NOT NULL, sample INTEGER NOT NULL, name TEXT NOT NULL,
  seed INTEGER, depth REAL, prompt_len INTEGER NOT NULL, steps INTEGER NOT NULL,
  nll REAL, kl REAL, correct INTEGER CHECK(correct IN(0,1)), hits REAL, margin REAL,
  PRIMARY KEY(run_id, task, sample)) STRICT, WITHOUT ROWID;
INSERT INTO eval_sample VALUES(2,'ppl',0,'a.ids.safetensors',NULL,NULL,256,32,2.5,0.25,NULL,NULL,NULL);
INSERT INTO eval_sample VALUES(2,'niah',1,'1',7,0.25,256,4,0.5,NULL,1,1.0,0.125);
CREATE TABLE diagnostic(
  id INTEGER PRIMARY KEY, run_id INTEGER REFERENCES run(id), pass_id INTEGER REFERENCES pass(id),
  unix_ns INTEGER NOT NULL, severity TEXT NOT NULL CHECK(severity IN('info','warning','error')),
  source TEXT NOT NULL, code INTEGER, message TEXT NOT NULL) STRICT;
CREATE INDEX kernel_scope ON kernel(pass_id, scope_id);
CREATE INDEX kernel_corr  ON kernel(pass_id, correlation_id);
CREATE INDEX kernel_time  ON kernel(pass_id, start_ns);
CREATE INDEX api_corr     ON api_call(pass_id, correlation_id);
CREATE INDEX scope_step   ON scope(run_id, kind, step, layer);
CREATE INDEX mv_metric    ON metric_value(metric_id, pass_id);
CREATE VIEW StringIds AS SELECT id, value FROM string_ids;
CREATE VIEW CUPTI_ACTIVITY_KIND_KERNEL AS
  SELECT k.start_ns AS start, k.end_ns AS "end", d.ordinal AS deviceId, k.context_id AS contextId,
    k.stream_id AS streamId, k.correlation_id AS correlationId, r.pid << 24 AS globalPid,
    k.name_id AS demangledName, k.name_id AS shortName, k.mangled_id AS mangledName,
    k.registers AS registersPerThread,
    k.grid_x AS gridX, k.grid_y AS gridY, k.grid_z AS gridZ,
    k.block_x AS blockX, k.block_y AS blockY, k.block_z AS blockZ,
    k.smem_static_bytes AS staticSharedMemory, k.smem_dynamic_bytes AS dynamicSharedMemory,
    k.smem_executed_bytes AS sharedMemoryExecuted, k.local_total_bytes AS localMemoryTotal,
    k.graph_id AS graphId, k.graph_node_id AS graphNodeId
  FROM kernel k JOIN pass p ON p.id = k.pass_id JOIN run r ON r.id = p.run_id LEFT JOIN device d ON d.id = p.device_id
  WHERE p.id = (SELECT max(id) FROM pass WHERE mode = 'timing' AND state = 'complete');
CREATE VIEW NVTX_EVENTS AS
  SELECT e.host_start_ns + coalesce(p.t0_cupti_ns - p.t0_monotonic_ns, 0) AS start,
    e.host_end_ns + coalesce(p.t0_cupti_ns - p.t0_monotonic_ns, 0) AS "end",
    59 AS eventType, n.value AS text, s.name_id AS textId, r.pid << 24 AS globalTid, 0 AS domainId
  FROM scope_exec e JOIN scope s ON s.id = e.scope_id JOIN string_ids n ON n.id = s.name_id
    JOIN pass p ON p.id = e.pass_id JOIN run r ON r.id = p.run_id
  WHERE p.id = (SELECT max(id) FROM pass WHERE mode = 'timing' AND state = 'complete');
COMMIT;
