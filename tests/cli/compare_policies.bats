#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# docs/compare.py: all policies side by side, each figure the store's own, and the document made of them.

load common

setup_file() { # one comparison of a few steps for all tests
    bats_require_minimum_version 1.5.0
    root=$(realpath "$BATS_TEST_DIRNAME/../..")
    cd "$BATS_FILE_TMPDIR" || return 1
    printf 'before\n<!-- compare: smollm2-135m -->\nold\n<!-- end of compare -->\nafter\n' >d.md
    python3 "$root/docs/compare.py" "$root/traces/data/smollm2-135m.safetensors" -o o --document d.md \
        --tool "$(realpath "${RATTN_SIM:-$root/build/rattn-sim}")" --steps 0..7 --figures none >out 2>err ||
        { cat err; return 1; }
}

@test "every policy is compared, at equal K and at equal bytes" {
    cd "$BATS_FILE_TMPDIR"
    "$rattn" list policies --format json >policies.json
    python3 - <<'PY'
import csv, json
rows = list(csv.DictReader(open("o/compare.csv")))
assert rows == [{k: "" if v is None else str(v) for k, v in r.items()} for r in json.load(open("o/compare.json"))["rows"]]
listed = {p["name"] for p in json.load(open("policies.json"))}
names = {name for name in listed if name[0] != "+"}
used = {part.split(":")[0] for r in rows if r["set"] == "transformations" for part in r["policy"].split("+")[1:]}
assert used == {name[1:] for name in listed - names}, used
for which in ("k=1/8", "k=1/16", "equal bytes"):
    assert {r["policy"].split(":")[0] for r in rows if r["set"] == which} == names, which
columns = set("schedule policy mass_mean mass_sparse error_mean kv_mb selection_mb moved_mb refresh_overlap".split())
assert columns <= set(rows[0]), rows[0]
# What was to be equal is: within 2 %, or the table says how far off.
table = open("out").read()
target = next(float(r["moved_mb"]) for r in rows if r["set"] == "k=1/8" and r["schedule"] == "recycled:k=1/8,stride=10")
n_equal = 0
for r in (r for r in rows if r["set"] == "equal bytes" and r["schedule"] != "full"):
    off = float(r["moved_mb"]) / target - 1
    marked = "%s (%+.0f %%)" % (r["schedule"], 100 * off) in table
    assert marked == (abs(off) > 0.02), (r["schedule"], off)
    n_equal += not marked
assert n_equal >= 14, n_equal
for share, k in (("1/8", 192), ("1/16", 96)):
    for r in (r for r in rows if r["set"] == "k=" + share and r["k_resolved"]):
        assert int(r["k_resolved"]) == k, r
    window = next(r for r in rows if r["set"] == "k=" + share and r["schedule"].startswith("longformer"))
    assert window["schedule"] == "longformer:window=%d" % (k + 1) # self is one of a window
PY
}

@test "the figures are those of the store" {
    cd "$BATS_FILE_TMPDIR"
    python3 - <<'PY'
import csv, sqlite3
rows = list(csv.DictReader(open("o/compare.csv")))
db = sqlite3.connect("o/compare.db")
stored = list(db.execute("""select p.canonical, avg(mass_recovered_mean), avg(output_rel_err_mean), avg(refresh_overlap),
    sum(kv_read_bytes + kv_write_bytes) / 8e6, sum(selection_bytes) / 8e6, sum(keys_read) / 96.0
  from run r join policy p on p.id = r.policy_id join layer_step s on s.run_id = r.id
  where step between 0 and 7 group by r.id order by r.id"""))
assert len(stored) == len(rows) > 60
names = "mass_mean error_mean refresh_overlap kv_mb selection_mb keys".split()
n_overlaps = 0
for row, (policy, *values) in zip(rows, stored):
    assert row["policy"] == policy
    for name, value in zip(names, values):
        assert (row[name] == "") == (value is None), (policy, name)
        assert value is None or abs(float(row[name]) - value) <= 1e-9 * max(1, abs(value)), (policy, name, row[name], value)
    n_overlaps += row["refresh_overlap"] != ""
assert n_overlaps > 0
PY
}

@test "a document is rewritten between its markers, and only for other figures" {
    cd "$BATS_FILE_TMPDIR"
    [ "$(head -n 1 d.md)$(tail -n 1 d.md)" = beforeafter ]
    ! grep -qx old d.md
    # shellcheck disable=SC2016
    grep -q '^| `recycled:k=1/8,stride=10,attend=after` | ' d.md
    sha=$("$rattn" info "$sample" --format json | json 'd["content_sha256"]')
    grep -q "$sha.*P = 1536, N = 192; $("$rattn" --version | head -n 1); $(date -u +%Y)-" d.md
    sed -i 's/; 20[0-9-]*\./; 2020-02-02./' d.md
    cp d.md dated.md
    printf 'no markers\n' >other.md
    for document in d.md other.md; do
        python3 "$root/docs/compare.py" "$sample" -o again --document $document --tool "$rattn" --steps 0..7 --figures none >again.out 2>again.err
        grep -q "$document: .*left as it is" again.err
    done
    cmp d.md dated.md
    [ "$(cat other.md)" = "no markers" ]
    cmp out again.out
}

@test "docs/policies.md has a section for every policy, and tables with the columns of the program" {
    for name in $("$rattn" list policies --format json | json '" ".join(p["name"] for p in d)'); do
        grep -qx "### $name" "$root/docs/policies.md"
        grep -q "^| \`\(full\)\?$name[:\`]" "$root/docs/policies.md"
    done
    head="$(grep -m 1 '^| schedule ' "$BATS_FILE_TMPDIR/d.md")"
    [ "$(grep -cFx "$head" "$root/docs/policies.md")" = "$(grep -c '^| schedule ' "$root/docs/policies.md")" ]
    python3 - "$root/docs/policies.md" "$BATS_FILE_TMPDIR/d.md" <<'PY'
import sys
table, mine = (open(path).read() for path in sys.argv[1:])
for line in mine.splitlines():
    if line.startswith("**"):
        assert line in table, line # the same sets
PY
}

@test "what the program refuses ends the comparison, in its words" {
    run -1 python3 "$root/docs/compare.py" none.safetensors -o x --tool "$rattn"
    [[ $output == *none.safetensors* && $output == *"compare: info"* ]]
}

@test "every figure in the words of docs/policies.md is in one of its tables" {
    python3 - "$root/docs/policies.md" <<'PY'
import re, sys
words, tables, inside = [], set(), False
for line in open(sys.argv[1]):
    inside = inside and not line.startswith("<!-- end of compare") or line.startswith("<!-- compare:")
    if inside and line.startswith("|"):
        tables |= set(re.findall(r"\d+\.\d+", line))
    elif not inside:
        words += re.findall(r"\d+\.\d+", re.sub(r"arXiv:[\d.v]+|`[^`]*`", "", line))
assert len(words) > 50 and len(tables) > 300
assert not set(words) - tables, sorted(set(words) - tables)
PY
}
