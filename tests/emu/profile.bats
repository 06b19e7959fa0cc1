#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Passes with a profiler on: the product finds doubles of CUPTI and the driver by their names and runs
# its live path on them; every record is of a kernel that the emulation ran. Times are synthetic.

load emulated

trace=synth:case=drift,D=64,P=96,N=6,layers=3,window=16
schedules=(-p full -p recycled:k=16,stride=3)

need_fake() {
    fake=$(realpath "$(dirname "$emulated")/../fake_cupti")
    [ -e "$fake/libcupti.so.13" ] || fake=$root/build/release/fake_cupti
    [ -e "$fake/libcupti.so.13" ] || skip "no headers of CUPTI"
}

profile() { # WHAT ARGUMENTS of replay
    LD_LIBRARY_PATH=$fake "$emulated" replay "$trace" --backend cuda --repeat 1 -q --db s.db --profile "$@"
}

sql() {
    sqlite3 s.db "$1"
}

@test "a timing pass: every kernel of every step, in its step, layer and operation, however launched" {
    need_fake
    local how
    for how in "" "--no-graph" "--select side" "--select inline --pdl" "--decide device" "--decide host"; do
        rm -f s.db
        # shellcheck disable=SC2086
        profile timing "${schedules[@]}" -p recycled:k=16,stride=2,sim=0.9 $how >/dev/null
        [ "$(sql "select group_concat(mode || ':' || state, ' ') from (select * from pass where run_id = 2 order by id)")" = "bare:complete counter:complete timing:complete" ]
        # none is missing, as the replayer counted them, and each is placed
        [ "$(sql "select count(*) from pass where mode = 'timing' and launches_expected = kernels_recorded and records_dropped = 0
            and kernels_zero_time = 0 and launches_expected = (select count(*) from kernel k where k.pass_id = pass.id)")" = 3 ]
        [ "$(sql "select count(*) from kernel k left join scope s on s.id = k.scope_id where s.kind is not 'op' or s.run_id is not
            (select run_id from pass p where p.id = k.pass_id)")" = 0 ]
        # as many as the emulation counted in the same steps (memory is counted in a pass of its own)
        [ "$(sql "select count(*) from (select s.step, count(*) n, p.run_id from kernel k join scope s on s.id = k.scope_id
            join pass p on p.id = k.pass_id group by 3, 1) a join (select s.step, v.value n, s.run_id from metric_value v
            join metric_def m on m.id = v.metric_id join scope s on s.id = v.scope_id where m.name = 'launches') b
            on a.step = b.step and a.run_id = b.run_id and a.n = b.n")" = 20 ] # nothing chooses in the prefill of full
        # each layer appends once a step
        [ "$(sql "select group_concat(distinct layers) from (select group_concat(s.layer) layers from (select s.layer, s.step, k.pass_id from kernel k
            join scope s on s.id = k.scope_id join string_ids o on o.id = s.name_id where o.value = 'append' order by 3, 2, 1) s group by pass_id, step)")" = "0,1,2" ]
        # operations run what they are called by
        [ "$(sql "select group_concat(x, ' ') from (select distinct o.value || '=' || n.value x from kernel k join scope s on
            s.id = k.scope_id join string_ids o on o.id = s.name_id join string_ids n on n.id = k.name_id where
            o.value in ('append', 'evict', 'refresh', 'cosine') order by 1)")" = "append=append_rows cosine=query_cosine evict=insert_evict refresh=move_rows refresh=plan_refresh" ]
    done
    # graphs were launched, and their nodes have ids beyond what a signed number holds
    rm -f s.db
    profile timing "${schedules[@]}" >/dev/null
    [ "$(sql "select min(graph_node_id < 0), min(graph_id > 0) from kernel")" = "1|1" ]
    rm -f s.db
    profile timing "${schedules[@]}" --no-graph >/dev/null
    [ "$(sql "select count(*) from kernel where graph_node_id is not null or graph_id is not null")" = 0 ]
}

@test "the embedded recording, profiled: report and exports read what the passes left" {
    need_fake
    trace=$sample
    profile timing -p recycled:k=64,stride=8 --layers 9 --steps 0..8 >table.txt
    grep -q "synthetic" table.txt
    [ "$(sql "select state, launches_expected = kernels_recorded from pass where mode = 'timing'")" = "complete|1" ]
    [ "$(sql "select count(distinct s.step) from kernel k join scope s on s.id = k.scope_id")" = 10 ]
    "$emulated" report s.db >/dev/null
    "$emulated" report s.db -q -o page.html
    python3 - <<'PYTHON'
import html, re, sqlite3
text = open("page.html").read()
section = re.sub(r"<details.*?</details>", "", text[text.index('id="kernels"'):text.index('id="worst"')], flags=re.S)
rows = [[html.unescape(re.sub(r"<[^>]+>", "", c)) for c in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", r, re.S)]
        for r in re.findall(r"<tr>(.*?)</tr>", section, re.S)]
kernels, gaps = [r for r in rows if len(r) == 8 and r[2] == "attend"], [r for r in rows if r[2] == "9"]
ask = sqlite3.connect("s.db").execute
of = "from kernel k join scope s on s.id = k.scope_id join string_ids n on n.id = k.name_id where s.step >= 0"
n, ns = ask("select count(*), sum(end_ns - start_ns) %s and n.value = 'decode_split'" % of).fetchone()
total, = ask("select sum(end_ns - start_ns) %s" % of).fetchone()
assert kernels[0][3:] == ["decode_split", "%.1f" % (n / 9), "%.2f" % (ns / 1e3 / n), "%.2f" % (ns / 9e3), "%.1f" % (100 * ns / total)], rows
span, = ask("select avg(x) from (select max(end_ns) - min(start_ns) x %s group by s.step)" % of).fetchone()
assert len(gaps) == 1 and gaps[0][4:6] == ["%.2f" % (span / 1e3), "%.2f" % (total / 9e3)], gaps
PYTHON
    "$emulated" export s.db --run 1 --as perfetto >p.json
    [ "$(json 'sum(e.get("ph") == "X" and e.get("name") == "decode_split" for e in d["traceEvents"]) >= 9' <p.json)" = True ]
    "$emulated" export s.db --run 1 --as nsys -o n.sqlite
    [ "$(sqlite3 n.sqlite "select count(*) from CUPTI_ACTIVITY_KIND_KERNEL k join StringIds n on n.id = k.demangledName where n.value = 'append_rows'")" = 9 ]
    [ "$(sql "select d.name, d.chip, d.cc_major, d.uuid like 'GPU-5a5a5a5a-5a5a-%', d.mem_bytes from device d join pass p on p.device_id = d.id")" = \
        "emulated on the host|GH100|9|1|1073741824" ]
    # calls and copies came with it, and clocks to place them by
    [ "$(sql "select min(t0_cupti_ns > 0 and t1_cupti_ns > t0_cupti_ns and t0_monotonic_ns > 0) from pass where mode = 'timing'")" = 1 ]
    [ "$(sql "select count(*) > 0 from api_call")" = 1 ]
}

@test "kernels have the name to read, and beside it the one that was recorded" {
    need_fake
    RA_FAKE_CUPTI=mangle=1 profile timing "${schedules[@]}" >/dev/null
    sql "select distinct m.value, n.value from kernel k join string_ids n on n.id = k.name_id join string_ids m on m.id = k.mangled_id order by 1" >pairs
    grep -qx "_Z11append_rowsPfi|append_rows(float\*, int)" pairs
    cut -d'|' -f1 pairs | c++filt | diff - <(cut -d'|' -f2 pairs)
    [ "$(sql "select count(*) from kernel where mangled_id is null")" = 0 ]
    "$emulated" export s.db --run 2 --as nsys -q -o n.sqlite
    names="select distinct m.value, d.value from CUPTI_ACTIVITY_KIND_KERNEL k join StringIds m on m.id = k.mangledName
        join StringIds d on d.id = k.demangledName join StringIds s on s.id = k.shortName order by 1"
    sqlite3 n.sqlite "$names" | diff - pairs
    sql "$names" | diff - pairs # the view in the store
    # where names are C's, both are the same
    rm s.db
    profile timing -p full >/dev/null
    [ "$(sql "select count(*) > 0, min(mangled_id = name_id) from kernel")" = "1|1" ]
}

@test "what is lost is counted and told, and the pass is incomplete" {
    need_fake
    RA_FAKE_CUPTI=lose=7 profile timing "${schedules[@]}" >/dev/null
    [ "$(sql "select group_concat(state || ':' || (launches_expected - kernels_recorded > 0), ' ') from pass where mode = 'timing'")" = "incomplete:1 incomplete:1" ]
    [[ $(sql "select message from diagnostic limit 1") == "timing pass: "*" of "*" kernels recorded, 0 records dropped, 0 kernels without a time,"* ]]
    rm -f s.db
    RA_FAKE_CUPTI=zero=5 profile timing -p full >/dev/null
    [ "$(sql "select state, kernels_zero_time > 0, kernels_zero_time = (select count(*) from kernel where start_ns is null) from pass where mode = 'timing'")" = "incomplete|1|1" ]
    rm -f s.db
    RA_FAKE_CUPTI=dropped=3 profile timing -p full >/dev/null
    [ "$(sql "select state, records_dropped from pass where mode = 'timing'")" = "incomplete|3" ]
    [ "$(sql "select state from run")" = complete ]
}

@test "what watches keeps the host: steps that are late for it alone keep their times, and say what it costs" {
    need_fake
    RA_EMU_LATE=..d..c. profile timing "${schedules[@]}" >/dev/null
    [ "$(sql "select p.mode, count(*), count(e.event_us) from scope_exec e join pass p on p.id = e.pass_id join scope s on s.id = e.scope_id
        where s.kind = 'step' and s.step >= 0 and p.run_id = 2 group by 1")" = "bare|6|3
timing|6|6" ]
    "$emulated" report s.db -q -o page.html
    over=$(sql "select printf('%.3f', avg(e.event_us) filter (where mode = 'timing') / avg(e.event_us) filter (where mode = 'bare'))
        from scope_exec e join pass p on p.id = e.pass_id join scope s on s.id = e.scope_id where s.step >= 0 and p.run_id = 2")
    grep -q ">$over</td>" page.html
}

@test "what the gate finds ends the command: 3 where it is missing, 5 where it is not permitted" {
    need_fake
    RA_FAKE_CUPTI=cuptiSubscribe_v2=39,other=Nsight run -3 --separate-stderr profile timing -p full
    [[ $stderr == *"cuda: another CUPTI tool (Nsight) is attached (CUPTI error 39); run without nsys or ncu, or with --profile off"* ]]
    RA_FAKE_CUINIT=100 run -3 --separate-stderr profile timing -p full
    [[ $stderr == *"cuda: no GPU found, one NVIDIA device is needed; "* ]]
    RA_FAKE_CUPTI=cuptiProfilerGetCounterAvailability=35 run -5 --separate-stderr profile counters -p full
    [[ $stderr == *"cuda: GPU performance counters are restricted on this machine (CUPTI error 35); timing still works"*"CUPTI_ERROR_INSUFFICIENT_PRIVILEGES" ]]
    for code in 43 46; do
        RA_FAKE_CUPTI=cuptiProfilerGetCounterAvailability=$code run -3 --separate-stderr profile all -p full
        [[ $stderr == *"(CUPTI error $code); "*"--profile timing" ]]
    done
    [ ! -e s.db ]
    # who may not count may time
    RA_FAKE_CUPTI=cuptiProfilerGetCounterAvailability=35 profile timing -p full >/dev/null
    [ "$(sql "select state from pass where mode = 'timing'")" = complete ]
}

# A process that holds the lock of this folder's card, until it is ended; it says so on its stdout.
hold_card() { # FILE [SIGNATURE]
    python3 - "$@" <<'PYTHON'
import fcntl, os, struct, sys, time
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o666)
os.write(file, (sys.argv[2] if len(sys.argv) > 2 else "%d 2001-02-03 04:05:06 UTC\n" % os.getpid()).encode())
fcntl.fcntl(file, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
print(os.getpid(), flush=True)
time.sleep(60)
PYTHON
}

teardown() { # nothing of a test that failed is left stopped
    if [ -n "${stopped:-}" ]; then
        kill -KILL "$stopped" 2>/dev/null || true
    fi
}

held_by() { # the pid that hold_card says, once it does
    for _ in $(seq 300); do
        [ -s holder ] && break
        sleep 0.1
    done
    cat holder
}

@test "a GPU has one profiler: the second is told who has it, and since when; who died has nothing" {
    need_fake
    local lock
    profile timing -p full >/dev/null
    lock=/tmp/rattn-sim.$(sql "select uuid from device").lock
    [ ! -e "$lock" ] # gone with its holder
    # two of the product: one at its work, stopped there, and one more
    profile all "${schedules[@]}" -p recycled:k=8,stride=2 >/dev/null 3>&- &
    for _ in $(seq 300); do
        [ -s "$lock" ] && break
        sleep 0.05
    done
    stopped=$(cut -d' ' -f1 "$lock")
    kill -STOP "$stopped"
    run -3 --separate-stderr profile timing -p full --db second.db
    [[ $stderr == *"cuda: another process profiles GPU-5a5a5a5a-5a5a-"*": pid $stopped holds $lock since $(date -u +%Y-)"*" UTC; wait for its end, or use --profile off"* ]]
    [ ! -e second.db ]
    # what does not profile does not mind
    "$emulated" replay "$trace" --backend cuda --repeat 1 -q -p full --db second.db >/dev/null
    LD_LIBRARY_PATH=$fake "$emulated" replay "$trace" --backend cuda --profile all -q -p full --db third.db --dry-run >/dev/null
    # killed, it holds nothing, though its file is there
    kill -KILL "$stopped"
    wait || true
    [ -e "$lock" ]
    profile timing -p full --db second.db >/dev/null
    [ ! -e "$lock" ]
    # another's word for itself is not trusted to be one
    hold_card "$lock" "not a number" >holder 3>&- &
    stopped=$(held_by)
    run -3 --separate-stderr profile timing -p full --db second.db
    [[ $stderr == *"cuda: another process profiles GPU-"*" and holds $lock; wait"* ]]
    kill "$stopped"
    rm "$lock"
}

@test "a name that is set as a trap in the folder of locks is not written to" {
    need_fake
    local lock
    profile timing -p full >/dev/null
    lock=/tmp/rattn-sim.$(sql "select uuid from device").lock
    echo mine >mine
    ln -s "$PWD/mine" "$lock"
    run -1 --separate-stderr profile timing -p full --db second.db
    rm "$lock"
    [[ $stderr == *"cannot be locked against other profilers: $lock: "*"use --profile off"* ]]
    if ln mine "$lock"; then # one file system
        run -1 --separate-stderr profile timing -p full --db second.db
        rm "$lock"
        [[ $stderr == *"$lock: Too many links; "* ]]
    fi
    mkfifo "$lock"
    run -1 --separate-stderr profile timing -p full --db second.db
    rm "$lock"
    [[ $stderr == *"$lock: Invalid argument; "* ]]
    [ "$(cat mine)" = mine ]
    # anyone may take it after its maker died
    (umask 077 && profile timing -p full --db second.db >/dev/null) 3>&- &
    for _ in $(seq 300); do
        [ -s "$lock" ] && break
        sleep 0.02
    done
    [ "$(stat -c %a "$lock")" = 666 ]
    wait
}

@test "a profile needs a store and a backend that takes time, and leaves CUPTI to a tool that has it" {
    run -2 --separate-stderr "$emulated" replay "$trace" -p full --backend cuda --profile timing
    [[ $stderr == *"--profile: expected --db FILE beside it"* ]]
    run -2 --separate-stderr "$emulated" replay "$trace" -p full --backend null --profile timing --db s.db
    [[ $stderr == *"--profile: expected --backend cpu or cuda beside it, got null"* ]]
    NSYS_PROFILING_SESSION_ID=1 run -0 --separate-stderr "$emulated" replay "$trace" -p full --backend cuda --repeat 1 --profile timing --db s.db
    [[ $stderr == *"running under nsys: its are the records, ours the NVTX ranges"* ]]
    [ "$(sql "select count(*) from pass where mode = 'timing'")" = 0 ]
}

# Bytes that a pass says were read from DRAM, of a run's steps: "step value" in order.
read_of() { # RUN METRIC_SET
    sql "select s.step, sum(v.value) from metric_value v join metric_def m on m.id = v.metric_id join scope s on s.id = v.scope_id
        join pass p on p.id = v.pass_id where p.run_id = $1 and p.metric_set = '$2' and m.name in ('dram_read_bytes', 'global_load_bytes')
        group by 1 order by 1"
}

@test "counter passes: three sets, each the bytes that the emulation counts, by step, layer and operation" {
    need_fake
    local set how kind
    profile all "${schedules[@]}" >/dev/null
    [ "$(sql "select group_concat(mode || ':' || coalesce(metric_set, '') || ':' || state, ' ') from (select * from pass where run_id = 2 order by ordinal)")" = \
        "bare::complete counter:emu-count:complete timing::complete counter:emu-count:core:complete counter:emu-count:hit:complete counter:emu-count:miss:complete" ]
    # in ranges of ours and with nothing replayed; who counts in no ranges has neither
    [ "$(sql "select distinct mode, coalesce(metric_set, '') like 'emu-count:%', range_mode, replay_mode from pass order by 1, 2")" = \
        "bare|0||
counter|0||
counter|1|UserRange|UserReplay
timing|0||" ]
    [ "$(read_of 2 emu-count | wc -l)" = 7 ]
    for set in core hit miss; do
        [ "$(read_of 2 emu-count:$set)" = "$(read_of 2 emu-count)" ]
    done
    read_of 2 emu-count >steps
    # all passes launched the same in the same order, and gave the same at each step
    [ "$(sql "select count(distinct launch_hash), count(distinct launch_mode), count(*) from pass where run_id = 2 and mode != 'counter' or metric_set like 'emu-count:%' and run_id = 2")" = "1|1|5" ]
    [ "$(sql "select max(a), max(b), min(n) from (select count(distinct output_hash) a, count(distinct e.launch_hash) b, count(*) n from scope_exec e join scope s on
        s.id = e.scope_id join pass p on p.id = e.pass_id where p.run_id = 2 and s.kind = 'step' and s.step >= 0 group by s.step)")" = "1|1|5" ]
    [ "$(sql "select count(distinct launch_hash) from scope_exec")" -ge 3 ] # full, choosing, recycled
    # what is launched one by one, in finer ranges, asks for the same
    for how in layer op; do
        rm -f s.db
        profile counters "${schedules[@]}" --granularity $how >/dev/null
        [ "$(read_of 2 emu-count:core)" = "$(cat steps)" ]
        kind=$(sql "select group_concat(distinct s.kind) from metric_value v join scope s on s.id = v.scope_id join pass p on p.id = v.pass_id where p.metric_set like '%core'")
        [ "$kind" = $how ]
        [ "$(sql "select group_concat(distinct launch_mode), count(distinct launch_hash) from pass where run_id = 2 and metric_set is not 'emu-count'")" = "step-graph,stream|1" ]
    done
    # layers that come by again in a step add up
    rm -f s.db
    profile counters "${schedules[@]}" --granularity layer --tile-layers 2 >/dev/null
    [ "$(read_of 2 emu-count:core)" = "$(read_of 2 emu-count)" ]
    rm -f s.db
    profile counters "${schedules[@]}" --granularity op >/dev/null
    # operations of a full step that chooses: attention reads K and V, the choice reads logits
    [ "$(sql "select count(*) from metric_value v join metric_def m on m.id = v.metric_id join scope s on s.id = v.scope_id join string_ids n
        on n.id = s.name_id where m.name = 'dram_read_bytes' and n.value in ('attend', 'select', 'refresh', 'evict', 'append') and v.value > 0")" -gt 40 ]
}

@test "counters of the user's choice, split into executions; what the chip cannot is refused" {
    need_fake
    profile counters -p full --counters hit,miss >/dev/null
    [ "$(sql "select count(*) from pass where mode = 'counter' and metric_set like 'chosen %' and state = 'complete'")" = 2 ]
    [ "$(sql "select count(distinct m.name) from metric_value v join metric_def m on m.id = v.metric_id where m.chip = 'GH100'")" = 11 ]
    rm -f s.db
    run -2 --separate-stderr profile counters -p full --counters dram_red_bytes
    [[ $stderr == *"dram_red_bytes"*"dram_read_bytes"* ]]
    RA_FAKE_CUPTI=passes=2 run -2 --separate-stderr profile counters -p full
    [[ $stderr == *"need 2 executions, expected what fits one"* ]]
    [ "$(sql "select state from run")" = failed ]
    RA_FAKE_CUPTI=hide=dram__bytes_read.sum run --separate-stderr profile counters -p full
    [[ $status -ne 0 && $stderr == *"dram__bytes_read.sum"* ]]
    run -2 --separate-stderr "$emulated" replay "$trace" -p full --granularity layer
    [[ $stderr == *"--granularity: needs --profile"* ]]
    run -2 --separate-stderr profile timing -p full --granularity layer
    [[ $stderr == *"--granularity: expected --profile counters or all beside it"* ]]
}

@test "ranges that are dropped make a counter pass incomplete; a refusal on the way is told by name" {
    need_fake
    local code
    RA_FAKE_CUPTI=ranges=2 profile counters -p full >/dev/null
    [ "$(sql "select distinct state || ranges_dropped from pass where metric_set like '%:%'")" = incomplete2 ]
    [[ $(sql "select message from diagnostic limit 1") == "counter pass: 7 of 7 ranges came, 2 were dropped" ]]
    rm -f s.db
    for code in cuptiRangeProfilerEnable=43 cuptiRangeProfilerStart=999 cuptiRangeProfilerPushRange=7 cuptiRangeProfilerDecodeData=46; do
        RA_FAKE_CUPTI=$code run -3 --separate-stderr profile counters -p full
        [[ $stderr == *"${code%=*}: CUPTI_ERROR_${code#*=} "* ]]
    done
    RA_FAKE_CUPTI=cuptiRangeProfilerStart=35 run -5 --separate-stderr profile counters -p full
    [ "$(sql "select group_concat(distinct state) from pass where metric_set like '%core'")" = failed ]
}
