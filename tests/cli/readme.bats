#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The README's tour, word for word: its commands work and what it shows is what is printed.

load common

setup_file() {
    bats_require_minimum_version 1.5.0
}

# The first indented block after the line that matches, as it stands in the README.
block() { # PATTERN
    awk -v pattern="$1" 'index($0, pattern) { found = 1; next }
        found && /^    / { print substr($0, 5); shown = 1; next }
        found && /^$/ { if (shown) print ""; next }
        found && shown { exit }' "$root/README.md" | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}'
}

# The folder as the README's commands expect it, with a shorter demo of the same schedules.
tour() {
    mkdir -p build/demo
    ln -s "$rattn" build/rattn-sim
    ln -s "$root/traces" traces
    # shellcheck disable=SC2046
    [ -z "$1" ] || build/rattn-sim replay "$sample" --layers 0,9 --steps 0..47 --repeat 1 -q --db build/demo/demo.db \
        $(sed -n '/^DEMO := /,/[^\\]$/p' "$root/Makefile" | tr -d '\\' | sed 's/DEMO :=//') >/dev/null
}

@test "what explain and info print is what is shown" {
    tour ""
    diff <(block "**What does a schedule do?**") <(build/rattn-sim explain)
    block "**What was recorded?**" >shown
    [ "$(wc -l <shown)" -gt 8 ]
    build/rattn-sim info traces/data/smollm2-135m.safetensors | head -n "$(wc -l <shown)" | diff shown -
}

@test "the demo's table has the figures of the frozen results" {
    block "**Which schedule?**" >shown
    python3 - shown "$root/tests/golden/sample.json" <<-'END'
	import json, sys
	shown, rows = open(sys.argv[1]).read(), json.load(open(sys.argv[2]))
	assert len(rows) == 5
	for row in rows:
	    name = row["policy"].split(":")[0]
	    mean, p05 = row["mass_recovered"]["mean"], row["mass_recovered"]["p05"]
	    p95, sparse = row["output_rel_err"]["p95"], row["on_recycled"]["mass_recovered"]["mean"]
	    figures = [mean, p05, sparse, p95]
	    text = "".join("%7s" % ("-" if v is None else "%.4f" % v) for v in figures)
	    lines = [l for l in shown.splitlines() if l.startswith(name) and text in l]
	    assert len(lines) == 1, (row["policy"], text, shown)
	END
}

@test "every command of the tour works" {
    command -v sqlite3 >/dev/null || skip "needs sqlite3"
    tour demo
    block "**What is stored?**" >commands
    [ "$(grep -c '^build/rattn-sim' commands)" -eq 3 ]
    sed -i -z 's/\n  */ /g' commands # a command may go on below
    while read -r line; do
        expected=0
        [[ $line != *"exit 4"* ]] || expected=4
        status=0
        sh -c "$line" </dev/null >out || status=$?
        [ $status -eq $expected ] && [ -s out ]
    done <commands
    sh -c "$(block "**In other tools?**")"
    json 'len(d["traceEvents"])' <build/demo/run2.json
    build/rattn-sim explain traces/data/smollm2-135m.safetensors -p recycled:k=256,stride=16 --layer 9 --head 1 --steps 0..3 >out
    [ "$(grep -c '^step ' out)" -eq 4 ]
    block "## Schedules" >schedules
    for policy in full $(grep -oE '[a-z0-9-]+:[a-z]+=[^ ]+' schedules); do
        build/rattn-sim explain traces/data/smollm2-135m.safetensors -p "$policy" --steps 0 >/dev/null
    done
    for name in $(build/rattn-sim list policies --format json | json '" ".join(p["name"] for p in d if p["name"][0] != "+")'); do
        grep -qE "(^| )$name(:| |\$)" schedules
    done
    if command -v gnuplot >/dev/null; then
        build/rattn-sim plot build/demo/demo.db -o build/demo
        [ "$(ls build/demo/*.svg | wc -l)" -eq 6 ] # as many as the README says
    fi
}
