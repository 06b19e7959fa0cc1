#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The product's cuda backend, run on the host: the same sets, counts and checks as the cpu backend's.
# A fingerprint is over every set and count, and a replay fails where an output, a selection, a
# refresh or an eviction is not the reference's.

load emulated

same() { # TRACE ARGUMENTS: cuda's results hold against cpu's
    "$emulated" replay "$@" --backend cpu --repeat 1 -q --format json >cpu.json
    emu "$@" --format json --check cpu.json >cuda.json
    json 'all(x["backend"] == "cuda" and x["near_ties"] == 0 and x["kernel_err"]["max"] <= 1e-5
          for x in (d if isinstance(d, list) else [d]))' <cuda.json | grep -qx True
}

@test "the embedded recording, whole, under schedules; a part of it under those that read more" {
    same "$sample" -p recycled:k=256,stride=16 -p recycled:k=256,stride=8,sim=0.85 -p streaming:k=256
    same "$sample" -p full -p oracle:k=256 --layers 9 --steps 0..63
}

@test "integer-valued scores: every option of a selection, no tie decided otherwise" {
    local trace=synth:case=integer,D=64,P=96,N=24 policies=() agg current evict
    for agg in max mean first sum; do
        for current in pseudo snapkv drop; do
            for evict in pooled raw; do
                policies+=(-p "recycled:k=12,stride=4,pool=3,agg=$agg,current=$current,evict=$evict")
            done
        done
    done
    same "$trace" "${policies[@]}"
    same "$trace" "${policies[@]:0:8}" --cache gather --scores recompute --select inline
    same "$trace" "${policies[@]:0:8}" --select side
}

@test "what a full step does: before or after attending, refreshed by turns, never" {
    local trace=synth:case=drift,D=64,P=128,N=24
    same "$trace" -p recycled:k=16,stride=4,attend=after -p recycled:k=16,stride=4,stagger=1 \
        -p recycled:k=16,stride=1 -p recycled:k=16,stride=100 -p recycled:k=1,stride=4 \
        -p recycled:k=500,stride=4 -p recycled:k=16,stride=4,sim=0.9 \
        -p recycled:k=16,stride=4,sim=0.9,query=post -p streaming:k=16,stride=4 \
        -p streaming:k=8
    same "$trace" -p recycled:k=16,stride=4,attend=after -p recycled:k=16,stride=4,sim=0.9 --select side
}

@test "schedules of the literature: cut by scores, chosen once, handed on, by pattern" {
    local some=(--layers 0,9 --steps 0..19)
    same "$sample" "${some[@]}" -p h2o:k=64 -p h2o:k=1/16,recent=0.25,agg=max -p tova:k=64 \
        -p tova:k=64,heads=layer,agg=max
    same "$sample" "${some[@]}" -p snapkv:k=64 -p snapkv:k=64,evict=fifo -p pyramidkv:k=1/8,evict=fifo \
        -p adakv:k=64,evict=fifo -p adakv:k=1/8
    same "$sample" "${some[@]}" -p tidal:k=64,select=0 -p tidal:k=64,select=0,correct=4 \
        -p unlimiformer:k=32 -p longformer:window=64,globals=4 -p sparse-transformer:stride=40
}

@test "schedules of the literature: pages told apart by what is kept of each" {
    local some=(--layers 0,9 --steps 0..19)
    same "$sample" "${some[@]}" -p quest:k=64 -p quest:k=1/8,agg=mean -p triforce:k=64,gamma=4
    same "$sample" "${some[@]}" -p quest:k=64,page=8,newest=0 -p triforce:k=64,gamma=2 --cache gather
}

@test "KV heads with budgets of their own" {
    same "$sample" --layers 0,9 --steps 0..19 -p recycled:k=64,stride=4,k@0.1=100,k@9.0-1=20 \
        -p snapkv:k=64,k@0.2=99,evict=fifo -p h2o:k=64,k@0.1=100 -p quest:k=64,k@0.1=100
    run -3 --separate-stderr "$emulated" replay "$sample" --layers 0 --steps 0..3 --backend cuda \
        -p recycled:k=64,stride=4,k@0.1=100,evict=raw
    [[ $stderr == *"cuda: KV heads with budgets of their own need evict=pooled"* ]]
}

@test "the largest k, 8192, of a context that has more" {
    same synth:case=integer,D=64,Hkv=1,P=8300,N=3 -p recycled:k=8192,stride=2
    run -2 --separate-stderr "$emulated" replay synth:case=integer,D=64,Hkv=1,P=8300,N=3 \
        -p recycled:k=8193,stride=2 --backend cuda
    [[ $stderr == *"cuda: expected k of at most 8192, got 8193"* ]]
}

@test "window layers among the others, more layers than a power of two" {
    same synth:case=drift,D=64,P=96,N=10,layers=7 -p recycled:k=16,stride=4,sim=0.95
    same synth:case=drift,D=64,P=96,N=10,layers=7,window=16 -p recycled:k=16,stride=4 \
        -p recycled:k@0-2=8,k=16,stride=4
}

@test "a card without room, and a head it has no kernel for, are refused before anything runs" {
    run -1 --separate-stderr env RA_EMU_MEMORY=100000 "$emulated" replay "$sample" -p full \
        --backend cuda
    [[ $stderr == *"cuda: the replay needs "*" MiB of the card's memory, 0.10 are free"* ]]
    # room for the caches, none for what recorded steps keep
    run -1 --separate-stderr env RA_EMU_MEMORY=8000000 "$emulated" replay "$sample" -p full \
        --backend cuda
    [[ $stderr == *"cuda: the replay needs 9.73 MiB of the card's memory, 7.63 are free"* ]]
    run -2 --separate-stderr "$emulated" replay synth:case=flat,D=32 -p full --backend cuda
    [[ $stderr == *"cuda: expected head dimensions"*"got D = 32"* ]]
    run -2 --separate-stderr "$emulated" replay synth:case=flat,D=64,P=9000,N=4 \
        -p recycled:k=9000,stride=4 --backend cuda
    [[ $stderr == *"cuda: expected k of at most 8192, got 9000"* ]]
}

@test "no card: exit 3 and what to do" {
    run -3 --separate-stderr env RA_EMU_SMS=0 "$emulated" replay "$sample" -p full --backend cuda
    [[ $stderr == *"cuda: no GPU found"*"use --backend cpu" ]]
    RA_EMU_SMS=0 "$emulated" list backends | grep -A 1 '^cuda *unavailable'
}

@test "times of the host are synthetic wherever they appear, a step's is one launch" {
    local schedules=(-p full -p recycled:k=8,stride=4)
    "$emulated" replay synth:case=needle,D=64,P=64,N=8 "${schedules[@]}" --backend cuda -q --db s.db \
        --format json >r.json
    json 'all(x["attention_ns"]["method"] == "synthetic" and x["launch_mode"] == "step-graph" and
              x["attention_ns"]["total"] > 0 and x["ops_ns"]["attend"] is None and
              x["repeats"] == 1 and x["backend"] == "cuda" for x in d)' <r.json | grep -qx True
    run -0 sqlite3 s.db "select backend, method, launch_mode, count(*) from run group by 1, 2, 3"
    [ "$output" = "cuda|synthetic|step-graph|2" ]
    # what each step asked memory for: more than K and V, and more of them than a recycled step reads
    run -0 sqlite3 s.db "select group_concat(distinct p.metric_set), count(distinct s.id), min(v.value) > 0
        from metric_value v join metric_def m on m.id = v.metric_id join pass p on p.id = v.pass_id
        join scope s on s.id = v.scope_id where p.mode = 'counter' and p.state = 'complete' and s.step >= 0"
    [ "$output" = "emu-count|16|1" ]
    run -0 sqlite3 s.db "select count(*), min(v.value >= l.kv_read_bytes and v.value < 3 * l.kv_read_bytes)
        from metric_value v join metric_def m on m.id = v.metric_id and m.name = 'global_load_bytes'
        join scope s on s.id = v.scope_id join run r on r.id = s.run_id join policy p on p.id = r.policy_id
        join (select run_id, step, sum(kv_read_bytes) kv_read_bytes from layer_step group by 1, 2) l
            on l.run_id = s.run_id and l.step = s.step where s.step >= 0 and p.name = 'full'"
    [ "$output" = "8|1" ]
    # what that should take on a card: of each schedule's steps, full ones apart
    run -0 python3 "$root/kernels/bench/predict.py" s.db
    [ "${#lines[@]}" -eq 5 ]
    [[ ${lines[2]} == "| full | 8 full | "* && ${lines[3]} == "| recycled:k=8,stride=4 | 6 others | "* ]]
    # bytes at 3.35 TB/s or launches of 1 us; bytes at 60 % of it and launches of 6 us
    awk -F'[|]' '
        function off(x, y) { return x - y > 1 || y - x > 1 }
        NR > 2 {
            split($6, us, " to "); n++
            if (off(us[1], $4 / 3350 > $5 ? $4 / 3350 : $5) || off(us[2], $4 / 2010 + 6 * $5)) exit 1
        }
        END { exit n != 3 }' <<<"$output"
    # the prefill and eight steps, each with a time
    run -0 sqlite3 s.db "select kind, count(*), min(e.event_us > 0) from scope
        join scope_exec e on e.scope_id = scope.id group by kind"
    [ "$output" = "step|18|1" ]
    "$emulated" report s.db | grep -q "time: synthetic per step"
    if command -v gnuplot >/dev/null; then
        "$emulated" plot s.db -o figures --figure traffic
        grep -q "method: bytes counted, time synthetic of" figures/traffic.svg
        run ! grep -q "of the time of" figures/traffic.svg # no finding is made of them
    fi
    "$emulated" replay synth:case=needle,D=64,P=64,N=8 "${schedules[@]}" --backend cpu -q --db s.db >/dev/null
    run -0 "$emulated" list runs s.db --format json
    json 'sorted(x["method"] for x in d)' <<<"$output" |
        grep -qx "\['cpu-wall', 'cpu-wall', 'synthetic', 'synthetic'\]"
}

@test "without quality the backend's own selections stand, timed as well" {
    for backend in cpu cuda; do
        "$emulated" replay synth:case=integer,D=64,P=64,N=12 -p recycled:k=8,stride=4 --no-quality \
            --backend $backend --repeat 2 -q --format json >$backend.json
    done
    [ "$(json 'd["fingerprint"]' <cpu.json)" = "$(json 'd["fingerprint"]' <cuda.json)" ]
}
