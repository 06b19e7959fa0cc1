#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# export: a pass for other tools. What is written is held against the store's own rows, read by
# Python and the sqlite3 shell; queries for Nsight Systems' exports are those that NVIDIA published.

load common

setup_file() {
    bats_require_minimum_version 1.5.0
    command -v sqlite3 >/dev/null || skip "needs sqlite3"
}

# As fill, and in run 2 a pass with kernels, as a profiler would store it: ordinal 7, whose host ranges
# are those of the bare pass; in each `attend` a runtime call, a driver call inside it with the same
# id, and a kernel that begins 5 us later; an overlapping kernel, one whose time was lost, a copy of
# which no call is known; a later pass that is incomplete, one that counted.
profiled() {
    fill
    sqlite3 s.db <<'SQL'
INSERT INTO device(id, run_id, ordinal, uuid, name, chip, cc_major, cc_minor, sm_count)
  VALUES(1, 2, 3, 'GPU-1', 'H100 "test"', 'GH100', 9, 0, 132);
INSERT INTO pass(id, run_id, device_id, ordinal, mode, state, t0_monotonic_ns, t0_cupti_ns) VALUES
  (50, 2, 1, 7, 'timing', 'complete', 13481385589173, 1795820566447967401),
  (51, 2, 1, 8, 'timing', 'incomplete', 13481385589173, 1795820566447967401),
  (52, 2, 1, 9, 'counter', 'complete', 13481385589173, NULL);
INSERT INTO scope_exec SELECT 50, scope_id, host_start_ns - t0_monotonic_ns + 13481385589173,
  host_end_ns - t0_monotonic_ns + 13481385589173, 1.5, NULL, NULL
  FROM scope_exec JOIN pass p ON p.id = pass_id WHERE run_id = 2 AND mode = 'bare';
INSERT INTO string_ids(id, value) VALUES (90, 'attend<"f16", 64>'), (91, 'cudaLaunchKernel'),
  (92, 'cuLaunchKernelEx');
INSERT INTO api_call(pass_id, correlation_id, domain, cbid, name_id, thread_id, start_ns, end_ns, result)
  WITH call AS (SELECT row_number() OVER (ORDER BY host_start_ns) AS id,
    host_start_ns - 13481385589173 + 1795820566447967401 + 4 AS at FROM scope_exec JOIN scope s
    ON s.id = scope_id JOIN string_ids n ON n.id = name_id WHERE pass_id = 50 AND value = 'attend')
  SELECT 50, id, 'driver', 652, 92, 4242, at + 1, at + 5, 0 FROM call UNION ALL
  SELECT 50, id, 'runtime', 211, 91, 4242, at, at + 8, 0 FROM call;
INSERT INTO kernel(pass_id, scope_id, correlation_id, start_ns, end_ns, context_id, stream_id, name_id,
    grid_x, grid_y, grid_z, block_x, block_y, block_z, registers, graph_node_id)
  SELECT 50, (SELECT scope_id FROM scope_exec WHERE pass_id = 50 AND host_start_ns = start_ns - 4
      + 13481385589173 - 1795820566447967401), correlation_id, start_ns + 5000,
    start_ns + 5000 + 101 * correlation_id, 1, 7, 90, 8, 2, 1, 128, 1, 1, 40, 1 << 63
  FROM api_call WHERE domain = 'runtime';
INSERT INTO kernel(pass_id, correlation_id, start_ns, end_ns, context_id, stream_id, name_id,
    grid_x, grid_y, grid_z, block_x, block_y, block_z)
  SELECT 50, correlation_id, start_ns + 1, end_ns + 1, 1, 7, 90, 1, 1, 1, 32, 1, 1 FROM kernel
    WHERE correlation_id = 16 UNION ALL
  SELECT 50, 3, NULL, NULL, 1, 7, 90, 1, 1, 1, 32, 1, 1;
INSERT INTO memop(pass_id, correlation_id, op, copy_kind, bytes, start_ns, end_ns, stream_id) VALUES
  (50, 1000, 'memcpy', 1, 4096, 1795820566447967501, 1795820566447967601, 7),
  (50, 2, 'memcpy', 2, 12, 1795820566447967511, 1795820566447967701, 8),
  (50, 1, 'memset', NULL, 77, 1795820566447967601, 1795820566447967602, 7);
INSERT INTO overhead(pass_id, kind, start_ns, end_ns) VALUES (50, 65536, 1795820566447967402, 1795820566447967403);
INSERT INTO metric_def VALUES (1, 'global_load_bytes', 'GH100', 'dram', 'byte', 'bytes', 1);
INSERT INTO metric_value SELECT 52, id, 1, 1e6 + step FROM scope WHERE run_id = 2 AND kind = 'step';
SQL
}

@test "events are the store's rows, exact to the ns; arrows have two ends, ranges lie in each other" {
    profiled
    "$rattn" export s.db --run 2 --as perfetto -o p.json
    python3 - <<'PY'
import json, sqlite3
from collections import defaultdict
from decimal import Decimal
db = sqlite3.connect("s.db")
doc = json.load(open("p.json"), parse_float=Decimal)
events = doc["traceEvents"]
HOST, DEVICE = 13481385589173, 1795820566447967401
assert doc["displayTimeUnit"] == "ns" and doc["otherData"]["pass"] == 7
assert doc["otherData"]["kernels"] - doc["otherData"]["kernels_without_time"] == 17
def ns(us):
    value = Decimal(us) * 1000
    assert value == int(value)
    return int(value)
spans = [dict(e, start=ns(e["ts"]), stop=ns(e["ts"]) + ns(e["dur"])) for e in events if e["ph"] == "X"]
assert all(e["stop"] >= e["start"] for e in spans)
def got(cat):
    return sorted((e["name"], e["start"], e["stop"]) for e in spans if e["cat"] == cat)
def want(sql):
    return sorted(db.execute(sql).fetchall())
assert got("op") == want("SELECT value, host_start_ns - %d, host_end_ns - %d FROM scope_exec JOIN scope s"
    " ON s.id = scope_id JOIN string_ids n ON n.id = name_id WHERE pass_id = 50" % (HOST, HOST)) != []
assert got("kernel") == want("SELECT value, start_ns - %d, end_ns - %d FROM kernel JOIN string_ids n ON n.id ="
    " name_id WHERE start_ns NOT NULL" % (DEVICE, DEVICE)) and len(got("kernel")) == 17
assert got("copy") == [("memcpy from device", 110, 300), ("memcpy to device", 100, 200), ("memset", 200, 201)]
assert got("overhead") == [("overhead 65536", 1, 2)]
for domain in "runtime", "driver":
    assert got(domain) == want("SELECT value, start_ns - %d, end_ns - %d FROM api_call JOIN string_ids n"
        " ON n.id = name_id WHERE domain = '%s'" % (DEVICE, DEVICE, domain))
# every span on a track with a name; on none, calls apart, does one begin before the other has ended
names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
assert len(names) == sum(e["name"] == "thread_name" for e in events)
tracks = defaultdict(list)
for e in spans:
    tracks[names[e["pid"], e["tid"]]].append(e)
for name, track in tracks.items():
    track.sort(key=lambda e: (e["start"], -e["stop"]))
    for a, b in zip(track, track[1:]):
        assert b["start"] >= a["stop"] or (name.startswith("calls") and b["stop"] <= a["stop"]), (name, a, b)
assert {"steps", "layers", "operations", "calls, thread 4242", "stream 7", "stream 7, overlapping",
    "stream 7, copies", "stream 8, copies", "profiler overhead"} == set(tracks)
assert [e["args"]["name"] for e in events if e["name"] == "process_name"] == ["host", 'device 3: H100 "test"']
# each operation in a layer's span, each of those in a step's
def inside(a, b):
    return b["start"] <= a["start"] and a["stop"] <= b["stop"] and b["args"]["step"] == a["args"]["step"]
for e in tracks["operations"]:
    assert sum(inside(e, l) and l["name"] == "layer %d" % e["args"]["layer"] for l in tracks["layers"]) == 1
for e in tracks["layers"]:
    assert sum(inside(e, s) for s in tracks["steps"]) == 1
    assert e["args"].get("is_full") == db.execute("SELECT is_full FROM layer_step WHERE run_id = 2 AND step = ?"
        " AND layer = ?", (e["args"]["step"], e["args"]["layer"])).fetchone()[0]
assert [e["name"] for e in tracks["steps"]] == ["prefill"] + ["step %d" % t for t in range(8)]
assert len(tracks["layers"]) == 18
# an arrow leaves the runtime call that has the correlation id and arrives where its kernel begins
tails = {e["id"]: e for e in events if e["ph"] == "s"}
heads = {e["id"]: e for e in events if e["ph"] == "f"}
assert tails.keys() == heads.keys() and len(tails) == sum(e["ph"] in "sf" for e in events) / 2 == 17 + 2
for i in tails:
    call, = [e for e in spans if e["cat"] == "runtime" and (e["tid"], e["start"]) == (tails[i]["tid"], ns(tails[i]["ts"]))]
    work, = [e for e in spans if (e["pid"], e["tid"], e["start"]) == (heads[i]["pid"], heads[i]["tid"], ns(heads[i]["ts"]))]
    assert call["args"]["correlation"] == work["args"]["correlation"] and heads[i]["bp"] == "e"
# counters stand where their step begins
def counter(name, key):
    return [(ns(e["ts"]), e["args"][key]) for e in events if e["ph"] == "C" and e["name"] == name]
starts = [e["start"] for e in tracks["steps"]]
for name in "keys_read", "kv_read_bytes", "kv_write_bytes", "refresh_bytes", "selection_bytes":
    sums = [v for v, in db.execute("SELECT sum(%s) FROM layer_step WHERE run_id = 2 GROUP BY step ORDER BY step" % name)]
    assert counter(name, "keys" if name == "keys_read" else "bytes") == list(zip(starts, sums))
assert [t for t, v in counter("refresh_overlap", "share")] == [starts[4], starts[8]]
assert counter("global_load_bytes (bytes)", "value") == [(t, 10**6 + i - 1) for i, t in enumerate(starts)]
kernel = [e for e in spans if e["cat"] == "kernel"][0]["args"]
assert (kernel["operation"], kernel["layer"], kernel["grid"], kernel["registers_per_thread"]) == ("attend", 0, "8 x 2 x 1", 40)
assert "cluster" not in kernel # not measured
PY
}

@test "a pass without kernels has its steps, layers and operations" {
    fill
    "$rattn" export s.db --run 1 --as perfetto -q >p.json
    python3 - <<'PY'
import json, sqlite3
events = json.load(open("p.json"))["traceEvents"]
n = sqlite3.connect("s.db").execute("SELECT count(*) FROM scope_exec WHERE pass_id = 1").fetchone()[0]
assert sum(e.get("cat") == "op" for e in events) == n > 0
assert not any(e["ph"] in "sf" or e["pid"] != 1 for e in events)
assert min(e["ts"] for e in events if e["ph"] == "X") >= 0
PY
    # a layer that is there several times is a span each time
    "$rattn" replay synth:case=integer,P=32,N=8 -p full --repeat 1 -q --tile-layers 3 --db t.db >/dev/null
    "$rattn" export t.db --run 1 --as perfetto -q >t.json
    python3 - <<'PY'
import json
layers = sorted((e["ts"], e["ts"] + e["dur"], e["args"]["step"], e["name"]) for e in json.load(open("t.json"))["traceEvents"]
    if e.get("cat") == "layer")
assert [l[3] for l in layers if l[2] == 5] == ["layer 0", "layer 1"] * 3
assert all(b[0] >= a[1] for a, b in zip(layers, layers[1:]))
PY
}

@test "the latest complete pass with kernels is taken, else the latest complete bare one, else what --pass says" {
    profiled
    sqlite3 s.db "insert into pass(id, run_id, ordinal, mode, state, t0_monotonic_ns) values (60, 2, 10, 'bare', 'complete', 1)"
    sqlite3 s.db "insert into scope_exec select 60, scope_id, host_start_ns, host_end_ns, null, null, null from scope_exec where pass_id = 50"
    taken() { "$rattn" export s.db --run 2 --as perfetto -q "$@" | json 'd["otherData"]["pass"]'; }
    [ "$(taken)" = 7 ]
    sqlite3 s.db "update pass set state = 'failed' where id = 50"
    [ "$(taken)" = 10 ]
    [ "$(taken --pass 0)" = 0 ]
    run -0 --separate-stderr "$rattn" export s.db --run 2 --as csv --pass 7
    [[ $stderr == "rattn-sim: run 2, pass 7 (timing, failed), 1 of 18 kernels without a time" ]]
    run -2 --separate-stderr "$rattn" export s.db --run 2 --as csv --pass 9
    [[ $stderr == *"pass 9 of run 2 (counter, complete): nothing was timed in it" && -z $output ]]
    run -2 --separate-stderr "$rattn" export s.db --run 2 --as csv --pass 11
    [[ $stderr == *"run 2 has no pass 11" ]]
    sqlite3 s.db "update pass set state = 'aborted'"
    run -2 --separate-stderr "$rattn" export s.db --run 2 --as perfetto
    [[ $stderr == *"run 2 has no complete pass with times"* && -z $output ]]
}

@test "csv has a row for each kernel, or for each executed scope" {
    profiled
    "$rattn" export s.db --run 2 --as csv -q >k.csv
    "$rattn" export s.db --run 1 --as csv -q -o e.csv
    python3 - <<'PY'
import csv, sqlite3
db = sqlite3.connect("s.db")
rows = list(csv.DictReader(open("k.csv", newline="")))
want = db.execute("SELECT start_ns - 1795820566447967401, end_ns - start_ns, value, grid_x, registers, graph_node_id"
    " FROM kernel JOIN string_ids n ON n.id = name_id ORDER BY start_ns, kernel.id").fetchall()
assert len(rows) == len(want) == 18
for r, w in zip(rows, want):
    text = ["" if v is None else str(v) for v in w]
    text[5] = str(w[5] % 2**64) if w[5] is not None else ""
    assert [r[c] for c in ("start_ns", "duration_ns", "kernel", "grid_x_blocks", "registers_per_thread", "graph_node_id")] == text
assert rows[0]["start_ns"] == "" and rows[0]["device"] == "3" and rows[0]["pass"] == "7"
rows = list(csv.DictReader(open("e.csv", newline="")))
want = db.execute("SELECT host_start_ns - t0_monotonic_ns, host_end_ns - host_start_ns, value, step, layer FROM scope_exec"
    " JOIN pass p ON p.id = pass_id JOIN scope s ON s.id = scope_id JOIN string_ids n ON n.id = name_id"
    " WHERE p.run_id = 1 ORDER BY host_start_ns").fetchall()
assert [[r[c] for c in ("start_ns", "duration_ns", "operation", "step", "layer")] for r in rows] == [[str(v) for v in w] for w in want]
assert rows[0]["device_duration_us"] == ""
PY
}

@test "queries for Nsight Systems run on the export, and where it has views on the store" {
    profiled
    "$rattn" export s.db --run 2 --as nsys -q -o n.sqlite
    summary="SELECT names.value AS name, COUNT(*), SUM(end - start), AVG(end - start), MIN(end - start), MAX(end - start)
        FROM CUPTI_ACTIVITY_KIND_KERNEL k JOIN StringIds names ON names.id = k.demangledName GROUP BY name ORDER BY 3 DESC"
    ranges="SELECT text, eventType, COUNT(*), SUM(end - start), MIN(start) FROM NVTX_EVENTS JOIN StringIds s ON s.id = textId
        AND s.value = text GROUP BY text ORDER BY text"
    inside="SELECT n.text, COUNT(*) FROM NVTX_EVENTS n JOIN CUPTI_ACTIVITY_KIND_KERNEL k ON k.globalPid / 0x1000000 % 0x1000000 =
        n.globalTid / 0x1000000 % 0x1000000 AND k.start >= n.start + 4 AND k.start <= n.start + 5004 GROUP BY n.text ORDER BY 1"
    for query in "$summary" "$ranges" "$inside"; do
        sqlite3 s.db "$query" >store.out
        sqlite3 n.sqlite "$query" | diff store.out -
        [ -s store.out ]
    done
    # 16 launches of 101, 202, ... ns, and the last once more
    [ "$(sqlite3 n.sqlite "$summary" | cut -d'|' -f2-4)" = "18|$((101 * 136 + 101 * 16))|$(python3 -c 'print("%.15g" % (101 * 152 / 17))')" ]
    # the longest calls that launched a kernel; each kernel's innermost range by the thread of its launch
    sqlite3 n.sqlite <<'SQL' >recipe.out
ALTER TABLE CUPTI_ACTIVITY_KIND_RUNTIME ADD COLUMN name TEXT;
ALTER TABLE CUPTI_ACTIVITY_KIND_RUNTIME ADD COLUMN kernelName TEXT;
UPDATE CUPTI_ACTIVITY_KIND_RUNTIME SET kernelName = (SELECT value FROM StringIds JOIN CUPTI_ACTIVITY_KIND_KERNEL AS cuda_gpu
    ON cuda_gpu.shortName = StringIds.id AND CUPTI_ACTIVITY_KIND_RUNTIME.correlationId = cuda_gpu.correlationId);
UPDATE CUPTI_ACTIVITY_KIND_RUNTIME SET name = (SELECT value FROM StringIds WHERE nameId = StringIds.id);
SELECT name, kernelName, end - start FROM CUPTI_ACTIVITY_KIND_RUNTIME WHERE kernelName IS NOT NULL
    ORDER BY end - start DESC, start LIMIT 1;
ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL ADD COLUMN nvtxRange TEXT;
CREATE INDEX nvtx_start ON NVTX_EVENTS (start);
UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET nvtxRange = (SELECT NVTX_EVENTS.text FROM NVTX_EVENTS JOIN CUPTI_ACTIVITY_KIND_RUNTIME
    ON NVTX_EVENTS.eventType == 59 AND NVTX_EVENTS.globalTid == CUPTI_ACTIVITY_KIND_RUNTIME.globalTid
    AND NVTX_EVENTS.start <= CUPTI_ACTIVITY_KIND_RUNTIME.start AND NVTX_EVENTS.end >= CUPTI_ACTIVITY_KIND_RUNTIME.end
    WHERE CUPTI_ACTIVITY_KIND_KERNEL.correlationId == CUPTI_ACTIVITY_KIND_RUNTIME.correlationId
    ORDER BY NVTX_EVENTS.start DESC LIMIT 1);
SELECT nvtxRange, COUNT(*) FROM CUPTI_ACTIVITY_KIND_KERNEL GROUP BY 1;
SELECT label, bytes, end - start FROM CUPTI_ACTIVITY_KIND_MEMCPY m JOIN ENUM_CUDA_MEMCPY_OPER o ON o.id = m.copyKind ORDER BY 1;
SELECT count(*), sum(bytes) FROM CUPTI_ACTIVITY_KIND_MEMSET;
SELECT g.name, chipName, smCount, count(*) FROM TARGET_INFO_GPU g JOIN CUPTI_ACTIVITY_KIND_KERNEL k ON g.id = k.deviceId;
SELECT value FROM META_DATA_EXPORT WHERE name = 'EXPORT_SCHEMA_VERSION';
SELECT integrity_check FROM pragma_integrity_check;
SQL
    diff - recipe.out <<-'END'
	cudaLaunchKernel|attend<"f16", 64>|8
	attend|18
	Device-to-Host|12|190
	Host-to-Device|4096|100
	1|77
	H100 "test"|GH100|132|18
	3.24.14
	ok
	END
    # what was not measured is NULL, also where Nsight Systems would have a default
    [ "$(sqlite3 n.sqlite 'select count(*) from CUPTI_ACTIVITY_KIND_KERNEL where start is null and registersPerThread is null')" = 1 ]
}

@test "nsys replaces an earlier export and nothing else" {
    profiled
    run -2 --separate-stderr "$rattn" export s.db --run 2 --as nsys
    [[ $stderr == *"expected -o FILE"* ]]
    "$rattn" export s.db --run 2 --as nsys -q -o n.sqlite
    run -0 --separate-stderr "$rattn" export s.db --run 1 --as nsys -o n.sqlite
    [[ $stderr == *"run 1, pass 0 (bare, complete): wrote n.sqlite" ]]
    [ "$(sqlite3 n.sqlite 'select count(*) from CUPTI_ACTIVITY_KIND_KERNEL')" = 0 ]
    echo mine >text
    cp s.db other.db
    sqlite3 foreign.db "create table META_DATA_EXPORT(name, value); insert into META_DATA_EXPORT values ('EXPORT_SCHEMA_VERSION', '3.1.2')"
    for file in text other.db foreign.db /dev/null .; do
        before=$(cat "$file" 2>/dev/null | sha256sum)
        run -2 --separate-stderr "$rattn" export s.db --run 2 --as nsys -o "$file"
        [[ $stderr == *"$file: is there already"* ]]
        [ "$(cat "$file" 2>/dev/null | sha256sum)" = "$before" ]
    done
    run -1 --separate-stderr bash -c "ulimit -f 24; \"$rattn\" export s.db --run 2 --as nsys -o big.sqlite"
    [[ $stderr == *big.sqlite* ]]
    run -1 --separate-stderr "$rattn" export s.db --run 2 --as nsys -o none/n.sqlite
    [ -z "$(ls -d big* none* ./*.tmp* 2>/dev/null)" ]
}

@test "the store itself is never written over" {
    fill
    ln s.db hard.db
    ln -s s.db soft.db
    before=$(sha256sum <s.db)
    for format in perfetto csv nsys; do
        for file in s.db hard.db ./soft.db; do
            run -2 --separate-stderr "$rattn" export s.db --run 1 --as $format -o $file
            [[ $stderr == *"that is the store itself"* ]]
        done
    done
    [ "$(sha256sum <s.db)" = "$before" ]
}

@test "names that are not text, and numbers that are none, do not break the JSON" {
    profiled
    sqlite3 s.db "update string_ids set value = cast(x'6122ff0a5c' as text) where id = 90;
        update metric_value set value = 9e999; update pass set t0_cupti_ns = null"
    "$rattn" export s.db --run 2 --as perfetto -q >p.json
    [[ $(json 'd["otherData"]["device_clock"]' <p.json) == "not read"* ]]
    [ "$(json '{e["args"]["value"] for e in d["traceEvents"] if e["name"].startswith("global_load")}' <p.json)" = "{None}" ]
    sqlite3 s.db "update kernel set stream_id = 9223372036854775807 - id, start_ns = -9223372036854775807, end_ns = 9223372036854775807 where id % 2;
        update scope_exec set host_end_ns = 9223372036854775807; update pass set t0_monotonic_ns = -9223372036854775807 where id = 50"
    for format in perfetto csv nsys; do
        "$rattn" export s.db --run 2 --as $format -q -o far.$format
    done
    json 'len(d)' <far.perfetto
    [ "$(json 'sum(e.get("cat") == "kernel" and e["name"] == "a\"?\n\\" for e in d["traceEvents"])' <p.json)" = 17 ]
}

@test "unknown runs, stores and formats are named; a full disk is a failure" {
    fill
    run -2 --separate-stderr "$rattn" export s.db --run 9 --as csv
    [[ $stderr == *"no run '9'"* ]]
    run -1 --separate-stderr "$rattn" export none.db --run 1 --as csv
    [[ $stderr == *none.db* ]]
    run -2 --separate-stderr "$rattn" export s.db --run 1
    [[ $stderr == *"--as"* ]]
    run -2 --separate-stderr "$rattn" export s.db --as csv
    run -2 --separate-stderr "$rattn" export s.db --run 1 --as xml
    [[ $stderr == *xml* ]]
    for format in perfetto csv; do
        run -1 --separate-stderr "$rattn" export s.db --run 1 --as $format -o /dev/full
        [[ $stderr == *"/dev/full: No space left"* ]]
        run -1 --separate-stderr sh -c "\"\$rattn\" export s.db --run 1 --as $format >/dev/full"
    done
}
