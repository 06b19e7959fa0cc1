#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# replay: results, stores, exports, interruption. Small ranges of the embedded recording keep each
# test short.

load common

replay() { # POLICY... -- OPTIONS: a few steps of one layer, quiet
    local policies=()
    while [ $# -gt 0 ] && [ "$1" != -- ]; do policies+=(-p "$1"); shift; done
    shift
    "$rattn" replay "$sample" "${policies[@]}" --layers 9 --steps 0..15 --repeat 1 -q "$@"
}

value() { # FILE EXPRESSION over d, the parsed JSON
    python3 -c 'import json,sys; d=json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$1" "$2"
}

@test "replay -h shows the synopsis" {
    run -0 "$rattn" replay -h
    [[ ${lines[0]} == usage:\ rattn-sim\ replay* ]]
}

@test "an unknown option, policy, key and backend name the nearest and exit 2" {
    run -2 --separate-stderr "$rattn" replay "$sample" -p full --repeet 2
    [[ $stderr == *--repeat* ]]
    run -2 --separate-stderr "$rattn" replay "$sample" -p recycle:k=1,stride=2
    [[ $stderr == *recycled* ]]
    run -2 --separate-stderr "$rattn" replay "$sample" -p recycled:k=1,strid=2
    [[ $stderr == *stride* ]]
    run -2 --separate-stderr "$rattn" replay "$sample" -p full --backend cpuu
    [[ $stderr == *cpu* ]]
    run -2 --separate-stderr "$rattn" replay "$sample" -p full -p full
    [[ $stderr == *twice* ]]
}

@test "a device that is not there is exit 3; what needs it is told before" {
    run -3 --separate-stderr "$rattn" replay "$sample" -p full --backend cuda
    [[ $stderr == *"cuda: "* ]]
    run -3 --separate-stderr "$rattn" replay "$sample" -p full --backend cuda --profile timing --db s.db
    [[ $stderr == *"cuda: "* ]]
    [ ! -e s.db ]
    run -2 --separate-stderr "$rattn" replay "$sample" -p full --granularity step
    [[ $stderr == *"--granularity: needs --profile"* ]]
}

@test "the cuda backend's library: missing, broken, of another version" {
    cp "$rattn" rattn
    run -3 --separate-stderr ./rattn replay "$sample" -p full --backend cuda
    [[ $stderr == *"cuda: no librattn_cuda.so beside this program; building it needs nvcc"* ]]
    echo "no library" >librattn_cuda.so
    run -3 --separate-stderr ./rattn replay "$sample" -p full --backend cuda
    [[ $stderr == "rattn-sim: cuda: "*"librattn_cuda.so: "* ]]
    echo 'const unsigned long ra_backend_abi = 1; int ra_backend_cuda;' |
        gcc -shared -x c -o librattn_cuda.so -
    run -3 --separate-stderr ./rattn replay "$sample" -p full --backend cuda
    [[ $stderr == *"librattn_cuda.so is of another version of rattn-sim; build both anew"* ]]
    ./rattn list backends | tr -s " \n" " " | grep -q "cuda unavailable .*is of another version"
}

@test "steps and layers outside the recording are usage errors that name the range" {
    run -2 --separate-stderr "$rattn" replay "$sample" -p full --steps 0..192
    [[ $stderr == *0..191* ]]
    run -2 --separate-stderr "$rattn" replay "$sample" -p full --layers 1
    [[ $stderr == *"layer 1"* ]]
    run -2 --separate-stderr "$rattn" replay "$sample" -p full --layers 9-
    [[ $stderr == *"9-"* ]]
}

@test "one policy gives an object, several an array; full is exact" {
    replay full -- --format json >one.json
    [ "$(value one.json 'd["mass_recovered"]["mean"] == 1 and d["output_rel_err"]["max"] == 0')" = True ]
    [ "$(value one.json 'd["topk_recall"]["mean"] == 1 and d["on_recycled"]["mass_recovered"]["mean"] is None')" = True ]
    [ "$(value one.json '0 < d["kernel_err"]["max"] <= 1e-5 and d["steps"] == 16')" = True ]
    replay full oracle:k=32 -- --format json >two.json
    [ "$(value two.json 'len(d), d[0]["speedup_attention"], d[1]["policy"]')" = "(2, 1.0, 'oracle:k=32')" ]
}

@test "every value of an unmeasured time is null, never 0, and null needs no time" {
    replay recycled:k=64,stride=4 -- --format json --backend null >null.json
    [ "$(value null.json 'd["attention_ns"]["total"], d["kernel_err"]["max"], d["speedup_attention"]')" = "(None, None, None)" ]
    [ "$(value null.json 'd["mass_recovered"]["mean"] > 0')" = True ]
}

@test "threads change neither fingerprint nor output bits" {
    replay recycled:k=64,stride=4 streaming:k=64 -- --format json -j1 >a.json
    replay recycled:k=64,stride=4 streaming:k=64 -- --format json -j2 >b.json
    replay recycled:k=64,stride=4 streaming:k=64 -- --format json -j5 >c.json
    hashes='[(r["fingerprint"], r["output_hash"]) for r in d]'
    [ "$(value a.json "$hashes")" = "$(value b.json "$hashes")" ]
    [ "$(value a.json "$hashes")" = "$(value c.json "$hashes")" ]
}

@test "no-quality keeps the schedule, the sets and the counts" {
    replay recycled:k=64,stride=4 -- --format json >with.json
    replay recycled:k=64,stride=4 -- --format json --no-quality >without.json
    [ "$(value with.json 'd["fingerprint"]')" = "$(value without.json 'd["fingerprint"]')" ]
    [ "$(value without.json 'd["mass_recovered"]["mean"], d["kernel_err"]["max"]')" = "(None, None)" ]
    run -2 --separate-stderr replay oracle:k=4 -- --no-quality
    [[ $stderr == *oracle* ]]
}

@test "gathering and recomputing change bytes, not sets" {
    replay recycled:k=64,stride=4 -- --format json >base.json
    replay recycled:k=64,stride=4 -- --format json --cache gather >gather.json
    replay recycled:k=64,stride=4 -- --format json --scores recompute >recompute.json
    for f in gather recompute; do
        [ "$(value base.json 'd["keys_read"], d["mass_recovered"]')" = "$(value $f.json 'd["keys_read"], d["mass_recovered"]')" ]
    done
    [ "$(value gather.json 'd["refresh_bytes"]')" = 0 ]
    # four full steps over 1540, 1544, 1548, 1552 keys, 3 KV heads, K rows of 128 bytes
    extra=$(((1540 + 1544 + 1548 + 1552) * 3 * 128))
    [ "$(value recompute.json 'd["kv_read_bytes"]')" = $(($(value base.json 'd["kv_read_bytes"]') + extra)) ]
}

@test "layers laid out several times: times and memory of all, figures of the recording" {
    replay full recycled:k=64,stride=4 -- --format json >one.json
    replay full recycled:k=64,stride=4 -- --format json --tile-layers 3 --db t.db --check one.json >three.json
    [ "$(value one.json '[r["tile_layers"] for r in d]')" = "[1, 1]" ]
    [ "$(value three.json '[r["tile_layers"] for r in d]')" = "[3, 3]" ]
    same='[(r["fingerprint"], r["output_hash"], r["keys_read"], r["selections"]) for r in d]'
    [ "$(value one.json "$same")" = "$(value three.json "$same")" ]
    [ "$(value three.json 'd[0]["backend_bytes"]')" -gt $((2 * $(value one.json 'd[0]["backend_bytes"]'))) ]
    # each layer's operations thrice, each with a time of its own
    [ "$(sqlite3 t.db "select count(*), count(distinct s.id) from scope_exec e join scope s on s.id = e.scope_id join
        string_ids n on n.id = s.name_id where n.value = 'attend' and s.run_id = 1 and s.step = 3 and s.layer = 9")" = "3|3" ]
    [ "$(sqlite3 t.db "select count(*) from layer_step where run_id = 1")" = 17 ]
    [ "$(sqlite3 t.db "select group_concat(distinct config_json ->> 'tile_layers') from run")" = 3 ]
    run -0 "$rattn" report t.db
    [[ $output == *"laid out 3 times"*"attention of all 3 layers laid out"* ]]
    replay recycled:k=64,stride=4 -- --format json --no-quality --tile-layers 2 >own.json
    [ "$(value own.json 'd["fingerprint"]')" = "$(value one.json 'd[1]["fingerprint"]')" ]
    run -2 --separate-stderr replay full -- --tile-layers 0
    [[ $stderr == *"--tile-layers: expected a whole number from 1 to 4096, got \"0\""* ]]
    run -2 --separate-stderr replay full -- --tile-layers 2 --backend null
    [[ $stderr == *"--tile-layers: expected a backend that takes time, got --backend null"* ]]
    replay full -- --tile-layers 1 --backend null >/dev/null
}

@test "copies that differ: what is needed beside these options, and what they take" {
    run -2 --separate-stderr replay full -- --phase spread
    [[ ${stderr_lines[0]} == "rattn-sim: replay: --phase: needs --batch, which is not given" ]]
    run -2 --separate-stderr replay full -- --ragged 0.1
    [[ ${stderr_lines[0]} == "rattn-sim: replay: --ragged: needs --batch, which is not given" ]]
    for option in "--phase spread" "--ragged 0.1"; do
        # shellcheck disable=SC2086
        run -2 --separate-stderr replay full -- $option --batch 2
        [[ $stderr == *"${option% *}: expected --backend cuda beside it, got cpu"* ]]
    done
    for share in 0.51 -0.1 nan x; do
        run -2 --separate-stderr replay full -- --batch 2 --ragged=$share
        [[ $stderr == *"--ragged: expected a number from 0 to 0.5, got \"$share\""* ]]
    done
    run -2 --separate-stderr replay full -- --batch 2 --phase even
    [[ $stderr == *"--phase: expected aligned|spread, got \"even\""* ]]
    replay full -- --batch 1 --phase aligned --ragged 0 >/dev/null
}

@test "csv and text render the same runs; a full disk is a failure" {
    replay full streaming:k=64 -- --format csv >out.csv
    [ "$(python3 -c 'import csv; r=list(csv.DictReader(open("out.csv"))); print(len(r), r[1]["mass_recovered.p05"]!="")')" = "2 True" ]
    run -0 replay full streaming:k=64 --
    [[ $output == *"open loop: exact for this recording"* ]]
    run -1 --separate-stderr sh -c "\"\$rattn\" replay \"\$sample\" -p full --layers 9 --steps 0..1 --repeat 1 -q >/dev/full"
    [[ $stderr == *"standard output"* ]]
}

@test "a store keeps runs, passes and rows; check against it" {
    replay full recycled:k=64,stride=4 -- --db s.db --repeat 2 >/dev/null
    [ "$(sqlite3 s.db "select group_concat(state) from run")" = complete,complete ]
    [ "$(sqlite3 s.db "select count(*) from pass where state='complete'")" = 4 ]
    [ "$(sqlite3 s.db "select count(*) from layer_step")" = 34 ]
    [ "$(sqlite3 s.db "select count(*) from layer_step where run_id=2 and is_full and step>=0")" = 4 ]
    [ "$(sqlite3 s.db "select count(*)>0 from retained where run_id=2")" = 1 ]
    [ "$(sqlite3 s.db "select count(*) from scope_exec where host_end_ns<host_start_ns")" = 0 ]
    run -0 replay recycled:k=64,stride=4 -- --db s.db --check 2
    run -4 --separate-stderr replay recycled:k=32,stride=4 -- --db s.db --check 2
    [ "$(sqlite3 s.db "select count(*) from run")" = 4 ]
}

@test "check against saved json" {
    replay recycled:k=64,stride=4 -- --format json >saved.json
    run -0 replay recycled:k=64,stride=4 -- --check saved.json
    sed 's/"keys_read": [0-9]*/"keys_read": 1/' saved.json >wrong.json
    run -4 --separate-stderr replay recycled:k=64,stride=4 -- --check wrong.json
    [[ $stderr == *keys_read* ]]
}

@test "retained intervals cover exactly what is retained" {
    replay recycled:k=8,stride=4 -- --db r.db --keep-sets 9.1 >/dev/null
    # prefill and every step end with 8 positions in C_r of that head
    [ "$(sqlite3 r.db "with t(s) as (values(-1) union all select s+1 from t where s<15)
        select group_concat(distinct n) from (select s, (select count(*) from retained
        where layer=9 and head=1 and first_step<=s and last_step>=s) n from t)")" = 8 ]
    run -2 --separate-stderr replay recycled:k=8,stride=4 -- --db r.db --keep-sets 9.3
    [[ $stderr == *head* ]]
}

@test "export of several goes to a folder, of one to the file; nothing half is left" {
    replay full oracle:k=4 -- --export many >/dev/null
    [ "$(find many -type f | wc -l)" = 2 ]
    replay oracle:k=4 -- --export one.safetensors >/dev/null
    [ -s one.safetensors ]
    run -1 --separate-stderr replay oracle:k=4 -- --export /proc/nowhere/x
    [[ $stderr == */proc/nowhere* ]]
    [ -z "$(find . -name '*.tmp*')" ]
}

@test "exports never overwrite each other, and change no fingerprint" {
    replay recycled:k=64,stride=4 recycled:k=64,stride=4,stagger=1 -- --export two >/dev/null
    [ "$(find two -type f | wc -l)" = 2 ]
    mkdir a b
    cp "$sample" a/t.safetensors
    cp "$sample" b/t.safetensors
    "$rattn" replay a/t.safetensors b/t.safetensors -p oracle:k=4 --layers 9 --steps 0..1 --repeat 1 -q --export both >/dev/null
    [ "$(find both -type f | wc -l)" = 2 ]
    replay recycled:k=5000,stride=4,attend=after -- --format json >without.json
    replay recycled:k=5000,stride=4,attend=after -- --format json --export x.safetensors >with.json
    [ "$(value without.json 'd["fingerprint"]')" = "$(value with.json 'd["fingerprint"]')" ]
}

@test "what cannot succeed fails before the work and leaves no store" {
    run -1 --separate-stderr replay full -- --export /nowhere/x.safetensors --db n.db
    run -2 --separate-stderr replay full -- --check 7
    [[ $stderr == *"--db"* ]]
    run -1 --separate-stderr replay full -- --check nope.json
    [[ $stderr == *nope.json* ]]
    run -1 --separate-stderr "$rattn" replay /nowhere -p full --db m.db
    [ ! -e m.db ]
    run -2 --separate-stderr replay recycled:k=8,stride=4 -- --db k.db --keep-sets 9.0/9.0
    [[ $stderr == *twice* ]]
    run -2 --separate-stderr replay full -- --db k.db --keep-sets 77.0
    [[ $stderr == *77* ]]
    # what would change nothing is not accepted in silence
    run -2 --separate-stderr replay full -- --keep-sets 9.0
    [[ ${stderr_lines[0]} == "rattn-sim: replay: --keep-sets: needs --db, which is not given" ]]
    run -2 --separate-stderr replay full -- --force
    [[ $stderr == *"--force: needs --export"* ]]
}

@test "dry-run tells the plan and touches nothing" {
    run -0 replay full streaming:k=64 -- --dry-run --db never.db
    [[ $output == *"would replay"* && $output == *memory* ]]
    [ ! -e never.db ]
}

@test "a temporary folder that cannot be written is named" {
    TMPDIR=/proc run -1 --separate-stderr replay full --
    [[ $stderr == *"/proc"* ]]
}

@test "several traces and a synthetic one in one call" {
    run -0 "$rattn" replay synth:case=integer,P=40,N=8 synth:case=drift,P=40,N=8 \
        -p recycled:k=8,stride=4 --repeat 1 -q --format json
    [ "$(echo "$output" | python3 -c 'import json,sys; d=json.load(sys.stdin); print(len(d), d[0]["near_ties"], "synthetic" in d[0]["synthetic"])')" = "2 0 True" ]
}

@test "interrupted: exit 130, aborted run, finished layers kept" {
    # a shell without job control starts background work with SIGINT ignored
    env --default-signal=INT "$rattn" replay synth:case=drift,P=4000,N=400,layers=30 \
        -p recycled:k=64,stride=8 -q --db i.db >/dev/null 2>err.txt &
    pid=$!
    for _ in $(seq 100); do
        sleep 0.05
        [ "$(sqlite3 i.db 'select count(*) from layer_step' 2>/dev/null || echo 0)" -gt 0 ] && break
    done
    kill -INT $pid
    code=0
    wait $pid || code=$?
    [ "$code" = 130 ]
    [ "$(sqlite3 i.db 'select state from run')" = aborted ]
    # whole layers only: 400 steps and the prefill each
    [ "$(sqlite3 i.db 'select count(*) % 401, count(*) > 0 from layer_step')" = "0|1" ]
}

@test "killed at random moments: the store opens, is sound, complete runs are whole" {
    for i in $(seq 20); do
        "$rattn" replay "$sample" -p full -p recycled:k=64,stride=4 --layers 9,19 --steps 0..31 \
            --repeat 1 -q --db k.db >/dev/null 2>&1 &
        pid=$!
        sleep "0.$((RANDOM % 4))$((RANDOM % 10))"
        kill -9 $pid 2>/dev/null || true
        wait $pid 2>/dev/null || true
    done
    [ -e k.db ] || skip "killed before the store was made, each time"
    run -0 "$rattn" list runs k.db
    [ "$(sqlite3 k.db 'pragma integrity_check')" = ok ]
    [ "$(sqlite3 k.db "select count(*) from run where state='running'")" = 0 ]
    # a complete run has its prefill and 32 steps of both layers, its pass, its result
    [ "$(sqlite3 k.db "select count(*) from run r where state='complete' and ((select count(*)
        from layer_step where run_id=r.id)!=66 or result_json is null or (select count(*) from pass
        where run_id=r.id and state='complete')!=1)")" = 0 ]
    [ "$(sqlite3 k.db "select count(*) from pass p where state='complete' and (select count(*)
        from scope_exec where pass_id=p.id)=0")" = 0 ]
}

@test "an output below what f32 weights can carry is held to zero" {
    python3 - <<'PY'
import json, struct
# One key is 200 logits below the others, and it alone has a value.
rows = {"q": [100] * 2, "k": [1, -1, 1], "v": [0, 1, 0]}
meta = {"format": "rattn-trace", "version": "1.0", "n_layers": "1", "layers": "0", "n_q_heads": "1",
        "n_kv_heads": "1", "head_dim": "8", "attn_scale": "1", "rope.type": "none", "n_seq": "1",
        "s0.prompt_len": "2", "s0.decode_len": "1", "s0.q_tail": "1"}
header, data = {"__metadata__": meta}, b""
for name, values in rows.items():
    part = b"".join(struct.pack("<8e", value, *[0] * 7) for value in values)
    header["s0.l0." + name] = {"dtype": "F16", "shape": [1, len(values), 8],
                               "data_offsets": [len(data), len(data) + len(part)]}
    data += part
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
open("far.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + data)
PY
    "$rattn" replay far.safetensors -p full --repeat 1 -q
}
