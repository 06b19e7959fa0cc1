#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# report: a store read again says what the replay said.

load common

@test "text is what the replays printed, an invocation at a time" {
    fill
    "$rattn" report s.db >report.out
    { echo "runs 1 to 2: 2 complete passes"; echo; cat first.out; echo
      echo "run 3: 1 complete pass"; echo; cat second.out; } >want.out
    diff want.out report.out
}

@test "json is what the replay printed; an object for one run" {
    fill --format json
    "$rattn" report s.db --run 1 --run 2 --format json >both.json
    python3 -c 'import json; assert json.load(open("first.out")) == json.load(open("both.json"))'
    uuid=$("$rattn" list runs s.db --format json | json 'd[2]["uuid"]')
    "$rattn" report s.db --run "${uuid:0:8}" --format json >one.json
    python3 -c 'import json; assert json.load(open("second.out")) == json.load(open("one.json"))'
    [ "$("$rattn" report s.db --format json | json 'len(d)')" = 3 ]
}

@test "csv has a row for each run and the names of the json" {
    fill
    "$rattn" report s.db --format csv >r.csv
    python3 - <<'PY'
import csv
rows = list(csv.DictReader(open("r.csv")))
assert [r["policy"].split(":")[0] for r in rows] == ["full", "recycled", "recycled"]
assert rows[0]["mass_recovered.mean"] == "1" and rows[0]["on_recycled.mass_recovered.mean"] == ""
assert rows[1]["k_resolved"] == "4" and rows[2]["layers"] == "0/1"
PY
}

@test "-o writes a file and says where" {
    fill
    run -0 --separate-stderr "$rattn" report s.db -o out.txt
    [ -z "$output" ]
    [[ $stderr == *"wrote out.txt"* ]]
    "$rattn" report s.db | diff - out.txt
    run -0 --separate-stderr "$rattn" report s.db -q --format json -o out.json
    [ -z "$stderr" ]
    json 'len(d)' <out.json
    run -1 --separate-stderr "$rattn" report s.db -o /dev/full
    [[ $stderr == *"/dev/full: No space left"* ]]
    run -1 --separate-stderr "$rattn" report s.db -o /proc/none/x
    run -1 --separate-stderr sh -c "\"\$rattn\" report s.db >/dev/full"
}

@test "runs that hold no result are left out, and counted" {
    fill
    sqlite3 s.db "update run set result_json = null, state = 'aborted' where id = 2"
    run -0 --separate-stderr "$rattn" report s.db
    [[ $stderr == *"1 run without a result left out"* ]]
    [[ $output == *"run 1: "* ]]
    run -0 --separate-stderr "$rattn" report s.db -q
    [ -z "$stderr" ]
    sqlite3 s.db "update run set result_json = '{' where id = 3"
    run -1 --separate-stderr "$rattn" report s.db
    [[ $stderr == *"run 3: stored result"* ]]
}

@test "unknown runs and stores are named" {
    fill
    run -2 --separate-stderr "$rattn" report s.db --run 9
    [[ $stderr == *9* ]]
    run -1 --separate-stderr "$rattn" report none.db
    [[ $stderr == *none.db* ]]
    [ ! -e none.db ]
    run -2 --separate-stderr "$rattn" report
}
