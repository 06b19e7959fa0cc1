#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The ways in which the product's cuda backend launches steps and keeps caches, run on the host: each
# must give the cpu backend's sets and counts, as product.bats tells.

load emulated

@test "launch by launch, and each before the one ahead has ended: nothing is read too early" {
    local trace=synth:case=integer,D=64,P=64,N=10
    local policies=(-p full -p recycled:k=12,stride=4 -p recycled:k=12,stride=4,attend=after
        -p recycled:k=12,stride=4,sim=0.9 -p oracle:k=12 -p streaming:k=12)
    local what how
    for what in "" "--scores recompute" "--cache gather"; do
        # shellcheck disable=SC2086
        "$emulated" replay "$trace" "${policies[@]}" $what --backend cpu --repeat 1 -q --format json >cpu.json
        for how in "--no-graph --select side" "--pdl" "--pdl --select inline" "--pdl --select side" \
            "--pdl --no-graph"; do
            # shellcheck disable=SC2086
            emu "$trace" "${policies[@]}" $what $how --format json --check cpu.json >cuda.json
        done
    done
    json 'sorted({(x["launch_mode"], x["pdl"]) for x in d})' <cuda.json | grep -qx "\[('stream', True)\]"
    run -2 --separate-stderr "$emulated" replay "$trace" -p full --pdl
    [[ $stderr == *"--pdl: expected --backend cuda beside it, got cpu"* ]]
}

@test "C_f in pages that are in no order: the same rows, appended, attended to, scored, moved" {
    local trace=synth:case=integer,D=64,P=90,N=24,layers=3 what
    local policies=(-p full -p recycled:k=12,stride=4 -p recycled:k=12,stride=4,attend=after
        -p oracle:k=12 -p streaming:k=12)
    for what in "" "--scores recompute" "--cache gather"; do
        # shellcheck disable=SC2086
        "$emulated" replay "$trace" "${policies[@]}" $what --backend cpu --repeat 1 -q --format json >cpu.json
        # shellcheck disable=SC2086
        emu "$trace" "${policies[@]}" $what --page 16 --format json --check cpu.json >cuda.json
    done
    json 'all(x["page"] == 16 for x in d)' <cuda.json | grep -qx True
    emu synth:case=drift,D=64,P=96,N=10,layers=3,window=16 -p recycled:k=16,stride=4 --page 16
    run -2 --separate-stderr "$emulated" replay "$trace" -p full --page 16
    [[ $stderr == *"--page: expected --backend cuda beside it, got cpu"* ]]
}

@test "between layers: read in every step, and no part of its time" {
    local trace=synth:case=integer,D=64,P=40,N=4,layers=3 how
    local policies=(-p full -p recycled:k=8,stride=2)
    "$emulated" replay "$trace" "${policies[@]}" --backend cpu --repeat 1 -q --format json >cpu.json
    for how in "--no-graph" "--pdl --select side" ""; do
        rm -f cold.db warm.db
        # shellcheck disable=SC2086
        emu "$trace" "${policies[@]}" $how --between model --db cold.db --format json --check cpu.json >cold.json
        # shellcheck disable=SC2086
        emu "$trace" "${policies[@]}" $how --db warm.db --format json >warm.json
        # twice the 4 MiB of this card's L2 before each of three layers of a step
        local sum="select sum(v.value) from metric_value v join metric_def m on m.id = v.metric_id
            join scope s on s.id = v.scope_id where s.step >= 0 and m.name = "
        [ $(($(sqlite3 cold.db "$sum 'launches'" | cut -d. -f1) - $(sqlite3 warm.db "$sum 'launches'" | cut -d. -f1))) -eq 24 ]
        [ $(($(sqlite3 cold.db "$sum 'global_load_bytes'" | cut -d. -f1) - $(sqlite3 warm.db "$sum 'global_load_bytes'" | cut -d. -f1))) -eq $((24 * 8 << 20)) ]
    done
    json 'all(x["between"] == "model" for x in d)' <cold.json | grep -qx True
    json 'all(x["between"] == "none" for x in d)' <warm.json | grep -qx True
    # reading 192 MiB takes this machine seconds, attention to 40 keys does not
    run -0 sqlite3 cold.db "select min(2 * e.event_us * 1000 < host_s) from scope_exec e join scope s on s.id = e.scope_id
        join (select pass_id, (max(host_end_ns) - min(host_start_ns)) * 1.0 / 5 host_s from scope_exec group by 1) h
        on h.pass_id = e.pass_id where s.step >= 0"
    [ "$output" = 1 ]
    "$emulated" report cold.db | grep -q "caches as cold as in a model"
    run -2 --separate-stderr "$emulated" replay "$trace" -p full --between model
    [[ $stderr == *"--between: expected --backend cuda beside it, got cpu"* ]]
}

@test "a batch: copies with memory of their own through every operation, quality counted once" {
    local trace=synth:case=integer,D=64,P=60,N=12,layers=3 how
    local policies=(-p full -p recycled:k=12,stride=4 -p recycled:k=12,stride=4,sim=0.9
        -p oracle:k=12 -p streaming:k=12)
    "$emulated" replay "$trace" "${policies[@]}" --backend cpu --repeat 1 -q --format json >cpu.json
    for how in "--batch 3" "--batch 2 --page 16 --pdl" "--batch 5 --select side --no-graph"; do
        # shellcheck disable=SC2086
        emu "$trace" "${policies[@]}" $how --format json --check cpu.json >cuda.json
    done
    json 'all(x["batch"] == 5 for x in d)' <cuda.json | grep -qx True
    "$emulated" replay "$trace" "${policies[@]:0:2}" --cache gather --backend cpu --repeat 1 -q --format json >cpu.json
    emu "$trace" "${policies[@]:0:2}" --cache gather --batch 2 --db b.db --format json --check cpu.json >cuda.json
    "$emulated" report b.db | grep -q "2 copies of one trace"
    # twice the traffic of one, in as many launches
    emu "$trace" "${policies[@]:0:2}" --cache gather --db one.db >/dev/null
    local sum="select sum(v.value) from metric_value v join metric_def m on m.id = v.metric_id where m.name = "
    [ "$(sqlite3 b.db "$sum 'launches'")" = "$(sqlite3 one.db "$sum 'launches'")" ]
    local one two
    one=$(sqlite3 one.db "$sum 'global_load_bytes'") two=$(sqlite3 b.db "$sum 'global_load_bytes'")
    awk -v one="$one" -v two="$two" 'BEGIN { exit !(two > 1.9 * one && two < 2.1 * one) }'
    emu synth:case=drift,D=64,P=96,N=10,layers=3,window=16 -p recycled:k=16,stride=4 --batch 2
    run -2 --separate-stderr "$emulated" replay "$trace" -p full --batch 2
    [[ $stderr == *"--batch: expected --backend cuda beside it, got cpu"* ]]
}

# Two recordings of two sequences each, whose K, V and queries are whole numbers.
make_sequences() {
    PYTHONPATH=$root/tests/audit /usr/bin/python3 - <<'PYTHON'
import make_traces as m
for seed, name in ((8, "one"), (9, "two")):
    m.SHAPES["integer"] = (seed, 6, 2, 64, 64, "F16", "fff", m.NONE, [(24 + seed, 9, 1), (50, 7, 2)])
    m.os.rename(m.make(".", "integer"), name + ".safetensors")
PYTHON
}

@test "a batch of several sequences: each as it is alone, the time told of all" {
    make_sequences
    local policies=(-p full -p recycled:k=1/4,stride=3 -p recycled:k=8,stride=2,sim=0.9,attend=after
        -p oracle:k=8 -p streaming:k=8) how
    "$emulated" replay one.safetensors two.safetensors "${policies[@]}" --steps 0..6 --backend cpu --repeat 1 -q \
        --format json >cpu.json
    for how in "--batch 4" "--batch 2 --page 16 --pdl --tile-layers 2" "--batch 4 --select side --decide device" \
        "--batch 2 --no-graph --select inline --repeat 2"; do
        # shellcheck disable=SC2086
        emu one.safetensors two.safetensors "${policies[@]}" --steps 0..6 $how --format json --check cpu.json >cuda.json
    done
    json '[(x["batch"], x["batch_of"], x["batch_member"]) for x in d[::5]]' <cuda.json |
        grep -qx "\[(2, 'sequences', 0), (2, 'sequences', 1), (2, 'sequences', 0), (2, 'sequences', 1)\]"
    json 'all(a["attention_ns"] == b["attention_ns"] for n in (0, 10) for a, b in zip(d[n:n + 5], d[n + 5:]))' <cuda.json |
        grep -qx True
    json '[a["attention_ns"] == b["attention_ns"] for a, b in zip(d[:5], d[10:])]' <cuda.json | grep -qx "\[False.*False\]"
    emu one.safetensors -p recycled:k=8,stride=3 --batch 2 --phase spread
}

@test "a batch of several sequences: stored and exported one by one, with what all of them ask of memory" {
    make_sequences
    run -0 --separate-stderr "$emulated" replay --backend cuda one.safetensors two.safetensors -p full -p streaming:k=8 \
        --batch 4 --db b.db --export sets
    [[ $stderr == *"one.safetensors, sequence 0; one.safetensors, sequence 1; two.safetensors, sequence 0;"*"in one batch, steps 0 to 6:"* ]]
    [[ $stderr == *"b.db: runs 1 2 3 4 5 6 7 8"* ]]
    tr '\n' ' ' <<<"$output" | grep -q "sequence 1, in one batch of 4 sequences, *whose time is told"
    [ "$(find sets -name 't[01]-*.safetensors' | wc -l)" -eq 8 ]
    [ "$(sqlite3 b.db "select group_concat(trace_path || seq || policy_id, ' ') from run" | tr ' ' '\n' | sort -u | wc -l)" -eq 8 ]
    [ "$(sqlite3 b.db "select config_json ->> '\$.batch_of[2].trace', config_json ->> '\$.batch_of[3].sequence' from run where id = 1")" = "two.safetensors|1" ]
    # each has its rows, of the prefill and seven steps of three layers; the passes of each are those of all
    [ "$(sqlite3 b.db "select count(*), min(n), max(n) from (select count(*) n from layer_step group by run_id)")" = "8|24|24" ]
    local of="select sum(v.value) from metric_value v join metric_def m on m.id = v.metric_id join pass p on p.id = v.pass_id
        where m.name = 'global_load_bytes' and p.run_id = "
    local together alone=0 seq
    together=$(sqlite3 b.db "$of 1" | cut -d. -f1)
    [ "$(sqlite3 b.db "$of 7" | cut -d. -f1)" = "$together" ]
    emu one.safetensors two.safetensors -p full --steps 0..6 --db one.db >/dev/null
    for seq in 1 2 3 4; do
        alone=$((alone + $(sqlite3 one.db "$of $seq" | cut -d. -f1)))
    done
    [ $((100 * together)) -lt $((103 * alone)) ] && [ $((100 * together)) -gt $((97 * alone)) ]
    "$emulated" report b.db | tr '\n' ' ' | grep -q "in one batch of 4 sequences"
}

@test "a batch of several sequences: refused where they do not fit together" {
    make_sequences
    run -2 --separate-stderr emu one.safetensors two.safetensors -p full --batch 3
    [[ $stderr == *"--batch 3: expected one sequence, to be decoded so many times at once, or a multiple of 3, to be decoded together; got 4"* ]]
    run -2 --separate-stderr emu one.safetensors -p full --batch 2 --ragged 0.2
    [[ $stderr == *"--ragged: expected one sequence, whose copies it cuts; got 2, of lengths of their own"* ]]
    run -2 --separate-stderr emu one.safetensors -p full --batch 2 --no-quality
    [[ $stderr == *"--batch of several sequences: needs the quality that --no-quality leaves out"* ]]
    run -2 --separate-stderr emu one.safetensors -p full --batch 2 --steps 0..7
    [[ $stderr == *"steps 0..7: expected a range within 0..6"* ]]
    run -2 --separate-stderr emu synth:case=integer,D=64,P=40,N=4 synth:case=integer,D=64,P=40,N=4,layers=3 -p full --batch 2
    [[ $stderr == *"layers=3: in a batch with synth:case=integer,D=64,P=40,N=4: expected its "*" layers"*", got 3 layers"* ]]
}

@test "checks of the query decided by the host, by the device, or known: the same steps" {
    local trace=synth:case=integer,D=64,P=64,N=14,layers=3 what how
    local policies=(-p recycled:k=12,stride=2,sim=0.0 -p recycled:k=12,stride=2,sim=0.0,attend=after
        -p recycled:k=12,stride=3,sim=0.05,query=post)
    for what in "" "--scores recompute" "--cache gather"; do
        # shellcheck disable=SC2086
        "$emulated" replay "$trace" "${policies[@]}" $what --backend cpu --repeat 1 -q --format json >cpu.json
        for how in "--decide host --no-graph --pdl" "--decide device --select side --pdl" \
            "--decide device --select inline --batch 2 --page 16"; do
            # shellcheck disable=SC2086
            emu "$trace" "${policies[@]}" $what $how --format json --check cpu.json >cuda.json
        done
    done
    json 'all(x["decide"] == "device" and 0 < x["full_layer_steps"] < x["steps"] * 3 / 2 for x in d)' <cuda.json |
        grep -qx True
    # what is left out is launched, and reads next to nothing
    local bytes=() launches=() modes=()
    for how in known host device; do
        rm -f d.db
        emu "$trace" "${policies[@]:0:2}" --decide $how --db d.db >/dev/null
        modes+=("$(sqlite3 d.db "select launch_mode from run where config_json ->> 'decide' = '$how' limit 1")")
        local sum="select cast(sum(v.value) as integer) from metric_value v
            join metric_def m on m.id = v.metric_id where m.name = "
        launches+=("$(sqlite3 d.db "$sum 'launches'")") bytes+=("$(sqlite3 d.db "$sum 'global_load_bytes'")")
    done
    [ "${modes[*]}" = "step-graph layer-graphs step-graph" ]
    [ "${launches[2]}" -gt $((launches[1] + 50)) ] && [ "${launches[1]}" -le "${launches[0]}" ]
    [ $((100 * bytes[2])) -lt $((102 * bytes[1])) ] && [ $((100 * bytes[1])) -lt $((102 * bytes[2])) ]
    run -2 --separate-stderr "$emulated" replay "$trace" -p full --decide device
    [[ $stderr == *"--decide: expected --backend cuda beside it, got cpu"* ]]
}

@test "layers laid out several times: a tile does what the first does, however steps are launched" {
    local trace=synth:case=integer,D=64,P=40,N=8,layers=2 how
    local policies=(-p full -p recycled:k=12,stride=4 -p recycled:k=12,stride=4,sim=0.9
        -p recycled:k=12,stride=4,share=1 -p oracle:k=12 -p streaming:k=12)
    "$emulated" replay "$trace" "${policies[@]}" --backend cpu --repeat 1 -q --format json >cpu.json
    emu "$trace" "${policies[@]}" --format json >one.json
    for how in "--batch 2 --select inline" "--page 16 --pdl" "--select side --no-graph"; do
        # shellcheck disable=SC2086
        emu "$trace" "${policies[@]}" $how --tile-layers 3 --format json --check cpu.json >cuda.json
        [ "$(json '[x["output_hash"] for x in d]' <cuda.json)" = "$(json '[x["output_hash"] for x in d]' <one.json)" ]
        json 'all(x["tile_layers"] == 3 for x in d)' <cuda.json | grep -qx True
    done
    "$emulated" replay "$trace" "${policies[@]:0:4}" --cache gather --backend cpu --repeat 1 -q --format json >cpu.json
    emu "$trace" "${policies[@]:0:4}" --cache gather --tile-layers 2 --db t.db --format json --check cpu.json >cuda.json
    # what is asked of memory grows with the layers
    emu "$trace" "${policies[@]:0:4}" --cache gather --db one.db >/dev/null
    local sum="select cast(sum(v.value) as int) from metric_value v join metric_def m on m.id = v.metric_id where m.name = "
    local one two
    one=$(sqlite3 one.db "$sum 'global_load_bytes'") two=$(sqlite3 t.db "$sum 'global_load_bytes'")
    awk -v one="$one" -v two="$two" 'BEGIN { exit !(two > 1.9 * one && two < 2.1 * one) }'
    "$emulated" report t.db | grep -q "laid out 2 times"
    emu synth:case=drift,D=64,P=96,N=10,layers=3,window=16 -p recycled:k=16,stride=4 --tile-layers 2
}

@test "copies that differ: full steps spread, lengths ragged, each held to its own reference" {
    local trace=synth:case=integer,D=64,P=40,N=9 what how
    local policies=(-p full -p recycled:k=1/5,stride=4 -p recycled:k=8,stride=4,attend=after
        -p recycled:k=8,stride=2,sim=0.9,share=0 -p oracle:k=8 -p streaming:k=8,stride=4)
    differ() { # OPTIONS of replay: cuda's alone
        # shellcheck disable=SC2086
        emu "$trace" "${policies[@]}" $what "$@" --format json --check cpu.json >cuda.json
    }
    for what in "" "--scores recompute" "--cache gather"; do
        # shellcheck disable=SC2086
        "$emulated" replay "$trace" "${policies[@]}" $what --backend cpu --repeat 1 -q --format json >cpu.json
        differ --batch 3 --phase spread --ragged 0.5 --page 16 --repeat 2
    done
    what="--cache gather"
    differ --batch 2 --phase spread --pdl --select side --tile-layers 2
    differ --batch 3 --phase spread --ragged 0.2 --decide device --select side
    differ --batch 4 --phase spread
    differ --batch 3 --ragged 0.3 --no-graph --select inline
    differ --batch 3 --phase spread --decide host
    json '{(x["batch"], x["phase"], x["ragged"]) for x in d}' <cuda.json | grep -qx "{(3, 'spread', 0.0)}"
    emu synth:case=drift,D=64,P=64,N=6,layers=3,window=16 -p recycled:k=16,stride=4 --batch 3 --phase spread --ragged 0.5
    emu "$sample" --layers 9 --steps 0..7 -p recycled:k=64,stride=4 --batch 3 --phase spread --ragged 0.1 --export x.safetensors
    [ -s x.safetensors ]
}

@test "copies that differ: what a store holds of them, and what their steps ask of memory" {
    local trace=synth:case=integer,D=64,P=400,N=16 policy=recycled:k=16,stride=8 how
    for how in aligned spread; do
        emu "$trace" -p $policy --batch 4 --phase $how --db $how.db >$how.txt
    done
    emu "$trace" -p full --batch 5 --ragged 0.5 --db ragged.db >ragged.txt
    emu "$trace" -p full --batch 5 --db even.db >/dev/null
    # rows are of the first copy alone
    for table in layer_step retained; do
        [ "$(sqlite3 spread.db "select count(*) from $table")" = "$(sqlite3 aligned.db "select count(*) from $table")" ]
    done
    [ "$(sqlite3 spread.db "select config_json ->> 'phase', config_json ->> 'ragged', result_json ->> 'phase' from run")" = "spread|0.0|spread" ]
    [ "$(sqlite3 ragged.db "select config_json ->> 'phase', config_json ->> 'ragged' from run")" = "aligned|0.5" ]
    # as many full steps in all, but never all copies' at once
    local bytes="select cast(SUM(v) as integer) from (select sum(v.value) v from metric_value v join metric_def m on
        m.id = v.metric_id join scope s on s.id = v.scope_id where m.name = 'global_load_bytes' and s.step >= 0 group by s.step)"
    one=$(sqlite3 aligned.db "${bytes/SUM/sum}") two=$(sqlite3 spread.db "${bytes/SUM/sum}")
    [ $((100 * two)) -lt $((105 * one)) ] && [ $((100 * two)) -gt $((95 * one)) ]
    one=$(sqlite3 aligned.db "${bytes/SUM/max}") two=$(sqlite3 spread.db "${bytes/SUM/max}")
    [ $((2 * two)) -lt "$one" ]
    # lengths from 400 to 200: three quarters of what is read
    one=$(sqlite3 even.db "${bytes/SUM/sum}") two=$(sqlite3 ragged.db "${bytes/SUM/sum}")
    [ $((100 * two)) -lt $((77 * one)) ] && [ $((100 * two)) -gt $((74 * one)) ]
    tr '\n' ' ' <spread.txt | grep -q "4 copies of one trace, *full steps spread"
    tr '\n' ' ' <ragged.txt | grep -q "5 copies of one trace, *lengths down to 50 %"
    ! grep -q "spread\|lengths" aligned.txt
}

@test "copies that differ: refused without quality, or where one is too short" {
    local trace=synth:case=integer,D=64,P=40,N=4
    run -2 --separate-stderr emu "$trace" -p full --batch 2 --phase spread --no-quality
    [[ $stderr == *"--phase spread: needs the quality that --no-quality leaves out"* ]]
    run -2 --separate-stderr emu "$trace" -p full --batch 2 --ragged 0.5 --no-quality
    [[ $stderr == *"--ragged: needs the quality that --no-quality leaves out"* ]]
    run -2 --separate-stderr emu "$trace" -p full --batch 1 --ragged 0.5
    [[ $stderr == *"--ragged: expected --batch of more than 1 beside it, got 1"* ]]
    run -2 --separate-stderr emu "$trace" -p streaming:k=30,sinks=25 --batch 2 --ragged 0.5
    [[ $stderr == *"copy 1, of 20 prompt tokens: streaming: sinks: expected at most the prompt's 20, got 25"* ]]
}

@test "transformed rows: the cpu backend's sets and counts, of copies, tiles and gathered caches too" {
    local trace=synth:case=drift,D=64,P=96,N=12,layers=2 how
    local policies=(-p full+int8 -p recycled:k=24,stride=4+kvquant:bits=3
        -p recycled:k=24,stride=4,sim=0.9+fp8)
    "$emulated" replay "$trace" "${policies[@]}" --backend cpu --repeat 1 -q --format json >cpu.json
    for how in "" "--batch 3" "--batch 3 --phase spread" "--batch 3 --ragged 0.3" "--tile-layers 2" "--no-graph"; do
        # shellcheck disable=SC2086
        emu "$trace" "${policies[@]}" $how --format json --check cpu.json >cuda.json
    done
    "$emulated" replay "$trace" "${policies[@]}" --cache gather --scores recompute --backend cpu --repeat 1 -q --format json >cpu.json
    emu "$trace" "${policies[@]}" --cache gather --scores recompute --check cpu.json
}
