#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# POLICY+TRANSFORMATION on the command line: what is printed, stored and refused. The figures
# themselves are held to numpy in tests/audit/audit_transforms.py.

load common

replay() {
    "$rattn" replay "$sample" -q --repeat 1 --layers 9 --steps 0..15 "$@"
}

@test "the table: bytes of the codes, no speed-up, and a note that says whose times these are" {
    replay -p full -p full+int8 -p streaming:k=64+kvquant:bits=4 >out
    # 8 bits and two numbers of 16 beside each row of 64: 8.5 of 16
    grep -qE '^full\+int8 +1\.0000 +1\.0000 +- +0\.[0-9]+ +53\.1 +[0-9.]+ +- +1$' out
    grep -qE '^streaming:k=64 +[0-9.]+ ' out # broken before the plus
    grep -q '^  +kvquant:bits=4$' out
    grep -q '^with +: bytes are of the codes, times of dequantised rows, and so no speed-up$' out
    replay -p full -p streaming:k=64 >plain
    ! grep -q 'codes' plain
}

@test "json: name, bits, mass 1 with an error; what was not transformed has null" {
    replay -p full -p full+kvquant --format json >r.json
    [ "$(json 'd[0]["transformation"]' <r.json)" = None ]
    [ "$(json 'd[1]["policy"]' <r.json)" = full+kvquant:bits=2,outliers=0.01,keys=channel,values=token,nuq=1,levels=channel,weights=root,scale=channel,sweeps=3,ahead=256,damp=0.5 ]
    [ "$(json 'd[1]["transformation"]["name"]' <r.json)" = kvquant:bits=2,outliers=0.01,keys=channel,values=token,nuq=1,levels=channel,weights=root,scale=channel,sweeps=3,ahead=256,damp=0.5 ]
    [ "$(json '2.3 < d[1]["transformation"]["bits_per_key_entry"] < 2.8' <r.json)" = True ]
    [ "$(json '2.6 < d[1]["transformation"]["bits_per_value_entry"] < 2.8' <r.json)" = True ]
    [ "$(json 'd[1]["mass_recovered"]["min"], d[1]["output_rel_err"]["mean"] > 0.1' <r.json)" = "(1.0, True)" ]
    [ "$(json 'd[1]["speedup_attention"], d[1]["step_ratio"], d[1]["attention_ns"]["total"] > 0' <r.json)" = "(None, None, True)" ]
    [ "$(json 'd[0]["kv_read_bytes"] > 5 * d[1]["kv_read_bytes"]' <r.json)" = True ]
    # the same again, and from a file that holds it
    replay -p full -p full+kvquant --check r.json >/dev/null
}

@test "the store keeps the spelling; reports and figures come from it" {
    replay -p full -p recycled:k=64,stride=4+int4+fp8 --db t.db >out
    [ "$(sqlite3 t.db "select json_extract(params_json, '\$.transformation') from policy where canonical like '%+%'")" = int4+fp8:format=e4m3 ]
    [ "$(sqlite3 t.db "select json_extract(params_json, '\$.stagger') from policy where canonical like '%+%'")" = 0 ]
    "$rattn" report t.db -q >again
    diff <(grep '^recycled' out) <(grep '^recycled' again)
    "$rattn" report t.db -q -o t.html
    grep -q 'times of dequantised rows' t.html
    ! grep -q 'keeps the most attention' t.html
}

@test "what makes no sense is refused by name" {
    refused() { # MESSAGE COMMAND...
        run -2 --separate-stderr "$rattn" "${@:2}"
        [[ $stderr == *"$1"* ]]
    }
    refused "no transformation named 'kvqaunt', which comes after '+'; nearest is 'kvquant'" replay "$sample" -p full+kvqaunt
    refused "no policy named ''" replay "$sample" -p +int8
    refused "kvquant: bits: expected a whole number from 2 to 4, got '8'" replay "$sample" -p full+kvquant:bits=8
    refused "leave out '+int8'" explain -p streaming:k=3,sinks=1+int8
    /usr/bin/python3 - "$root" <<'PY'
import sys
sys.path.insert(0, sys.argv[1] + "/tests/audit")
import make_traces
make_traces.make_worked(".")
PY
    refused "kvquant: expected a trace that says how keys were rotated (rope.*)" replay worked.safetensors -p full+kvquant
    "$rattn" replay worked.safetensors -p full+int8+int4 -q --repeat 1 >/dev/null
}

@test "memory for what is transformed is part of what is told" {
    replay -p full --dry-run --format json >one
    replay -p full -p full+int8 --dry-run --format json >two
    json 'd["memory_bytes"]' <one >a
    json 'd[0]["memory_bytes"]' <two >b
    # one layer's rows at least: 3 heads, 1552 rows, 256 bytes
    [ $(($(cat b) - $(cat a))) -ge $((3 * 1552 * 256)) ]
}
