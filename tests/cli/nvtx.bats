#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Ranges for tools, as a tool of ours (nvtx_tool.c) is told of them: against what the store holds, and
# whole also where a replay ends early. Skipped where NVTX's headers, thus the ranges, are missing.

load common

trace=synth:case=needle,D=64,P=64,N=8
eval "common_$(declare -f setup)"

setup_file() {
    include=$(dirname "$(command -v nvcc || echo /)")/../include
    [ -e "$include/nvtx3/nvToolsExt.h" ] || return 0
    export tool=$BATS_FILE_TMPDIR/tool.so
    gcc -std=c17 -D_GNU_SOURCE -Wall -Wextra -Werror -shared -fPIC -isystem "$include" -o "$tool" \
        "$BATS_TEST_DIRNAME/nvtx_tool.c"
}

setup() {
    common_setup
    [ -n "${tool-}" ] || skip "no nvtx3/nvToolsExt.h beside nvcc"
}

watched() { # PROGRAM ARGUMENTS of replay: with the tool
    # a shell without job control starts background work with SIGINT ignored
    TOOL_LOG=$PWD/log NVTX_INJECTION64_PATH=$tool env --default-signal=INT "$1" replay "$trace" "${@:2}" -q
}

ranges() {
    python3 "$BATS_TEST_DIRNAME/nvtx_ranges.py" log
}

@test "steps hold layers, which hold operations: as many as the replay made" {
    watched "$rattn" -p full --repeat 3 >/dev/null
    ranges >full.json
    json '(d["kinds"] == {"step": 3 * 9, "layer": 3 * 9 * 2, "op": 3 * 8 * 2 * 2} and
          d["steps"] == 3 * list(range(-1, 8)))' <full.json | grep -qx True
}

@test "operations are those of the store, by step, layer and name" {
    watched "$rattn" -p full -p recycled:k=8,stride=4 -p recycled:k=8,stride=4,sim=0.9 \
        -p streaming:k=8 --scores recompute --repeat 2 --db s.db >/dev/null
    sqlite3 s.db "select scope.step, scope.layer, n.value, count(*) from scope
        join scope_exec e on e.scope_id = scope.id join string_ids n on n.id = scope.name_id
        where scope.kind = 'op' group by 1, 2, 3" | sort >stored
    ranges | json '"\n".join(f"{k}|{v}" for k, v in d["ops"].items())' | sort >told
    diff stored told
    [ "$(cut -d '|' -f 3 told | sort -u | wc -l)" -eq 7 ] # every operation there is
}

@test "an interrupted replay ends its ranges" {
    export TOOL_AT=100 TOOL_DOES=interrupt
    run -130 watched "$rattn" -p full --repeat 9
    ranges | json '100 <= sum(d["kinds"].values()) < 110' | grep -qx True
}

@test "a replay that fails within a layer ends its ranges" {
    export TOOL_AT=5 TOOL_DOES="full disk"
    watched "$rattn" -p full --repeat 2 --export sets 2>&1 | grep "File too large" # no file takes it
    ranges | json 'd["steps"] == [-1, 0] and d["kinds"]["layer"] == 3' | grep -qx True
}

@test "a replay that fails within an operation ends its ranges" {
    ! grep -q __asan_init "$rattn" || skip "ASan takes no memory limit"
    trace=synth:case=needle,D=8,P=64,N=240 TOOL_AT=100 TOOL_DOES="no memory"
    export TOOL_AT TOOL_DOES
    # more operations than the recorder expected: its list must grow, and cannot
    run -1 --separate-stderr watched "$rattn" -p recycled:k=8,stride=1 --no-quality --scores recompute
    [[ $stderr == *"recorder: no memory for "* ]]
    ranges
}

@test "without the tool, or with one that is not there, the result is the same" {
    watched "$rattn" -p recycled:k=8,stride=4 --repeat 1 --format json >with.json
    "$rattn" replay "$trace" -p recycled:k=8,stride=4 --repeat 1 -q --format json >without.json
    NVTX_INJECTION64_PATH=/nowhere.so "$rattn" replay "$trace" -p recycled:k=8,stride=4 --repeat 1 -q \
        --format json >nowhere.json
    local file
    for file in with nowhere; do
        [ "$(json 'd["fingerprint"]' <$file.json)" = "$(json 'd["fingerprint"]' <without.json)" ]
    done
}

@test "the cuda backend: one range round each played step's launch, none of its recording" {
    local emulated=$(dirname "$rattn")/emu/rattn-sim
    [ -x "$emulated" ] || skip "no build/emu/rattn-sim: make emu"
    watched "$emulated" -p full --backend cuda --repeat 3 >/dev/null
    # the checked run comes first, its operations told apart
    ranges | json '(d["played"] == 3 * list(range(-1, 8)) and d["steps"] == list(range(-1, 8)) and
        d["kinds"] == {"step": 9, "layer": 18, "op": 8 * 2 * 2, "played step": 27})' | grep -qx True
}
