#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Profiles of the cpu backend: passes beside the bare ones, whose sums are checked by SQL; counters are
# the kernel's, where it grants any, and those of perf_tool.c, whose every reading is known.

load common

trace=synth:case=drift,D=64,P=96,N=6,layers=3,window=16
schedules=(-p full -p recycled:k=16,stride=3)
events="cpu_context_switches cpu_cycles cpu_instructions cpu_llc_load_misses cpu_llc_loads cpu_page_faults"
eval "common_$(declare -f setup)"

setup_file() {
    export tool=$BATS_FILE_TMPDIR/tool.so
    gcc -std=c17 -D_GNU_SOURCE -Wall -Wextra -Werror -shared -fPIC -o "$tool" "$BATS_TEST_DIRNAME/perf_tool.c" -ldl
}

setup() {
    common_setup
    rm -f s.db
}

profile() { # WHAT ARGUMENTS of replay
    "$rattn" replay "$trace" --repeat 2 --db s.db --profile "$@"
}

counted() { # CODE WHAT ARGUMENTS of replay: events are the tool's, or all refused
    PERF_TOOL=$1 LD_PRELOAD=$tool ASAN_OPTIONS=${ASAN_OPTIONS-}:verify_asan_link_order=0 \
        "$rattn" replay "$trace" --repeat 2 --db s.db --profile "${@:2}"
}

sql() {
    sqlite3 s.db "$1"
}

value_of="metric_value v join metric_def m on m.id = v.metric_id join scope s on s.id = v.scope_id join pass p on p.id = v.pass_id"

@test "--profile all: a timing and a counter pass beside the bare ones, and the same output" {
    counted 0 all "${schedules[@]}" -q >/dev/null
    for run in 1 2; do
        [ "$(sql "select group_concat(mode || ':' || state, ' ') from (select * from pass where run_id = $run order by ordinal)")" = \
            "bare:complete bare:complete timing:complete counter:complete" ]
    done
    [ "$(sql "select group_concat(distinct metric_set) from pass")" = perf ]
    sql "select policy_id, fingerprint, output_hash from run order by id" >profiled
    rm s.db
    "$rattn" replay "$trace" "${schedules[@]}" --repeat 1 -q --db s.db >/dev/null
    [ "$(sql "select policy_id, fingerprint, output_hash from run order by id")" = "$(cat profiled)" ]
}

@test "a timing pass: the operations of the bare passes, timed anew between the pass's clocks, and no kernels" {
    profile timing "${schedules[@]}" -q >/dev/null
    [ "$(sql "select count(*) from pass where mode = 'timing' and state = 'complete' and launches_expected = 0 and kernels_recorded = 0
        and t0_realtime_ns > 0 and t1_realtime_ns > t0_realtime_ns and t0_cupti_ns is null and metric_set is null")" = 2 ]
    [ "$(sql "select count(*) from kernel")" = 0 ]
    [ "$(sql "select count(*) from pass where mode = 'counter'")" = 0 ]
    sql "select count(*), min(e.host_start_ns between p.t0_monotonic_ns and p.t1_monotonic_ns),
        min(e.host_end_ns between e.host_start_ns and p.t1_monotonic_ns) from scope_exec e join pass p on p.id = e.pass_id
        where p.mode = 'timing'" >timed
    [ "$(cut -d'|' -f2,3 timed)" = "1|1" ]
    # scope by scope those of the first bare pass, under its own stamps
    [ "$(sql "select count(*) from scope_exec a join pass p on p.id = a.pass_id and p.mode = 'timing' join pass b on b.run_id = p.run_id
        and b.ordinal = 0 join scope_exec c on c.pass_id = b.id and c.scope_id = a.scope_id and c.host_start_ns < a.host_start_ns
        join scope s on s.id = a.scope_id and s.kind = 'op' and s.run_id = p.run_id")" = "$(cut -d'|' -f1 timed)" ]
    [ "$(sql "select count(*) from scope_exec e join pass p on p.id = e.pass_id where p.ordinal = 0")" = "$(cut -d'|' -f1 timed)" ]
}

@test "counters of operations: what each reading adds, scaled where a counter was shared" {
    counted 0 counters "${schedules[@]}" --granularity op -q >/dev/null
    [ "$(sql "select group_concat(x, ' ') from (select m.name || '=' || min(v.value) || '..' || max(v.value) x from $value_of
        group by m.name order by 1)")" = "cpu_context_switches=1.0..1.0 cpu_cycles=3600.0..3600.0 cpu_instructions=500.0..500.0 \
cpu_llc_load_misses=7.0..7.0 cpu_llc_miss_bytes=448.0..448.0 cpu_page_faults=3.0..3.0" ]
    # a value for each operation that the bare passes timed
    [ "$(sql "select count(*) from (select p.run_id, m.name, count(*) n from $value_of where s.kind = 'op' group by 1, 2) a where a.n =
        (select count(*) from scope_exec e join pass p on p.id = e.pass_id where p.ordinal = 0 and p.run_id = a.run_id)")" = 12 ]
    [ "$(sql "select group_concat(distinct chip) from metric_def")" = cpu ]
    # loads never had a counter, cycles in a quarter of the time
    [ "$(sql "select count(*) from diagnostic where severity = 'info' and message like 'counter pass: cpu_llc_loads had a counter in 0.0 %'")" = 2 ]
    [ "$(sql "select count(*) from diagnostic where message like 'counter pass: cpu_cycles had a counter in 25.0 %'")" = 2 ]
    [ "$(sql "select count(*) from diagnostic where message like '%had a counter in%'")" = 4 ]
    # each operation is read twice: 2n + 1 readings lie between the first and the last of the pass
    n=$(sql "select count(*) from scope_exec e join pass p on p.id = e.pass_id where p.ordinal = 0 and p.run_id = 2")
    [ "$(sql "select count(*) from diagnostic where run_id = 2 and message = 'counter pass: cpu_page_faults: $((3 * n)) in operations, $((3 * (2 * n + 1))) in the whole pass'")" = 1 ]
}

@test "counters of layers and steps: sums of their operations" {
    local how
    for how in step layer; do
        rm -f s.db
        counted 0 counters "${schedules[@]}" --tile-layers 2 --granularity $how -q >/dev/null
        [ "$(sql "select group_concat(distinct s.kind) from $value_of")" = $how ]
        # instructions of a scope: 500 for each operation that a bare pass timed in it
        sql "select s.run_id, s.step, iif('$how' = 'layer', s.layer, null), v.value from $value_of where m.name = 'cpu_instructions'
            order by 1, 2, 3" >values
        sql "select s.run_id, s.step, iif('$how' = 'layer', s.layer, null) l, 500.0 * count(*) from scope_exec e join scope s on
            s.id = e.scope_id join pass p on p.id = e.pass_id where p.ordinal = 0 group by 1, 2, 3 order by 1, 2, 3" >expected
        [ "$(wc -l <values)" -ge 13 ]
        diff values expected
    done
}

@test "steps that are not counted are not counted here either" {
    counted 0 counters "${schedules[@]}" --steps 2..4 -q >/dev/null
    [ "$(sql "select group_concat(distinct s.step) from (select * from scope order by step) s join metric_value v on v.scope_id = s.id where run_id = 2")" = "-1,2,3,4" ]
    [ "$(sql "select sum(v.value) from $value_of where m.name = 'cpu_page_faults'")" = \
        "$(sql "select 3.0 * count(*) from scope_exec e join pass p on p.id = e.pass_id where p.ordinal = 0")" ]
}

@test "what the kernel here grants: an event has values, which sum up to its pass's total, or its reason" {
    profile counters "${schedules[@]}" --granularity op -j 2 2>err >/dev/null
    [ "$(sql "select count(*) from metric_value where value < 0")" = 0 ]
    local n=0
    for event in $events; do
        if [ "$(sql "select count(*) from diagnostic where run_id = 1 and message like '$event is not counted: %'")" = 1 ]; then
            [ "$(sql "select count(*) from metric_def where name = '$event'")" = 0 ]
            [ "$(grep -c "^$event is not counted: " err)" = 1 ] # once, of two schedules
            n=$((n + 1))
        else
            [ "$(grep -c "^$event is" err)" = 0 ]
            # what a counter was missing for is told, not summed
            [ "$(sql "select count(*) from diagnostic where run_id = 1 and message like 'counter pass: $event %had a counter in%'")" = 0 ] || continue
            total=$(sql "select sum(v.value) from $value_of where m.name = '$event' and p.run_id = 1")
            [ "$(sql "select count(*) from diagnostic where run_id = 1 and message like 'counter pass: $event: ' || printf('%.0f', $total) || ' in operations, %'")" = 1 ]
        fi
    done
    [ "$(sql "select count(*) from pass where mode = 'counter' and state = 'complete'")" = $((n == 6 ? 0 : 2)) ]
    [ "$(sql "select group_concat(distinct state) from run")" = complete ]
}

@test "where every event is refused the replay completes without a counter pass, and says why" {
    local code words
    while read -r code words; do
        rm -f s.db
        run -0 --separate-stderr counted "$code" all "${schedules[@]}"
        for event in $events; do
            [ "$(grep -c "^$event is not counted: .*$words" <<<"$stderr")" = 1 ]
        done
        [ "$(sql "select group_concat(distinct mode) from pass")" = bare,timing ]
        [ "$(sql "select group_concat(distinct state) from (select state from run union select state from pass)")" = complete ]
        [ "$(sql "select count(*) from diagnostic where severity = 'info' and source = 'profile' and message like '%not counted: %$words%; %'")" = 12 ]
        [ "$(sql "select count(*) from metric_value") $(sql "select count(*) from metric_def")" = "0 0" ]
    done <<'CODES'
2 not supported by this processor or virtual machine (ENOENT)
95 not supported by this processor or virtual machine (EOPNOTSUPP)
38 this kernel counts nothing (ENOSYS)
13 not permitted (EACCES)
CODES
    run -0 --separate-stderr counted 2 counters "${schedules[@]}" -q
    [ -z "$stderr" ]
}

@test "doctor tells what can be counted, and how to count the rest" {
    PERF_TOOL=0 LD_PRELOAD=$tool ASAN_OPTIONS=${ASAN_OPTIONS-}:verify_asan_link_order=0 run -0 "$rattn" doctor --format json
    [ "$(json '[(r["state"], sorted(r["found"].split(", ")), r["fix"]) for r in d if r["check"] == "perf counters"]' <<<"$output")" = \
        "[('ok', $(python3 -c 'import sys; print(sys.argv[1].split())' "$events"), None)]" ]
    PERF_TOOL=13 LD_PRELOAD=$tool ASAN_OPTIONS=${ASAN_OPTIONS-}:verify_asan_link_order=0 run -0 "$rattn" doctor --format json
    [ "$(json '[(r["state"], r["found"][:9], "(EACCES)" in r["found"], "perf_event" in r["fix"]) for r in d if r["check"] == "perf counters"]' <<<"$output")" = \
        "[('missing', 'none; not', True, True)]" ]
}

@test "a profile needs a store and a backend that takes time; choosing counters, a GPU" {
    run -2 --separate-stderr "$rattn" replay "$trace" -p full --profile timing
    [[ $stderr == *"--profile: expected --db FILE beside it"* ]]
    run -2 --separate-stderr profile timing -p full --backend null
    [[ $stderr == *"--profile: expected --backend cpu or cuda beside it, got null"* ]]
    run -2 --separate-stderr profile counters -p full --counters core
    [[ $stderr == *"--counters: expected --backend cuda beside it, got cpu"* ]]
    run -2 --separate-stderr profile timing -p full --granularity op
    [[ $stderr == *"--granularity: expected --profile counters or all beside it"* ]]
    [ ! -e s.db ]
}

@test "report and export read what the passes left" {
    counted 0 all "${schedules[@]}" -q >/dev/null
    "$rattn" report s.db -o r.html -q
    grep -q "counts of perf" r.html
    "$rattn" report s.db >/dev/null
    "$rattn" export s.db --run 2 --as perfetto >p.json
    [ "$(json 'sorted({e["name"] for e in d["traceEvents"] if e["ph"] == "C" and e["name"].startswith("cpu_page")})' <p.json)" = "['cpu_page_faults (faults)']" ]
    "$rattn" export s.db --run 2 --as nsys -o n.sqlite
    [ "$(sqlite3 n.sqlite "select count(*) > 0 from NVTX_EVENTS")" = 1 ]
}
