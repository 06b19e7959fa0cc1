#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# list: what there is, in three formats, and the runs of a store.

load common

@test "policies: names and summaries; -v adds every parameter, range and source" {
    run -0 "$rattn" list policies
    for name in full recycled streaming oracle; do [[ $output == *"$name "* ]]; done
    [[ $output != *stagger* ]]
    run -0 "$rattn" list policies -v
    [[ $output == *"pool "*"1..1023"*"(7)"* ]]
    [[ $output == *"pseudo|snapkv|drop"* ]]
    [[ $output == *"arXiv:2411.05787"* ]]
    [[ $output == *"k "*"1 or more"*"(required)"* ]]
    [[ $output == *"+kvquant "*"arXiv:2401.18079"*"bits "*"2..4"*"(2)"* ]]
    [[ $output == *"+fp8 "*"format "*"e4m3|e5m2"* ]]
}

@test "policies: columns are as wide as what stands in them; ranges are in whole numbers" {
    run -0 "$rattn" list policies -v
    [[ $output == *$'\n    select '*"0..4095, mid "*"(2/mid)"* ]]
    [[ $output == *$'\n    globals '*"0 or more "* ]]
    [[ $output != *e+* ]]
    # summaries, ranges and helps each begin in one column, lines that go on included
    [ "$("$rattn" list policies | sed -E 's/^([+a-z0-9-]* +).*/\1/' | awk '{ print length }' | sort -u | wc -l)" -eq 1 ]
    [ "$("$rattn" list policies -v | grep -oE '^    [a-z]+ +[^ :]' | awk '{ print length }' | sort -u | wc -l)" -eq 1 ]
    [ -z "$(echo "$output" | awk 'length > 80')" ]
}

@test "policies: what the json says a policy accepts is accepted" {
    "$rattn" list policies --format json >p.json
    python3 - "$rattn" "$sample" <<'PY'
import json, subprocess, sys
policies = json.load(open("p.json"))
assert len(policies) >= 15
for policy in policies:
    words = []
    for p in policy["parameters"]:
        value = p["default"]
        if value is None:
            value = p["choices"].split("|")[0] if "choices" in p else "%d" % max(p["min"], 64)
        words.append(p["name"] + "=" + value)
    spelling = policy["name"] + (":" + ",".join(words) if words else "")
    command = ["explain", sys.argv[2], "--steps", "0"]
    if spelling[0] == "+":  # it comes after a policy, and explain knows none
        spelling, command = "full" + spelling, ["replay", sys.argv[2], "--dry-run", "-q"]
    done = subprocess.run([sys.argv[1], *command, "-p", spelling, "--format", "json"],
                          capture_output=True, text=True)
    assert done.returncode == 0, (spelling, done.stderr)
    assert json.loads(done.stdout)["policy"] == spelling, spelling
PY
}

@test "policies: csv has a row for each" {
    "$rattn" list policies --format csv >p.csv
    python3 -c 'import csv; r=list(csv.DictReader(open("p.csv"))); assert [x["name"] for x in r][:2]==["full","recycled"], r; assert "pool" in r[1]["parameters"]'
}

@test "backends: cpu works, cuda is a line, not a crash" {
    run -0 "$rattn" list backends
    [[ $output == *"cpu "*available* ]]
    [ "$("$rattn" list backends --format json | json '[b["available"] for b in d if b["name"]=="cpu"]')" = "[True]" ]
    [ "$("$rattn" list backends --format json | json '[b["reason"] is None or b["reason"].startswith("cuda: ") for b in d if b["name"]=="cuda"]')" = "[True]" ]
}

@test "devices: this machine, with what the system says of it" {
    run -0 "$rattn" list devices
    [[ $output == cpu* ]]
    [ "$("$rattn" list devices --format json | json 'd[0]["processors"]')" = "$(nproc)" ]
    kib=$(awk '/^MemTotal/ { print $2 }' /proc/meminfo)
    [ "$("$rattn" list devices --format json | json "abs(d[0]['memory_bytes'] / 1024 / $kib - 1) < 0.05")" = True ]
}

@test "metrics: each once, and every measured column of the store has one" {
    run -0 "$rattn" list metrics
    [[ $output == *"mass_recovered "*"share, 1 = all"*"higher"* ]]
    fill
    "$rattn" list metrics --format json >metrics.json
    python3 - <<'PY'
import json, re, sqlite3
rows = json.load(open("metrics.json"))
names = [r["name"] for r in rows]
assert len(set(names)) == len(names) == len({r["tag"] for r in rows})
assert all(r["better"] in ("lower", "higher", "-") and r["label"] and r["help"] for r in rows)
columns = [c[1] for c in sqlite3.connect("s.db").execute("pragma table_info(layer_step)")]
columns = [re.sub("_(mean|min|max)$", "", c) for c in columns if c not in ("run_id", "is_full")]
assert set(columns) <= set(names), set(columns) - set(names)
PY
}

@test "figures are those that plot draws" {
    run -0 "$rattn" list figures
    for name in traffic time mass overlap error retained waterfall compare delta drift; do
        [[ $output == *"$name"* ]]
    done
}

@test "words that make no sense are usage errors" {
    run -2 --separate-stderr "$rattn" list
    [[ $stderr == *"expected WHAT"* ]]
    run -2 --separate-stderr "$rattn" list polices
    [[ $stderr == *"nearest is 'policies'"* ]]
    run -2 --separate-stderr "$rattn" list policies extra
    [[ $stderr == *"extra"* ]]
    run -2 --separate-stderr "$rattn" list runs
    [[ $stderr == *"expected DB"* ]]
    run -2 --separate-stderr "$rattn" list runs a.db b.db
}

@test "runs: in order, with state and policy; the store is not changed by looking" {
    "$rattn" replay synth:case=integer,P=32,N=8 -p full -p recycled:k=4,stride=4 --repeat 1 -q --db s.db >/dev/null
    run -0 "$rattn" list runs s.db
    [[ ${lines[1]} == *"1  complete"*full ]]
    [[ ${lines[2]} == *"2  complete"*recycled:k=4,stride=4 ]]
    run -0 "$rattn" list runs s.db -v
    [[ $output == *"synth:case=integer"* && $output == *"fingerprint"* ]]
    "$rattn" list runs s.db --format json >r.json
    [ "$(json '[r["id"] for r in d], d[1]["layer_steps"], d[0]["invocation"] == d[1]["invocation"]' <r.json)" = "([1, 2], 18, True)" ]
    [ "$("$rattn" list runs s.db --format csv | python3 -c 'import csv,sys; print([r["state"] for r in csv.DictReader(sys.stdin)])')" = "['complete', 'complete']" ]
}

@test "runs: missing, foreign, empty and damaged stores are told apart and named" {
    run -1 --separate-stderr "$rattn" list runs none.db
    [[ $stderr == *none.db* ]]
    [ ! -e none.db ]
    sqlite3 other.db 'create table t(x)'
    run -1 --separate-stderr "$rattn" list runs other.db
    [[ $stderr == *other.db* ]]
    head -c 8192 /dev/zero | tr '\0' x >junk.db
    run -1 --separate-stderr "$rattn" list runs junk.db
    [[ $stderr == *junk.db* ]]
    run -1 --separate-stderr "$rattn" list runs /
}

@test "runs: what a foreign store holds cannot drive the terminal" {
    "$rattn" replay synth:case=integer,P=32,N=8 -p full --repeat 1 -q --db s.db >/dev/null
    sqlite3 s.db "update run set device = char(27) || '[2J', uuid = uuid || char(7), trace_path = 'a' || char(10) || 'b';
        update policy set canonical = 'full' || char(8)"
    run -0 "$rattn" list runs s.db -v
    [ ${#lines[@]} -eq 5 ]
    [[ $output == *'?[2J'* && $output == *'a?b'* && $output == *'full?'* ]]
    [[ $output != *[$'\e\a\b']* ]]
}
