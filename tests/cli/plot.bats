#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# plot: figures say what the store holds; their titles follow the data; nothing else gets in.

load common

figures="error mass overlap retained time traffic"

draw() { # three schedules with full steps and without, into s.db
    "$rattn" replay synth:case=integer,P=64,N=32 -p full -p recycled:k=8,stride=4 \
        -p streaming:k=8 --repeat 3 -q --db s.db >/dev/null
}

text() { # VARIABLE FOLDER/NAME: the lines that the script sets, as one
    sed -n "s/^$1_[0-9]* = '\(.*\)'\$/\1/p" "$2.gp" | sed "s/''/'/g" | paste -sd ' '
}

title() { text title "$1"; }

retitle() { # FIGURE SQL: its title once the store says otherwise
    cp s.db other.db
    sqlite3 other.db "$2"
    "$rattn" plot other.db -o other --figure "$1" -q >/dev/null || return
    title "other/$1"
}

need_gnuplot() {
    command -v gnuplot >/dev/null || skip "gnuplot is not installed"
}

@test "every figure is drawn beside its table and script, the same bytes each time" {
    need_gnuplot
    draw
    run -0 --separate-stderr "$rattn" plot s.db -o "a b"
    [ "$(wc -l <<<"$output")" = 6 ]
    "$rattn" plot s.db -o c -q >/dev/null
    for name in $figures; do
        [ -s "a b/$name.svg" ] && [ -s "a b/$name.tsv" ] && [ -s "a b/$name.gp" ]
        grep -q "</svg>" "a b/$name.svg"
        cmp "a b/$name.svg" "c/$name.svg"
        rm "c/$name.svg" && (cd c && gnuplot -d "$name.gp") && cmp "a b/$name.svg" "c/$name.svg"
    done
}

@test "png and pdf are what they say, the same bytes each time" {
    need_gnuplot
    draw
    for format in png pdf; do
        "$rattn" plot s.db -o one --output $format --figure traffic >/dev/null
        sleep 1.1 # a date in the file would differ
        "$rattn" plot s.db -o two --output $format --figure traffic >/dev/null
        cmp one/traffic.$format two/traffic.$format
    done
    head -c 8 one/traffic.png | grep -qa PNG
    head -c 5 one/traffic.pdf | grep -qa %PDF-
}

@test "the tables hold the store's numbers" {
    need_gnuplot
    draw
    "$rattn" plot s.db -o d -q >/dev/null
    python3 - <<'PY'
import csv, sqlite3
db = sqlite3.connect("s.db")
rows = lambda name: list(csv.DictReader(open(f"d/{name}.tsv"), delimiter="\t"))
traffic = [r for r in rows("traffic") if r["series"] == "recycled:k=8,stride=4"]
want = db.execute("select step, sum(kv_read_bytes + kv_write_bytes) from layer_step"
                  " where run_id = 2 and step >= 0 group by step order by step").fetchall()
assert len(traffic) == 32 and all(abs(float(r["kv_mb"]) * 1e6 - b) < 1e-6 and int(r["step"]) == s
                                  for r, (s, b) in zip(traffic, want))
for r in traffic:
    times = sorted(t for (t,) in db.execute(
        "select sum(host_end_ns - host_start_ns) / 1e6 from scope_exec join scope on id = scope_id"
        " where run_id = 2 and kind = 'op' and step = ? group by pass_id", (r["step"],)))
    got = [float(r[c]) for c in ("time_low_ms", "time_ms", "time_high_ms")]
    assert max(abs(a - b) for a, b in zip(got, times)) < 1e-9, (got, times)
ages = {}
for step, layer, full, mass in db.execute("select step, layer, is_full, mass_recovered_mean from"
        " layer_step where run_id = 2 and step >= 0 order by layer, step"):
    last = -1 if step == 0 else last
    if full: last = step
    else: ages.setdefault(step - last, []).append(mass)
for r in rows("mass"):
    if r["series"].startswith("recycled"):
        m = ages[int(r["age"])]
        assert abs(float(r["mass_recovered"]) - sum(m) / len(m)) < 1e-12 and int(r["n"]) == len(m)
assert sum(1 for r in rows("overlap")) == db.execute(
    "select count(refresh_overlap) from layer_step where run_id = 2").fetchone()[0]
assert len(rows("retained")) == db.execute("select count(*) from retained where run_id = 2").fetchone()[0]
PY
}

@test "the title of traffic follows the data" {
    need_gnuplot
    draw
    [[ $(retitle traffic "") == "streaming:k=8 moves "*" of the KV bytes of full"* ]]
    # full and streaming change names
    [[ $(retitle traffic "update run set policy_id = 4 - policy_id where policy_id in (1, 3)") == "full moves "*" of the KV bytes of streaming:k=8"* ]]
    slow="update scope_exec set host_end_ns = host_start_ns + 1000 + 9000 * (scope_id in (select id from scope where run_id ="
    [[ $(retitle traffic "$slow 1))") == "streaming:k=8 moves "*" and takes "*" of its time" ]]
    [[ $(retitle traffic "$slow 3))") == *"; full takes "*" of the time of streaming:k=8" ]]
    same="update layer_step set kv_read_bytes = 1000, kv_write_bytes = 0; delete from scope_exec
        where scope_id in (select id from scope where name_id not in (select id from string_ids where value = 'attend'));
        update scope_exec set host_end_ns = host_start_ns + 1000"
    [ "$(retitle traffic "$same")" = "No difference in KV bytes per step; no difference in time" ]
}

@test "bars of time are the repeat with the median total, by operation" {
    need_gnuplot
    draw
    "$rattn" plot s.db -o d -q >/dev/null
    "$rattn" report s.db --format json >r.json
    python3 - <<'PY'
import csv, json
rows = list(csv.DictReader(open("d/time.tsv"), delimiter="\t"))
for i, run in enumerate(json.load(open("r.json")), 1):
    mine = [r for r in rows if int(r["row"]) == i]
    want = {op: ns / run["steps"] / 1e6 for op, ns in run["ops_ns"].items() if ns}
    got = {r["series"]: float(r["time_ms"]) for r in mine}
    assert set(got) == set(want) and all(abs(got[op] - want[op]) < 1e-9 for op in got), (got, want)
    at = 0
    for r in mine:
        assert abs(float(r["from_ms"]) - at) < 1e-9
        at += float(r["time_ms"])
        assert abs(float(r["total_ms"]) - run["attention_ns"]["total"] / run["steps"] / 1e6) < 1e-9
        assert float(r["low_ms"]) <= float(r["total_ms"]) <= float(r["high_ms"])
PY
}

@test "the title of time follows the data" {
    need_gnuplot
    draw
    times() { # ns of attend, select and refresh in the second run; the others attend only
        retitle time "delete from scope_exec where scope_id in (select s.id from scope s join string_ids t on t.id = name_id
            where run_id <> 2 and value <> 'attend' or value not in ('attend', 'select', 'refresh'));
            update scope_exec set host_end_ns = host_start_ns + 100 * (select case t.value when 'attend' then $1
                when 'select' then $2 else $3 end from scope s join string_ids t on t.id = name_id where s.id = scope_id)"
    }
    # each layer attends at 32 steps and selects and refreshes at 8
    [ "$(times 1 1 3)" = "recycled:k=8,stride=4 spends 50 % of its time outside attend, 38 % in refresh" ]
    [ "$(times 1 4 0)" = "recycled:k=8,stride=4 spends 50 % of its time outside attend: select" ]
    [ "$(times 1 0 0)" = "No operation but attend takes time" ]
    [ "$(retitle time "update run set method = 'synthetic'")" = "No device took these times: they are synthetic" ]
    [ "$(retitle time "delete from scope_exec where scope_id in (select id from scope where layer = 1 or name_id not in
        (select id from string_ids where value = 'attend')); update scope set kind = 'step', layer = null;
        update scope_exec set event_us = (host_end_ns - host_start_ns) / 1e3")" = \
        "Steps are timed as a whole, not by operation" ]
    grep -q ">whole step<" other/time.svg
    run -1 --separate-stderr retitle time "update run set method = null"
    [[ $stderr == *"lack what figure time needs: times of a backend"* ]]
}

@test "the title of mass follows the data, from a change of 0.02 on" {
    need_gnuplot
    draw
    set_mass() { retitle mass "update layer_step set mass_recovered_mean = $1 where run_id = 2"; }
    [ "$(set_mass "(step % 4) / 4.0")" = "recycled:k=8,stride=4: mass recovered rises from 0.00 to 0.50 within 3 steps of a refresh" ]
    [ "$(set_mass "(2 - step % 4) / 4.0")" = "recycled:k=8,stride=4: mass recovered falls from 0.50 to 0.00 within 3 steps of a refresh" ]
    [[ $(set_mass "0.5 + 0.0105 * (step % 4)") == *" rises from 0.50 to 0.52 "* ]]
    [[ $(set_mass "0.5 + 0.0095 * (step % 4)") == "No difference: mass recovered changes by 0.019 at most"* ]]
    one="update layer_step set is_full = abs(step % 2), mass_recovered_mean = 0.25 where run_id = 2"
    [ "$(retitle mass "$one")" = "recycled:k=8,stride=4 recovers 0.25 of the mass in the step after a refresh" ]
}

@test "the title of overlap follows the data" {
    need_gnuplot
    draw
    set_overlap() { retitle overlap "update layer_step set refresh_overlap = $1 where refresh_overlap is not null"; }
    [ "$(set_overlap "iif(layer = 0, 0.25, 0.75)")" = "recycled:k=8,stride=4: a refresh keeps 25 % of C_r in layer 0, 75 % in layer 1" ]
    [ "$(set_overlap "iif(layer = 0, 0.75, 0.25)")" = "recycled:k=8,stride=4: a refresh keeps 25 % of C_r in layer 1, 75 % in layer 0" ]
    [[ $(set_overlap 0.5) == *"no difference between layers; a refresh keeps 50 % of C_r" ]]
}

@test "the title of error follows the data" {
    need_gnuplot
    draw
    set_error() { retitle error "update layer_step set output_rel_err_mean = case run_id when 1 then 0 when 2 then $1 else $2 end"; }
    [[ $(set_error 0.1 0.3) == "recycled:k=8,stride=4 has the smallest error, 0.1 at "*"; streaming:k=8 moves least: 0.3 at "* ]]
    [[ $(set_error 0.3 0.1) == "streaming:k=8 has the smallest error, 0.1 at "*", and moves least" ]]
    [ "$(set_error 0.3 0.3)" = "No difference in output error between schedules: 0.3" ]
    [ "$(set_error 0 0)" = "No difference: no schedule has an output error" ]
}

@test "the title of retained follows the data" {
    need_gnuplot
    draw
    set_stays() { # condition on the position for which it stays
        retitle retained "delete from retained; insert into retained select 2, 1, 0, value, -1, iif($1, 31, 1) from json_each('[4, 5, 6]')"
    }
    [ "$(set_stays "value = 4")" = "recycled:k=8,stride=4: of 3 positions ever kept 1 stays throughout; half of the stays end within 2 steps" ]
    [ "$(set_stays "value <> 4")" = "recycled:k=8,stride=4: of 3 positions ever kept 2 stay throughout; half of the stays end within 32 steps" ]
    [[ $(set_stays 1) == *"no difference between steps: all 3 positions stay" ]]
}

@test "a bound is drawn as one, and no title commends it" {
    need_gnuplot
    "$rattn" replay synth:case=integer,P=64,N=32 -p recycled:k=8,stride=4 -p streaming:k=8 \
        -p oracle:k=4 --repeat 1 -q --db s.db >/dev/null
    sqlite3 s.db "update layer_step set output_rel_err_mean = 0.001 where run_id = 3"
    "$rattn" plot s.db -o d -q >/dev/null
    for name in error traffic mass; do
        [[ $(title d/$name) != *oracle* ]]
        grep -q "oracle:k=4 (a bound, no schedule)" d/$name.svg
        [ "$(grep -c "(a bound" d/$name.svg)" = 1 ]
        [ "$(grep -cE "^line_[0-9] = (259|[0-9])$" d/$name.gp)" = 3 ] && grep -qx "line_3 = 259" d/$name.gp
    done
}

@test "captions carry trace, model, device and method; --run chooses" {
    need_gnuplot
    draw
    "$rattn" plot s.db -o d -q >/dev/null
    caption=$(text caption d/traffic)
    for word in "synth:case=integer" "P = 64" "model synth:integer" "device" "(cpu)" "cpu-wall" "of 3 repeats"; do
        [[ $caption == *"$word"* ]]
    done
    "$rattn" plot s.db -o one --run 2 --figure traffic -q >/dev/null
    grep -qx "n_series = 1" one/traffic.gp
    "$rattn" replay synth:case=integer,P=32,N=8 -p full --repeat 1 -q --db s.db >/dev/null
    run -2 --separate-stderr "$rattn" plot s.db -o x --run 1 --run 4
    [[ $stderr == *"run 4: has trace"* ]]
    cp -r d x
    run -1 --separate-stderr "$rattn" plot s.db -o x --run 4 --figure overlap
    [[ $stderr == *"the runs lack what figure overlap needs: full steps that rebuild a recycled cache" ]]
    run -0 --separate-stderr "$rattn" plot s.db -o x
    [[ $stderr == *"figure mass left out: the runs lack full steps, steps between them, and their mass"* ]]
    # an earlier figure would pass for one of these runs
    for extension in svg tsv gp; do
        [ -e x/traffic.$extension ] && [ ! -e x/mass.$extension ]
    done
}

@test "compare: whether the paper's order of schedules is that of the errors" {
    need_gnuplot
    draw
    run -1 --separate-stderr "$rattn" plot s.db -o x --figure compare
    [[ $stderr == *"lack what figure compare needs: schedules that the paper ranks"* ]]
    rm s.db
    "$rattn" replay synth:case=integer,P=64,N=32 -p full -p recycled:k=8,stride=4 -p streaming:k=8 \
        -p snapkv:k=8,window=1 -p recycled:k=16,stride=4 -p oracle:k=8 --backend null -q --db s.db >/dev/null
    errors="update layer_step set output_rel_err_mean = case run_id when 2 then"
    [ "$(retitle compare "$errors 0.1 when 3 then 0.2 when 4 then 0.3 else 0 end")" = \
        "The paper's order holds: recycled, streaming, snapkv" ]
    [ "$(retitle compare "$errors 0.201 when 3 then 0.2 when 4 then 0.1 else 0.3 end")" = \
        "Not the paper's order: snapkv is ahead of recycled" ]
    # Rows: best first, full left out; the bytes are those of the store.
    python3 - <<'PY'
import csv, sqlite3
db = sqlite3.connect("other.db")
cost = dict(db.execute("select run_id, sum(kv_read_bytes + kv_write_bytes + selection_bytes) from layer_step"
                       " where step >= 0 group by run_id"))
rows = sorted(csv.DictReader(open("other/compare.tsv"), delimiter="\t"), key=lambda r: int(r["row"]))
names = [r["policy"].split(": ")[0] for r in rows]
assert names == ["snapkv:k=8,window=1", "streaming:k=8", "recycled:k=8,stride=4", "recycled:k=16,stride=4", "oracle:k=8"], names
for row, run in zip(rows, (4, 3, 2, 5, 6)):
    assert row["policy"].endswith(", %.1f %%" % (100 * cost[run] / cost[1])), (row, cost)
assert {r["series"] for r in rows if r["policy"].startswith("oracle")} == {"a bound, no schedule"}
PY
}

@test "axes say what the metric's row says" {
    need_gnuplot
    draw
    "$rattn" plot s.db -o d -q >/dev/null
    "$rattn" list metrics --format json >metrics.json
    python3 - <<'PY'
import json, xml.etree.ElementTree as tree
axes = {"error": "kv_mb output_rel_err", "mass": "age mass_recovered", "traffic": "step kv_mb time_ms",
        "overlap": "step layer refresh_overlap", "retained": "step pos"}
metrics = {m["name"]: m for m in json.load(open("metrics.json"))}
for figure, names in axes.items():
    texts = [e.text or "" for e in tree.parse(f"d/{figure}.svg").iter() if e.tag.endswith("}text")]
    for m in map(metrics.get, names.split()):
        axis = m["label"] + (f" ({m['unit']})" if m["unit"] else "")
        assert any(t.strip().startswith(axis) for t in texts), (figure, axis, texts)
PY
}

@test "what no backend measured is not drawn as time; long runs are drawn as means" {
    need_gnuplot
    "$rattn" replay synth:case=integer,P=64,N=301,layers=1 -p full -p recycled:k=8,stride=4 \
        --backend null -q --db s.db >/dev/null
    "$rattn" plot s.db -o d --figure traffic -q >/dev/null
    [[ $(text caption d/traffic) == *"time not measured; each point the mean of 2 steps" ]]
    [ "$(grep -c "ms/step" d/traffic.svg)" = 0 ]
    python3 - <<'PY'
import csv, sqlite3
want = [b for (b,) in sqlite3.connect("s.db").execute("select sum(kv_read_bytes + kv_write_bytes)"
        " from layer_step where run_id = 2 and step >= 0 group by step order by step")]
rows = [r for r in csv.DictReader(open("d/traffic.tsv"), delimiter="\t") if r["line"] == "2"]
assert len(rows) == 150 and all(not r["time_ms"] for r in rows)
assert all(abs(float(r["kv_mb"]) - (want[2 * i] + want[2 * i + 1]) / 2e6) < 1e-12 for i, r in enumerate(rows))
PY
}

@test "text of the store cannot leave its quotes, and is drawn as it is" {
    need_gnuplot
    draw
    "$rattn" plot s.db -o plain -q >/dev/null
    sqlite3 s.db <<'SQL'
update run set model_id = '''; system("touch owned"); `touch owned`' || char(10) || 'system(1)' || cast(x'ff' as text);
update policy set canonical = '"x'';system(`touch owned`);' || char(9) || 'y' where id = 1;
update policy set canonical = '#"p_q^r{s}@t&u~v\w\n%d<x>é' || cast(x'ff' as text) where id = 2;
update policy set canonical = (select group_concat('k=' || value || '000000', ',')
    from json_each('[1,2,3,4,5,6,7,8]')) where id = 3;
SQL
    for format in svg png pdf; do
        "$rattn" plot s.db -o d -q --output $format >/dev/null
    done
    [ ! -e owned ] && [ ! -e d/owned ]
    python3 - <<'PY'
import glob, xml.etree.ElementTree as tree
assert len(glob.glob("d/*.svg")) == len(glob.glob("d/*.png")) == len(glob.glob("d/*.pdf")) == 6
for name in glob.glob("d/*.svg"):
    text = "".join(e.text or "" for e in tree.parse(name).iter() if e.tag.endswith("}text"))
    shapes = [open(folder + name[1:]).read().count("<path") for folder in ("d", "plain")]
    assert shapes[0] == shapes[1], (name, shapes)
    cells = {line.count("\t") for line in open(name.replace("svg", "tsv"))}
    assert len(cells) == 1, (name, cells)
    if "time" in name:
        assert '#?p_q^r{s}@t&u~v?w?n%d<x>' in text, text
    if "error" in name or "traffic" in name:
        assert r'#"p_q^r{s}@t&u~v\w\n%d<x>' in text, text
        assert ",".join(f"k={i}000000" for i in range(1, 9)) in text.replace(" ", ""), text
PY
}

@test "what is missing is named" {
    draw
    run -3 --separate-stderr env PATH=/nowhere "$rattn" plot s.db -o d
    [[ $stderr == *gnuplot-nox* ]]
    run -2 --separate-stderr "$rattn" plot s.db -o d --figure trafic
    [[ $stderr == *"nearest is 'traffic'"* ]]
    run -2 --separate-stderr "$rattn" plot s.db
    run -1 --separate-stderr "$rattn" plot none.db -o d
    [ ! -e none.db ]
    run -1 --separate-stderr "$rattn" plot s.db -o /proc/none
    [[ $stderr == */proc/none* ]]
    sqlite3 s.db "update run set state = 'aborted'"
    run -1 --separate-stderr "$rattn" plot s.db -o d
    [[ $stderr == *"no complete replay"* ]]
    run -0 --separate-stderr "$rattn" list figures
    [[ $output == *traffic* ]]
}
