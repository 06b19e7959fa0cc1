#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# plot: figures say what the store holds; their titles follow the data; nothing else gets in.

load common

figures="error mass overlap retained traffic"

draw() { # three schedules with full steps and without, into s.db
    "$rattn" replay synth:case=integer,P=64,N=32 -p full -p recycled:k=8,stride=4 \
        -p streaming:k=8 --repeat 3 -q --db s.db >/dev/null
}

text() { # VARIABLE FOLDER/NAME: the text that the script sets, in one line
    sed -n "s/^$1 = //p" "$2.gp" | tr -d "'\"" | sed 's/\.\\n\./ /g'
}

title() { text title "$1"; }

need_gnuplot() {
    command -v gnuplot >/dev/null || skip "gnuplot is not installed"
}

@test "every figure is drawn beside its table and script, the same bytes each time" {
    need_gnuplot
    draw
    run -0 --separate-stderr "$rattn" plot s.db -o "a b"
    [ "$(wc -l <<<"$output")" = 5 ]
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
        assert abs(float(r["mass"]) - sum(m) / len(m)) < 1e-12 and int(r["n"]) == len(m)
assert sum(1 for r in rows("overlap")) == db.execute(
    "select count(refresh_overlap) from layer_step where run_id = 2").fetchone()[0]
assert len(rows("retained")) == db.execute("select count(*) from retained where run_id = 2").fetchone()[0]
PY
}

@test "titles follow the data: swapped policies change them, equal ones give no difference" {
    need_gnuplot
    draw
    "$rattn" plot s.db -o before -q >/dev/null
    cp s.db swapped.db
    # full and streaming change names, and so do the two sides of every claim about them
    sqlite3 swapped.db "update run set policy_id = 4 - policy_id where policy_id in (1, 3);
        update layer_step set refresh_overlap = 1 - refresh_overlap;
        update layer_step set mass_recovered_mean = (step % 4) / 4.0 where run_id = 2"
    "$rattn" plot swapped.db -o after -q >/dev/null
    [[ $(title before/traffic) == "streaming:k=8 moves "*" of the KV bytes of "* ]]
    [[ $(title after/traffic) == "full moves "* ]]
    for name in traffic mass overlap error; do
        [ "$(title before/$name)" != "$(title after/$name)" ]
    done
    [[ $(title after/mass) == *" rises from 0.00 to 0.50 "* ]]
    cp s.db equal.db
    sqlite3 equal.db "update layer_step set kv_read_bytes = 1000, kv_write_bytes = 0,
        output_rel_err_mean = 0.25, mass_recovered_mean = 0.5;
        update layer_step set refresh_overlap = 0.5 where refresh_overlap is not null;
        update scope_exec set host_end_ns = host_start_ns + 1000;
        delete from scope_exec where scope_id in (select id from scope where name_id not in
          (select id from string_ids where value = 'attend'));
        delete from retained where first_step >= 0; update retained set last_step = 31"
    "$rattn" plot equal.db -o equal -q >/dev/null
    for name in $figures; do
        [[ $(title equal/$name) == *[Nn]"o difference"* ]]
    done
    [[ $(title equal/traffic) == *"no difference in time"* ]]
}

@test "captions and labels carry trace, model, device and method; --run chooses" {
    need_gnuplot
    draw
    "$rattn" plot s.db -o d -q >/dev/null
    caption=$(text caption d/traffic)
    for word in "synth:case=integer" "P = 64" "device" "(cpu)" "cpu-wall" "of 3 repeats"; do
        [[ $caption == *"$word"* ]]
    done
    "$rattn" plot s.db -o one --run 2 --figure traffic -q >/dev/null
    [ "$(grep -c '^series_' one/traffic.gp)" = 1 ]
    "$rattn" replay synth:case=integer,P=32,N=8 -p full --repeat 1 -q --db s.db >/dev/null
    run -2 --separate-stderr "$rattn" plot s.db -o x --run 1 --run 4
    [[ $stderr == *"run 4: has trace"* ]]
    run -1 --separate-stderr "$rattn" plot s.db -o x --run 4 --figure overlap
    [[ $stderr == *"nothing for figure overlap"* ]]
    [ ! -e x/overlap.tsv ]
}

@test "text of the store cannot leave its quotes" {
    need_gnuplot
    draw
    sqlite3 s.db "update run set model_id = '''; system(\"touch owned\"); \`touch owned\`' || char(10) || 'system(1)'"
    sqlite3 s.db "update policy set canonical = 'x'';system(\"touch owned\");' || char(9) || 'y' where id = 2"
    "$rattn" plot s.db -o d -q >/dev/null
    [ ! -e owned ] && [ ! -e d/owned ]
    [ -s d/traffic.svg ]
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
