#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# explain: the worked example of the paper's rule, step by step, and the same story on a trace as
# the replay's own exported sets tell it.

load common

@test "the worked example: attended, evicted, kept, pending, flushed at each step" {
    # L=5, K=3, S=3, T=4, pseudo, no pooling: the values are those of the published rule by hand
    "$rattn" explain --format json >e.json
    python3 - <<'PY'
import json
d = json.load(open("e.json"))
assert d["P"] == 5 and d["N"] == 4
assert d["prefill"]["cache"] == [4, 3, 0]
want = [  # self, kind, attended with self, evicted, C_r evict-first, pending, flushed
    (5, "recycled", [0, 3, 4, 5], [4], [3, 0, 5], [5], []),
    (6, "recycled", [0, 3, 5, 6], [3], [0, 5, 6], [5, 6], []),
    (7, "full", [0, 1, 2, 3, 4, 5, 6, 7], None, [6, 0, 2], [], [5, 6]),
    (8, "recycled", [0, 2, 6, 8], [6], [0, 2, 8], [8], []),
]
for step, (self_, kind, attended, evicted, cache, pending, flushed) in zip(d["steps"], want, strict=True):
    assert step["self"] == self_ and step["kind"] == kind, step
    assert step["attended"] == attended and step["cache"] == cache, step
    assert evicted is None or step["evicted"] == evicted, step
    assert step["pending"] == pending and step["flushed"] == flushed, step
full = d["steps"][2]
assert full["rebuilt"] and abs(full["overlap"] - 2 / 3) < 1e-15 and abs(full["old_mass"] - 0.60) < 1e-12
m = d["memory"]
assert (m["keys_read"], m["keys_full"], m["rows"], m["retained"], m["caches"]) == (20, 30, 9, 3, "both")
PY
}

@test "the text names words and answers whether memory shrinks" {
    run -0 "$rattn" explain
    [[ $output == *"flushes  5 over, 6 the"* ]]
    [[ $output == *"evicts   4 jumps"* ]]
    [[ $output == *"pending  8 dog"* ]]
    [[ $output == *"Does memory shrink?"* ]]
    [[ $output == *"traffic   yes: 20 keys read"*"reads 30"* ]]
    [[ $output == *"footprint no: L + K"*"12 rows against 9 rows"* ]]
}

@test "what does not pay says no; what forgets says so" {
    run -0 "$rattn" explain -p full
    [[ $output == *"traffic   no: 30 keys"*"reads 30"* && $output == *"footprint no: all 9"* ]]
    run -0 "$rattn" explain -p recycled:k=3,stride=1
    [[ $output == *"traffic   no: 30 keys"* ]]
    run -0 "$rattn" explain -p streaming:k=3,sinks=1
    [[ $output == *"footprint yes: 3 of 9"*"gone for good"* ]]
    run -0 "$rattn" explain -p oracle:k=3
    [[ $output == *"traffic   yes: 16 keys"* && $output == *"footprint no: all 9"* ]]
}

@test "an oracle attends to the best of the scores it is shown, and says how much they hold" {
    # at i = 3 the scores are .20 .02 .30 .03 .05 .10 .18 .12: the best three before self
    "$rattn" explain -p oracle:k=3 --format json >o.json
    [ "$(json 'd["steps"][2]["attended"], round(d["steps"][2]["mass"], 12)' <o.json)" = "([0, 2, 6, 7], 0.8)" ]
}

@test "other words, other seeds: drawn scores, and the same ones each time" {
    text="a b c d e f g h i j k l"
    "$rattn" explain --text "$text" --format json >a.json
    "$rattn" explain --text "$text" --format json >b.json
    "$rattn" explain --text "$text" --format json --seed 7 >c.json
    cmp a.json b.json
    ! cmp -s a.json c.json
    [ "$(json '"drawn" in d["scores"], d["P"], d["N"]' <a.json)" = "(True, 8, 4)" ]
    run -0 "$rattn" explain --text "$text"
    [[ $output == *"7 h"* ]]
    # queries that the words do not have are drawn too: a threshold that is always and never passed
    [ "$("$rattn" explain -p recycled:k=3,stride=1,sim=-2 --format json | json '[s["kind"] for s in d["steps"]].count("full")')" = 0 ]
    [ "$("$rattn" explain -p recycled:k=3,stride=1,sim=1 --format json | json '[s["kind"] for s in d["steps"]].count("full")')" = 4 ]
}

# The traces of tests/reference/selftest.py, where the working by hand stands.
worked() { # NAME CALL: NAME.safetensors
    PYTHONPATH=$root/tests/reference /usr/bin/python3 - "$1" "$2" <<'PY'
import os, sys
from worked import trace
os.rename(eval(sys.argv[2], {"trace": trace, "folder": "."}).path, sys.argv[1] + ".safetensors")
PY
}

@test "h2o and tova worked by hand: what goes is decided by scores, and the text says so" {
    worked h2o 'trace(folder, [None, 0, 1, 2], [[1,9,9,3,4,1,1],[1,9,9,9,18,1,1],[1]*7], 4, acc=[.9,.4,.5,.2])'
    "$rattn" explain h2o.safetensors -p h2o:k=2 --format json >h.json
    [ "$(json '[s["attended"] for s in d["steps"]]' <h.json)" = "[[0, 3, 4], [0, 4, 5], [4, 5, 6]]" ]
    [ "$(json '[s["evicted"] for s in d["steps"]]' <h.json)" = "[[3], [0], [5]]" ]
    [ "$(json 'abs(d["steps"][0]["mass"] - 8/26) < 1e-6, d["prefill"]["evictions"]' <h.json)" = "(True, 'score')" ]
    worked tova 'trace(folder, [0,1,2,3,None], [[5,2,5,1,9,9,9,9],[2,9,3,9,1,9,9,9],[1,9,2,9,9,2,9,9],[1]*8], 4)'
    "$rattn" explain tova.safetensors -p tova:k=2 --format json >t.json
    [ "$(json '[s["attended"][:-1] for s in d["steps"]]' <t.json)" = "[[0, 2], [0, 2], [2, 5], [2, 5]]" ]
    [ "$(json 'd["steps"][0]["evicted"]' <t.json)" = "[4]" ]
    run -0 "$rattn" explain "$sample" -p h2o:k=40 --steps 0
    [[ $output == *"40 entries; scores decide which goes next"*"evicts   "*"40 entries; scores decide"* ]]
}

@test "snapkv worked by hand: grows and says that none will go, or the lowest goes first" {
    worked snapkv 'trace(folder, [0,1,None,None,None], [[1,6,1,1,1,9,9,9,9],[1,1,1,4,1,2,9,9,9]], 6, W=2)'
    "$rattn" explain snapkv.safetensors -p snapkv:k=4,window=2,pool=1 --format json >n.json
    [ "$(json '[s["attended"][:-1] for s in d["steps"]], d["prefill"]["evictions"]' <n.json)" = "([[1, 3, 4, 5], [1, 3, 4, 5, 6], [1, 3, 4, 5, 6, 7]], 'none')" ]
    "$rattn" explain snapkv.safetensors -p snapkv:k=4,window=2,pool=1,evict=fifo --format json >f.json
    [ "$(json '[s["cache"] for s in d["steps"]], [s["evicted"] for s in d["steps"]][:2], d["prefill"]' <f.json)" = \
        "([[3, 4, 5, 6], [4, 5, 6, 7], [5, 6, 7, 8]], [[1], [3]], {'self': 5, 'cache': [1, 3, 4, 5], 'evictions': 'order'})" ]
    run -0 "$rattn" explain "$sample" -p snapkv:k=40 --steps 0
    [[ $output == *"40 entries; none will go"* && $output != *evicts* ]]
}

@test "quest, unlimiformer and tidal worked by hand: no cache, sets of each query head, choices handed on" {
    worked quest 'trace(folder, [None,0,1,None], None, 5, keys=[[1,0],[0,3],[-2,1],[2,0],[0,0],[0,5],[0,0],[0,0]])'
    "$rattn" explain quest.safetensors -p quest:k=4,page=2 --format json >q.json
    [ "$(json '[s["attended"] for s in d["steps"]]' <q.json)" = "[[2, 3, 4, 5], [4, 5, 6], [0, 1, 6, 7]]" ]
    worked u 'trace(folder, [[None,0,1],[None,1,None]], None, 4, group=2, keys=[[1,5],[3,0],[2,0],[3,5],[0,1],[9,9]])'
    "$rattn" explain u.safetensors -p unlimiformer:k=2 --format json >u.json
    [ "$(json '[s["heads"] for s in d["steps"]], [s["attended"] for s in d["steps"]]' <u.json)" = \
        "([[[1, 3], [0, 3]], [[0, 3], [0, 1]]], [[0, 1, 3, 4], [0, 1, 3, 5]])" ]
    # at step 1 the second head's query is zero: 3 of 6 keys. The first's products are 5 0 0 5 1 9
    [ "$(json 'abs(d["steps"][1]["mass"] - (3/6 + (2*2.718281828459045**5 + 2.718281828459045**9) / (2*2.718281828459045**5 + 2 + 2.718281828459045 + 2.718281828459045**9)) / 2) < 1e-6' <u.json)" = True ]
    run -0 "$rattn" explain u.safetensors -p unlimiformer:k=2
    [[ $output == *"attends  "*"head 0   1 #"*"head 1   0 #"* || $output == *"head 0   1, 3"*"head 1   0, 3"* ]]
    worked tidal 'trace(folder, [None,0,None], [[1,3,2,3,9,1]], 4, n_layers=6, layers=(1,2,3,5))'
    "$rattn" explain tidal.safetensors -p tidal:k=2 --layer 3 --format json >c.json
    [ "$(json '[(s["kind"], s["chosen"], s["cache"]) for s in d["steps"]]' <c.json)" = "[('full', [1, 3], None), ('full', [0, 1], None)]" ]
    "$rattn" explain tidal.safetensors -p tidal:k=2 --layer 5 --format json >l.json
    [ "$(json '[s["attended"] for s in d["steps"]], d["steps"][0]["chosen"]' <l.json)" = "([[1, 3, 4], [0, 1, 5]], None)" ]
    run -0 "$rattn" explain tidal.safetensors -p tidal:k=2 --layer 5
    [[ $output == *"keeps    no cache of its own"* && $output != *evicts* ]]
}

@test "triforce worked by hand: the order of eviction at every step" {
    worked f 'trace(folder, [0,None,None,None,None], [[1,1,4,9,1,9,9,9,9]], 5)'
    "$rattn" explain f.safetensors -p triforce:k=4,chunk=2,gamma=2 --format json >f.json
    [ "$(json 'd["prefill"]["cache"], [s["cache"] for s in d["steps"]]' <f.json)" = \
        "([3, 2, 4], [[3, 2, 4, 5], [2, 4, 5, 6], [1, 0, 7, 6], [0, 7, 6, 8]])" ]
    [ "$(json '[s["kind"] for s in d["steps"]]' <f.json)" = "['recycled', 'recycled', 'full', 'recycled']" ]
}

@test "words say by name what a policy needs that they lack, and where it is" {
    for policy in h2o:k=3 snapkv:k=64 pyramidkv:k=64 adakv:k=64 quest:k=3 triforce:k=8,gamma=2; do
        run -2 --separate-stderr "$rattn" explain -p $policy
        name=${policy%%:*}
        [[ $stderr == "rattn-sim: $name: needs "*", which words lack: give a trace (rattn-sim explain TRACE -p $name:...)" ]]
    done
    run -0 "$rattn" explain -p triforce:k=3,chunk=1,gamma=2,draft=streaming,sinks=1
}

@test "on a trace: sets, kinds and mass are those that a replay exports" {
    policy=recycled:k=40,stride=4
    "$rattn" replay "$sample" -p $policy --layers 9,19 --steps 0..11 --repeat 1 -q --export x.safetensors >/dev/null
    "$rattn" explain "$sample" -p $policy --layer 19 --head 1 --steps 0..11 --format json >e.json
    /usr/bin/python3 - <<'PY'
import json, struct
import numpy as np
data = open("x.safetensors", "rb").read()
n = struct.unpack("<Q", data[:8])[0]
header = json.loads(data[8:8 + n])
def tensor(name):
    t = header[name]
    a, b = t["data_offsets"]
    kind = {"I32": "<i4", "F32": "<f4", "U8": "u1"}[t["dtype"]]
    return np.frombuffer(data[8 + n + a:8 + n + b], kind).reshape(t["shape"])
d = json.load(open("e.json"))
layer = tensor("layer_ids").tolist().index(19)
assert len(d["steps"]) == 12
for t, step in enumerate(d["steps"]):
    length = tensor("attended_len")[t, layer, 1]
    assert (step["kind"] == "full") == bool(tensor("is_full")[t, layer]) == ((t + 1) % 4 == 0)
    assert len(step["attended"]) == length
    if step["kind"] != "full":
        assert step["attended"] == tensor("attended")[t, layer, 1, :length].tolist()
    mass = tensor("mass")[t, layer, 3:6].astype(float).mean()
    assert abs(step["mass"] - mass) < 1e-6, (t, step["mass"], mass)
PY
}

@test "on a trace: the middle layer by default, token numbers, ranges for long lists" {
    run -0 "$rattn" explain "$sample" -p recycled:k=256,stride=4 --steps 3
    [[ $output == *"layer 19, KV head 0"* ]]
    [[ $output == *"attends  0-1539"* ]]
    [[ $output == *"pending"* || $output == *"flushes  1536 #"* ]]
    [ -z "$(echo "$output" | grep -v 'policy\|trace' | awk 'length > 80')" ]
    run -0 "$rattn" explain synth:case=flat,layers=4,window=8 -p full --steps 0
    [[ $output == *"layer 2, KV head 0"* ]]
}

@test "mistakes are usage errors that name the range" {
    run -2 --separate-stderr "$rattn" explain -p recycled:k=3
    [[ $stderr == *stride* ]]
    run -2 --separate-stderr "$rattn" explain -p recycld:k=3,stride=2
    [[ $stderr == *"'recycled'"* ]]
    run -2 --separate-stderr "$rattn" explain --text "only four words here"
    [[ $stderr == *"at least 5 words, got 4"* ]]
    run -2 --separate-stderr "$rattn" explain --text ""
    run -2 --separate-stderr "$rattn" explain --text "$(seq 201 | tr '\n' ' ')"
    [[ $stderr == *"at most 200"* ]]
    run -2 --separate-stderr "$rattn" explain --steps 2..4
    [[ $stderr == *"below 4, got 4"* ]]
    run -2 --separate-stderr "$rattn" explain "$sample" --text "a b c d e"
    run -2 --separate-stderr "$rattn" explain "$sample" --layer 1
    [[ $stderr == *"layer 1 is not recorded"* ]]
    run -2 --separate-stderr "$rattn" explain synth:case=flat,window=8 --layer 1
    [[ $stderr == *"sliding window"* ]]
    run -2 --separate-stderr "$rattn" explain "$sample" --head 3
    [[ $stderr == *"below 3, got 3"* ]]
    run -1 --separate-stderr "$rattn" explain none.safetensors
    [[ $stderr == *none.safetensors* ]]
}

@test "a layer or head without a trace is refused, not ignored" {
    for option in --layer --head; do
        run -2 --separate-stderr "$rattn" explain $option 0
        [[ ${stderr_lines[0]} == "rattn-sim: explain: $option: needs TRACE, which is not given" ]]
        [ -z "$output" ]
    done
}
