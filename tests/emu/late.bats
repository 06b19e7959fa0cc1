#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Steps in which the card waited for the host: the emulation says which, as its work takes no time. They
# are in no time that is told, and are counted wherever times are.

load emulated

trace=synth:case=drift,D=64,P=96,N=6,layers=3

# The letters are asked for before each of six steps and after the last, in each of three repeats.
replay() { # LETTERS ARGUMENTS of replay
    rm -f s.db
    RA_EMU_LATE=$1 "$emulated" replay "$trace" --backend cuda --repeat 3 -q --db s.db "${@:2}" --format json >r.json
}

sql() {
    sqlite3 s.db "$1"
}

# Of each pass: 1 for a step without a time, from the prefill on.
late_steps() { # of a run
    sql "select group_concat(x, ' ') from (select group_concat(late, '') x from (select p.ordinal, e.event_us is null late from scope_exec e
        join pass p on p.id = e.pass_id join scope s on s.id = e.scope_id where p.run_id = $1 and p.mode = 'bare' order by p.ordinal, s.step)
        group by ordinal order by ordinal)"
}

# Figures of the results beside those of the steps in the store; the pass that they are of.
check_times() {
    cat >check.py <<'PY'
import csv, html, json, math, os, re, sqlite3
results, ask = json.load(open("r.json")), sqlite3.connect("s.db").execute
near = lambda a, b: (a is None) == (b is None) and (a is None or math.isclose(a, b, rel_tol=1e-6))
mean = lambda x: sum(x) / len(x) if x else None
percentile = lambda x, p: sorted(x)[math.ceil(p * len(x) / 100) - 1]
text = open("out.html").read()
section = text[text.index('id="passes"'):text.index('id="warnings"')]
page = [[html.unescape(re.sub(r"<[^>]+>", "", c)) for c in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", r, re.S)]
        for r in re.findall(r"<tr>(.*?)</tr>", section, re.S)]
bars = list(csv.DictReader(open("d/time.tsv"), delimiter="\t")) if os.path.exists("d/time.tsv") else []
chosen = {}
for run, r in enumerate(results, 1):
    passes = [dict(ask("select s.step, e.event_us * 1000 from scope_exec e join scope s on s.id = e.scope_id where e.pass_id = ? and "
                       "s.kind = 'step' and s.step >= 0 and e.event_us is not null", p)) for p in
              ask("select id from pass where run_id = ? and mode = 'bare' order by ordinal", (run,)).fetchall()]
    ranked = sorted((mean(p.values()), i) for i, p in enumerate(passes))
    at = ranked[(len(ranked) - 1) // 2][1]
    steps = chosen[run] = passes[at]
    x = list(steps.values())
    told = r["attention_ns"]
    assert r["late_steps"] == 6 - len(x) and r["steps"] == 6, (r["late_steps"], x)
    assert near(told["total"], sum(x)) and near(told["per_step_mean"], mean(x)), (told, x)
    assert near(told["p50"], percentile(x, 50)) and near(told["p99"], percentile(x, 99)), (told, x)
    rows = [p for p in page if len(p) == 11 and p[0] == str(run) and p[3] == "bare"]
    assert [p[8] for p in rows] == [str(6 - len(p)) for p in passes], rows
    assert [p[9] for p in rows] == ["%.3f" % (sum(p.values()) / 1e6) for p in passes], rows
    assert [i for i, p in enumerate(rows) if p[10] == "times of the table"] == [at], rows
    for bar in [b for b in bars if b["row"] == str(run)]:
        assert near(float(bar["total_ms"]), mean(x) / 1e6) and near(float(bar["low_ms"]), ranked[0][0] / 1e6) and \
            near(float(bar["high_ms"]), ranked[-1][0] / 1e6), bar
assert len(bars) in (0, 2), bars
full, other = results
assert near(full["speedup_attention"], 1) and near(other["speedup_attention"],
    full["attention_ns"]["per_step_mean"] / other["attention_ns"]["per_step_mean"])
# steps 2 and 5 of the schedule are full
of = lambda full: mean([ns for t, ns in chosen[2].items() if (t in (2, 5)) == full])
over = lambda a: None if a is None else a / mean(chosen[1].values())
assert near(other["step_ratio"], over(of(False))) and near(other["refresh_step_ratio"], over(of(True))), (other, chosen)
PY
    "$emulated" report s.db -q -o out.html
    ! command -v gnuplot >/dev/null || "$emulated" plot s.db --figure time -o d -q
    python3 check.py
}

@test "a host that keeps ahead is late with no step" {
    replay "" -p full -p recycled:k=16,stride=3
    [ "$(late_steps 1)|$(late_steps 2)" = "0000000 0000000 0000000|0000000 0000000 0000000" ]
    [ "$(sql "select count(*) from diagnostic")" = 0 ]
    check_times
    run -0 "$emulated" report s.db
    [[ $output != *"late: "* ]]
}

@test "a card that has run dry waited at the end of one step and waits in the next; one that catches up, in the next" {
    replay "..d..c." -p full -p recycled:k=16,stride=3
    [ "$(late_steps 1)|$(late_steps 2)" = "0011001 0011001 0011001|0011001 0011001 0011001" ]
    check_times # no full step of the schedule is left
    # of other steps in each pass; the prefill is no step, and behind the last there is none
    replay "d..c....d" -p full -p recycled:k=16,stride=3
    [ "$(late_steps 1)" = "0100100 0111001 0001110" ]
    check_times
    [ "$(sql "select count(distinct output_hash) from scope_exec e join scope s on s.id = e.scope_id where s.step >= 0 and s.run_id = 1")" = 6 ]
    [ "$(sql "select distinct severity || ' ' || source from diagnostic")" = "warning replay" ]
    [[ $(sql "select message from diagnostic where run_id = 1") == "bare pass "*", whose times are told: "[234]" of 6 steps have none, since the device waited in them for the host" ]]
    run -0 "$emulated" report s.db
    [[ $output == *"late: up to "[234]" of 6 steps without a time: the device waited for the host"* ]]
}

@test "where every step is late there is no time, and no pass whose times are told" {
    replay d -p full -p recycled:k=16,stride=3
    [ "$(late_steps 2)" = "0111111 0111111 0111111" ]
    json 'all(x["late_steps"] == 6 and set(x["attention_ns"].values()) == {None, "synthetic"} and x["speedup_attention"] is None
        and x["step_ratio"] is None and x["tail_ratio"] is None for x in d)' <r.json | grep -qx True
    "$emulated" report s.db -q -o out.html
    [[ $(cat out.html) != *"times of the table</td>"* ]]
    [[ $(cat out.html) == *"its time was not measured"* ]]
    # but a pass that has some is told
    replay "ddddddddddddddc......" -p recycled:k=16,stride=3
    [ "$(late_steps 1)" = "0111111 0111111 0100000" ]
    [ "$(json 'd["late_steps"]' <r.json)" = 1 ]
}

@test "steps in pieces go at the host's pace, and are never late; nor are calls" {
    replay d -p recycled:k=16,stride=3 --no-graph
    [ "$(late_steps 1)" = "0000000 0000000 0000000" ]
    # the host waits for a decision in each step of the one, in none of the other
    replay d -p recycled:k=16,stride=1,sim=0.9 -p full --decide host
    [ "$(late_steps 1)|$(late_steps 2)" = "0000000 0000000 0000000|0111111 0111111 0111111" ]
    "$emulated" replay "$trace" -p full --backend cpu --repeat 1 -q --format json | json 'd["late_steps"]' | grep -qx 0
    "$emulated" replay "$trace" -p full --backend null -q --format json | json 'd["late_steps"]' | grep -qx None
}
