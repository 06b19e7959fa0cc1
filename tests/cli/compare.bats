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
