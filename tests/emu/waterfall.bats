#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Traffic explained: what the formulas say that bytes are of, against what the emulation counts that
# kernels ask for. A double of CUPTI hands its counts on as those of DRAM, or says that more was read.

load emulated

trace=synth:case=drift,D=64,P=96,N=6,layers=3,window=16

need_fake() {
    fake=$(realpath "$(dirname "$emulated")/../fake_cupti")
    [ -e "$fake/libcupti.so.13" ] || fake=$root/build/release/fake_cupti
    [ -e "$fake/libcupti.so.13" ] || skip "no headers of CUPTI"
}

counted() { # ARGUMENTS of replay: into a new s.db
    rm -f s.db s.db-wal s.db-shm
    LD_LIBRARY_PATH=$fake "$emulated" replay "$@" --backend cuda --repeat 1 -q --db s.db --profile counters >/dev/null
}

# check.py LEAST MOST: each run's rest, percent of what was measured, is within; each sum is that of its
# parts, and what was measured is the store's.
write_check() {
    cat >check.py <<'PY'
import json, sqlite3, sys
low, high = map(float, sys.argv[1:3])
results = json.load(sys.stdin)
results = results if isinstance(results, list) else [results]
db = sqlite3.connect("s.db")
policies = len({r["policy"] for r in results})
parts = ["kv", "rows", "logits", "choice", "partial", "queries", "counts", "between", "l2_hits"]
for run, r in enumerate(results, 1):
    if "traffic" not in r: # of a batch of sequences the first has it
        assert r["batch_of"] == "sequences" and run > 1 and "traffic" in results[(run - 1) % policies]
        continue
    t = r["traffic"]
    b = t["bytes_per_step"]
    assert t["method"] == "emulated"
    assert t["missing"] is None, t["missing"]
    stored = dict(db.execute("""select m.name, sum(v.value) from metric_value v join metric_def m on m.id = v.metric_id
        join scope s on s.id = v.scope_id join pass p on p.id = v.pass_id where p.run_id = ? and s.step >= ? and
        p.metric_set like '%core' group by 1""", (run, min(s["step"] for s in t["per_step"]))))
    steps = t["steps"]
    assert steps == r["steps"] == len(t["per_step"])
    near = lambda a, b: abs(a - b) <= 1e-9 * abs(b) + 1e-6
    assert near(b["read"] * steps, stored["dram_read_bytes"]) and near(b["written"] * steps, stored["dram_write_bytes"]), (b, stored)
    for x in [b] + t["per_step"]:
        assert near(x["measured"], x["read"] + x["written"])
        assert near(x["unexplained"], x["measured"] - sum(x[p] for p in parts)), x
    for name in parts + ["read", "written", "measured", "unexplained"]:
        assert near(sum(s[name] for s in t["per_step"]) / steps + 1, b[name] + 1), name
    # what the replay counts exactly is what the parts say
    apart = r["batch_of"] == "sequences" or r.get("phase") == "spread" or r.get("ragged", 0) > 0
    many = (1 if apart else r["batch"]) * r["tile_layers"]
    same = [i for i, o in enumerate(results, 1) if o["policy"] == r["policy"]]
    one = [0, 0]
    for table, runs in (("layer_step", same if r["batch_of"] == "sequences" else [run]), ("member_step", [run])):
        for i in runs:
            more = db.execute("select coalesce(sum(kv_read_bytes - refresh_bytes), 0), coalesce(sum(kv_write_bytes), 0) from "
                              + table + " where run_id = ? and step >= 0", (i,)).fetchone()
            one = [a + b for a, b in zip(one, more)]
    members = db.execute("select count(distinct member), count(*) from member_step where run_id = ?", (run,)).fetchone()
    rows = db.execute("select count(*) from layer_step where run_id = ? and step >= 0", (run,)).fetchone()[0]
    assert members == ((r["batch"] - 1, (r["batch"] - 1) * rows) if apart and r["batch_of"] == "copies" else (0, 0)), members
    assert near(b["kv"] * steps, many * one[0]), (b["kv"] * steps, one)
    assert b["rows"] * steps >= 2 * many * one[1] * (1 - 1e-9)
    percent = 100 * t["unexplained_share"]
    assert near(percent, 100 * b["unexplained"] / (b["measured"] - b["between"]))
    assert low <= percent <= high, (r["policy"], percent, b)
PY
}

explains() { # ARGUMENTS of replay: less than 1 % is left, and nobody warns
    counted "$@" || return
    "$emulated" report s.db --format json | python3 check.py -1 1 || return
    "$emulated" report s.db >text || return
    [ "$(grep -c '^traffic, bytes per step$' text)" = "$(sqlite3 s.db "select count(distinct run_id) from pass where metric_set like '%:core'")" ]
    [ "$(grep -c warning text)" = 0 ]
}

@test "each schedule: less than 1 % of what its steps move is unexplained" {
    need_fake
    write_check
    explains $trace -p full -p recycled:k=16,stride=3 -p streaming:k=16 -p oracle:k=16
    explains $trace -p recycled:k=16,stride=3 --scores recompute
    explains $trace -p full -p recycled:k=16,stride=3 --cache gather
    explains $trace -p full -p recycled:k=16,stride=3 --cache gather --page 16 --granularity op
    explains $trace -p recycled:k=16,stride=3,attend=after -p recycled:k=16,stride=3,evict=raw \
        -p recycled:k=16,stride=3,agg=first,pool=1 -p recycled:k=16,stride=3,share=0 -p recycled:k=16,stride=3,stagger=1 \
        -p streaming:k=16,stride=3 -p recycled:k=2000,stride=3
    for how in known device host; do
        explains $trace -p recycled:k=16,stride=2,sim=0.9 --decide $how
    done
}

@test "each layout: batches, layers laid out, reads between layers, choices one by one, some of the steps" {
    need_fake
    write_check
    explains $trace -p full -p recycled:k=16,stride=3 --batch 4 --select inline
    explains $trace -p full -p recycled:k=16,stride=3 --tile-layers 3 --select side
    explains $trace -p full -p recycled:k=16,stride=3 --steps 2..4 --granularity layer
    explains $trace -p recycled:k=16,stride=3 --between model
    grep -q "  reads between layers" text
}

@test "batches whose members differ: sequences, phases, lengths; each by its own steps" {
    need_fake
    write_check
    local other=synth:case=drift,D=64,P=130,N=6,layers=3,window=16,seed=3
    explains $trace -p full -p recycled:k=16,stride=3 --batch 2
    explains $trace -p full -p recycled:k=16,stride=3 -p oracle:k=16 --batch 3 --phase spread
    explains $trace -p full -p recycled:k=16,stride=3 -p streaming:k=16 --batch 3 --ragged 0.1
    explains $trace -p recycled:k=16,stride=3 --batch 3 --ragged 0.1 --cache gather --page 16
    explains $trace $other -p full -p recycled:k=16,stride=3 -p recycled:k=1/4,stride=2 --batch 2
    explains $trace $other -p recycled:k=16,stride=3 -p recycled:k=16,stride=2,sim=0.9 --batch 2 --phase spread
    explains $trace -p recycled:k=16,stride=3 --batch 4 --phase spread --ragged 0.5 --scores recompute --tile-layers 2
    explains $trace -p recycled:k=16,stride=3 --batch 2 --phase spread --between model --select side
    # split attention, where the longest of those launched together says how
    explains synth:case=drift,D=64,Hq=2,Hkv=2,P=900,N=3,layers=1,dtype=f32 -p full -p recycled:k=200,stride=2 --batch 2 --ragged 0.3
    # a copy's counts are those of a replay of its own: the last lacks a tenth of 96 rows
    counted $trace -p recycled:k=16,stride=3 --batch 3 --ragged 0.1
    [ "$(sqlite3 s.db "select min(visible_tokens - step), max(visible_tokens - step) from member_step where member = 2")" = "88|88" ]
    [ "$(sqlite3 s.db "select sum(keys_read) from member_step where member = 2 and step = 2 and layer in (select layer from layer_step where is_full)")" = \
        "$(sqlite3 s.db "select sum(keys_read) * 90 / 99 from layer_step where step = 2 and is_full")" ]
}

@test "long contexts, whose attention is split, and groups of few and many heads" {
    need_fake
    write_check
    explains synth:case=drift,D=64,Hq=2,Hkv=2,P=900,N=3,layers=1,dtype=f32 -p full -p recycled:k=200,stride=2
    grep -q "  partial sums of splits" text
    explains synth:case=drift,D=128,Hq=12,Hkv=2,P=2500,N=3,layers=1 -p recycled:k=300,stride=2 -p oracle:k=300
    explains "$sample" -p recycled:k=256,stride=4 --layers 9 --steps 0..4
}

@test "a tenth more read than the kernels asked for is the last bar, and a warning" {
    need_fake
    write_check
    RA_FAKE_CUPTI=read=110 counted $trace -p full -p recycled:k=16,stride=3
    "$emulated" report s.db --format json >r.json
    python3 - <<'PY'
import json
for r in json.load(open("r.json")):
    b = r["traffic"]["bytes_per_step"]
    hidden = b["read"] - b["read"] / 1.1
    assert abs(b["unexplained"] - hidden) < 0.01 * b["measured"], (b, hidden)
    assert 0.05 < r["traffic"]["unexplained_share"] < 0.1, r["traffic"]["unexplained_share"]
PY
    "$emulated" report s.db >text
    [ "$(grep -c '^  warning: [5-9]\.[0-9] % of what a step moved is not explained$' text)" = 2 ]
    [ "$(awk 'length > 80' text)" = "" ]
    "$emulated" report s.db -q -o page.html
    python3 - <<'PY'
import re
text = open("page.html").read()
section = lambda name: re.search('<section id="%s">(.*?)</section>' % name, text, re.S).group(1)
assert len(re.findall('<p class="warn">Run [12]: [5-9]\\.[0-9]&nbsp;% of the bytes', section("verdict"))) == 2
rows = re.findall(r'<tr><td>([^<]*)</td><td class="n">(-?\d+)</td><td class="n">([^<]*)</td></tr>', section("traffic"))
first = rows[:[r[0] for r in rows].index("unexplained") + 1]
assert [r[0] for r in first[-2:]] == ["emulated: read and written", "unexplained"] and float(first[-1][2]) > 5
assert abs(sum(int(r[1]) for r in first) - 2 * int(first[-2][1])) < len(first), first
# the drawing is in the page, in this section alone, with its query
if "gnuplot" not in section("figures"):
    assert re.search('<figure id="figure-waterfall">\\s*<svg.*unexplained.*</svg>.*<pre>.*metric_value.*</pre>', section("traffic"), re.S)
    assert "figure-waterfall" not in section("figures") and text.count('id="figure-waterfall"') == 1
PY
    # one that reads less than was asked for is left over too
    RA_FAKE_CUPTI=read=80 counted $trace -p full
    "$emulated" report s.db | grep -q "^  warning: -[0-9.]* % of what"
}

@test "the waterfall is drawn: bars one on the other, what was measured by the query itself" {
    need_fake
    command -v gnuplot >/dev/null || skip "gnuplot is not installed"
    RA_FAKE_CUPTI=read=110 counted $trace -p full -p recycled:k=16,stride=3
    "$emulated" plot s.db -o f --figure waterfall
    "$emulated" plot s.db -o g --figure waterfall --output png
    cmp f/waterfall.tsv g/waterfall.tsv
    "$emulated" report s.db --format json >r.json
    python3 - <<'PY'
import csv, json, re, sqlite3
rows = sorted(csv.DictReader(open("f/waterfall.tsv"), delimiter="\t"), key=lambda r: int(r["row"]))
db, results = sqlite3.connect("s.db"), json.load(open("r.json"))
runs = []
for r in rows:
    if r["head"]:
        runs.append([])
    runs[-1].append(r)
assert [g[0]["head"] for g in runs] == ["full", "recycled:k=16,stride=3"]
names = {"kv": "K and V attended to", "queries": "queries and outputs", "logits": "logits"}
for n, (bars, result) in enumerate(zip(runs, results), 1):
    parts, whole, rest = bars[:-2], bars[-2], bars[-1]
    assert {b["series"] for b in parts} == {"predicted"} and (whole["series"], rest["series"]) == ("emulated", "unexplained")
    at = 0
    for b in parts + [rest]:
        assert abs(float(b["from_mb"]) - at) < 1e-9, (b, at)
        at += float(b["dram_mb"])
    steps, total = db.execute("""select count(distinct s.step), sum(v.value) from metric_value v join metric_def m on m.id = v.metric_id
        join scope s on s.id = v.scope_id join pass p on p.id = v.pass_id where p.run_id = ? and s.step >= 0 and
        p.metric_set like '%core' and m.name in ('dram_read_bytes', 'dram_write_bytes')""", (n,)).fetchone()
    assert abs(float(whole["dram_mb"]) * 1e6 - total / steps) < 1e-3 and float(whole["from_mb"]) == 0
    assert abs(at - float(whole["dram_mb"])) < 1e-9
    bytes = result["traffic"]["bytes_per_step"]
    drawn = {b["words"]: float(b["dram_mb"]) * 1e6 for b in parts}
    assert all(abs(drawn.get(words, 0) - bytes[key]) < 1e-3 for key, words in names.items()), (drawn, bytes)
share = max(results, key=lambda r: r["traffic"]["unexplained_share"])["traffic"]["unexplained_share"]
script = open("f/waterfall.gp").read()
title = " ".join(re.findall(r"^title_\d+ = '(.*)'$", script, re.M))
assert title.startswith("At most %.1f %% of what a step moves is not explained: " % (100 * share)), title
assert "axis_dram_mb = 'DRAM traffic (MB/step)'" in script and "emulated on the host" in script.replace("'\ncaption_", " ")
PY
    # what could not be predicted has its one bar
    sqlite3 s.db "update run set config_json = 'no json'"
    "$emulated" plot s.db -o f --figure waterfall --run 1
    [ "$(tail -n +2 f/waterfall.tsv | cut -f2,5)" = "emulated	emulated: read and written" ]
    grep -q "^title_1 = 'full moves 0.[0-9]* MB per step, of" f/waterfall.gp
    # without counters there is nothing to draw
    sqlite3 s.db "delete from metric_value"
    run -1 --separate-stderr "$emulated" plot s.db -o f --figure waterfall
    [[ $stderr == *"the runs lack what figure waterfall needs: passes that counted what DRAM gave and took"* ]]
    [ ! -e f/waterfall.svg ]
}

@test "without counters the page says that there are none, and results have no traffic" {
    "$emulated" replay $trace -p full --backend cuda --repeat 1 -q --db s.db >/dev/null
    [ "$("$emulated" report s.db --format json | json '"traffic" in d')" = False ]
    [ "$("$emulated" report s.db | grep -c "^traffic")" = 0 ]
    "$emulated" report s.db -q -o page.html
    grep -q "No pass counted what DRAM gave and took" page.html
    # nor does a store that says so itself
    sqlite3 s.db "update run set result_json = json_set(result_json, '$.traffic', json('{\"bytes_per_step\":{\"measured\":1}}'))"
    [ "$("$emulated" report s.db | grep -c "^traffic")" = 0 ]
}

@test "what cannot be predicted is measured all the same, and the reason told" {
    need_fake
    counted $trace -p full -p recycled:k=16,stride=3 --batch 3 --phase spread
    sqlite3 s.db "delete from member_step where member = 2"
    [ "$("$emulated" report s.db --format json | json '[(r["traffic"]["missing"], r["traffic"]["unexplained_share"], r["traffic"]["bytes_per_step"]["kv"], r["traffic"]["bytes_per_step"]["measured"] > 0) for r in d]')" = \
        "[('the store does not hold what each of the batch read', None, None, True), ('the store does not hold what each of the batch read', None, None, True)]" ]
    [ "$("$emulated" report s.db | grep -c "^  not explained: the store does not hold what each")" = 2 ]
    counted $trace -p full
    # of a store that an earlier version wrote
    sqlite3 s.db "update run set config_json = json_remove(config_json, '$.model')"
    "$emulated" report s.db | grep -q "^  not explained: the store does not say what"
    sqlite3 s.db "update run set config_json = 'no json'"
    "$emulated" report s.db | grep -q "^  not explained: the store does not say what"
    counted "$sample" --layers 0 --steps 0..2 -p h2o:k=32 -p quest:k=32
    [ "$("$emulated" report s.db | grep -c "^  not explained: no formula says yet")" = 2 ]
    # hits that were counted are a bar of their own: 32 bytes a sector
    counted $trace -p full
    sqlite3 s.db "update metric_value set value = 10 where metric_id = (select id from metric_def where name = 'l2_from_l1_read_hit')"
    [ "$("$emulated" report s.db --format json | json 'd["traffic"]["bytes_per_step"]["l2_hits"]')" = -320.0 ]
    sqlite3 s.db "delete from metric_value where metric_id = (select id from metric_def where name = 'l2_from_l1_read_hit')"
    [ "$("$emulated" report s.db --format json | json 'd["traffic"]["bytes_per_step"]["l2_hits"]')" = None ]
    # a pass that is not whole does not count
    sqlite3 s.db "update pass set state = 'incomplete' where metric_set like '%:%'"
    [ "$("$emulated" report s.db --format json | json '"traffic" in d')" = False ]
}
