#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# compare: two runs of a store are equal, or the first step, layer and column that differ is named.

load common

@test "a run repeated is equal, exit 0" {
    fill
    fill
    run -0 --separate-stderr "$rattn" compare s.db --run 2 --run 5
    [[ $output == *"equal: 18 layer-steps"* ]]
    [ -z "$stderr" ]
    [ "$("$rattn" compare s.db --run 2 --run 5 --format json | json 'd["equal"], d["column"], d["a"]["fingerprint"] == d["b"]["fingerprint"]')" = "(True, None, True)" ]
}

@test "the first step, layer and column that differ, exit 4" {
    fill
    run -4 --separate-stderr "$rattn" compare s.db --run 2 --run 3
    # with one entry more, the prefill copies one row more for each of two KV heads
    [[ $output == *"first difference: prefill, layer 0, kv_read_bytes"* ]]
    [[ $stderr == *"runs 2 and 3 differ in kv_read_bytes"* ]]
    run -4 --separate-stderr "$rattn" compare s.db --run 2 --run 3 --format json
    [ "$(echo "$output" | json 'd["step"], d["layer"], int(d["b"]["value"]) - int(d["a"]["value"])')" = "(-1, 0, 256)" ]
    sqlite3 s.db "update layer_step set topk_recall = topk_recall + 1e-6 where run_id = 2 and step = 5 and layer = 1"
    fill
    run -4 --separate-stderr "$rattn" compare s.db --run 2 --run 5
    [[ $output == *"first difference: step 5, layer 1, topk_recall"* ]]
}

@test "a policy that looks at queries differs from one that does not where they do, not where it looks" {
    "$rattn" replay synth:case=drift,P=64,N=24 -p recycled:k=8,stride=8 -p recycled:k=8,stride=4,sim=0.5 --repeat 1 -q --db s.db >/dev/null
    # the cosine is there from the first check on, at which both are still the same
    step=$(sqlite3 s.db "select min(a.step) from layer_step a join layer_step b using (step, layer)
        where a.run_id = 1 and b.run_id = 2 and (a.is_full <> b.is_full or a.keys_read <> b.keys_read
        or a.kv_read_bytes <> b.kv_read_bytes or a.selection_bytes <> b.selection_bytes)")
    [ "$(sqlite3 s.db "select min(step) < $step from layer_step where run_id = 2 and query_cosine is not null")" = 1 ]
    run -4 --separate-stderr "$rattn" compare s.db --run 1 --run 2
    [[ $output == *"first difference: step $step, layer "* && $output != *query_cosine* ]]
    # a cosine that is the only difference is one, and what was not measured is no number
    "$rattn" replay synth:case=drift,P=64,N=24 -p recycled:k=8,stride=4,sim=0.5 --repeat 1 -q --db s.db >/dev/null
    sqlite3 s.db "update layer_step set query_cosine = null where run_id = 3 and step = 7 and layer = 0"
    run -4 --separate-stderr "$rattn" compare s.db --run 2 --run 3
    [[ $output == *"first difference: step 7, layer 0, query_cosine"*"B not measured"* && $output != *nan* ]]
    [ "$("$rattn" compare s.db --run 2 --run 3 --format json | json 'd["b"]["value"]')" = None ]
}

@test "a run that is not complete is refused" {
    fill
    sqlite3 s.db "update run set state = 'failed' where id = 2"
    run -2 --separate-stderr "$rattn" compare s.db --run 1 --run 2
    [[ $stderr == *"run 2: is failed"* ]]
}

@test "unknown runs and stores are named, and two runs are needed" {
    fill
    run -1 --separate-stderr "$rattn" compare none.db --run 1 --run 2
    [[ $stderr == *none.db* ]]
    run -2 --separate-stderr "$rattn" compare s.db --run 1 --run 9
    [[ $stderr == *9* ]]
    run -2 --separate-stderr "$rattn" compare s.db --run 1
    [[ $stderr == *"expected --run twice"* ]]
    run -2 --separate-stderr "$rattn" compare s.db
    run -2 --separate-stderr "$rattn" compare s.db --run 1 --run 2 --run 3
}
