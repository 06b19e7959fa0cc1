#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# doctor: findings with their fix; exit 0 whenever the cpu backend works.

load common

state() { # CHECK: its state in the JSON
    "$rattn" doctor --format json | python3 -c 'import json,sys; print([r["state"] for r in json.load(sys.stdin) if r["check"]==sys.argv[1]])' "$1"
}

@test "everything is looked at, and it exits 0" {
    run -0 "$rattn" doctor
    for what in "cpu backend" processor memory SQLite jansson nettle "CUDA toolkit" "NVIDIA driver" "perf counters" gnuplot TMPDIR; do
        [[ $output == *"$what"* ]]
    done
    [ "$(state "cpu backend")" = "['ok']" ]
}

@test "each finding that is not ok says how to mend it" {
    PATH=/nowhere TMPDIR=/proc "$rattn" doctor --format json >d.json
    python3 - <<'PY'
import json
rows = json.load(open("d.json"))
bad = [r for r in rows if r["state"] == "missing"]
assert {"gnuplot", "TMPDIR"} <= {r["check"] for r in bad}, bad
assert all(r["fix"] for r in bad) and all(r["fix"] is None for r in rows if r["state"] != "missing")
PY
}

@test "gnuplot is found where PATH says, only if it can be run" {
    mkdir bin && touch bin/gnuplot
    PATH=$PWD/bin run -0 "$rattn" doctor
    [[ $output == *"missing  gnuplot"* ]]
    chmod +x bin/gnuplot
    PATH=$PWD/bin run -0 "$rattn" doctor
    [[ $output == *"ok       gnuplot        $PWD/bin/gnuplot"* ]]
}

@test "SQLite's version is the library's" {
    version=$(sqlite3 --version | cut -d' ' -f1)
    run -0 "$rattn" doctor
    [[ $output == *"SQLite         $version"* ]]
}

@test "csv and json hold the same checks" {
    a=$("$rattn" doctor --format csv | python3 -c 'import csv,sys; print([r["check"] for r in csv.DictReader(sys.stdin)])')
    b=$("$rattn" doctor --format json | python3 -c 'import json,sys; print([r["check"] for r in json.load(sys.stdin)])')
    [ "$a" = "$b" ]
}

@test "doctor takes no words" {
    run -2 --separate-stderr "$rattn" doctor please
    [[ $stderr == *please* ]]
}
