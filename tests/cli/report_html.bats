#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# report -o X.html: one page that needs nothing beside itself, says what the store says, and lets no
# text of the store become markup.

load common

draw() { # four schedules into s.db
    "$rattn" replay synth:case=integer,P=64,N=32 -p full -p recycled:k=8,stride=4 \
        -p streaming:k=8 -p oracle:k=8 --repeat 3 -q --db s.db "$@" >/dev/null
}

# page.py: load(FILE) checks that a page is whole and needs nothing, and gives it as a tree of lists.
write_parser() {
    cat >page.py <<'PY'
import html.parser, re
VOID = {"meta", "br", "link", "img", "input", "hr"}
ALLOWED = {"html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "nav", "ul", "li", "a",
           "main", "section", "p", "code", "pre", "dl", "dt", "dd", "div", "table", "thead", "tbody", "tr", "th", "td",
           "details", "summary", "figure", "figcaption", "b", "footer"}
SVG = {"svg", "desc", "g", "rect", "defs", "circle", "path", "use", "filter", "feflood", "fecomposite", "text", "tspan",
       "polygon", "clippath", "a", "ellipse", "image", "lineargradient", "stop"}

class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.ids, self.refs, self.tags = [], [], [], []
        self.sections, self.cells, self.section, self.rows = {}, None, None, {}
    def start(self, tag, attrs):
        assert tag in (SVG if "svg" in self.open or tag == "svg" else ALLOWED), (tag, self.getpos())
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            if name == "id": self.ids.append(value)
            if name == "id" and tag == "section": self.section = value; self.sections[value] = ""; self.rows[value] = []
            if name in ("href", "xlink:href", "src"):
                assert value.startswith("#"), value
                self.refs.append(value[1:])
            self.refs += re.findall(r"url\(#([^)]*)\)", value or "")
            assert "http" not in (value or "") or name.startswith("xmlns"), (name, value)
        if tag == "tr": self.rows.setdefault(self.section, []).append([])
    def handle_starttag(self, tag, attrs):
        self.start(tag, attrs)
        if tag not in VOID: self.open.append(tag)
    def handle_startendtag(self, tag, attrs):
        self.start(tag, attrs)
    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open, self.getpos())
        self.open.pop()
        if tag == "section": self.section = None
    def handle_data(self, data):
        if self.open and self.open[-1] == "style": assert "url(" not in data and "@import" not in data
        if self.section: self.sections[self.section] += data
        if self.section and self.open[-1] in ("td", "th"): self.rows[self.section][-1].append(data)
        if self.section and self.open[-2:] == ["td", "code"]: self.rows[self.section][-1].append(data)

def load(name):
    page = Page()
    text = open(name, encoding="utf-8").read()
    page.feed(text)
    page.close()
    assert text.startswith("<!DOCTYPE html>") and not page.open, page.open
    assert len(set(page.ids)) == len(page.ids), [i for i in page.ids if page.ids.count(i) > 1]
    assert set(page.refs) <= set(page.ids), set(page.refs) - set(page.ids)
    assert "<script" not in text.lower()
    return page

def verdict(name):
    return " ".join(load(name).sections["verdict"].replace("\u00a0", " ").split())
PY
}

setup_file() { export PYTHONDONTWRITEBYTECODE=1; }

verdict() { # of s.db after SQL
    cp s.db v.db
    sqlite3 v.db "$1" || return
    "$rattn" report v.db -q -o v.html || return
    python3 -c 'import page; print(page.verdict("v.html"))'
}

@test "a page is well formed, needs nothing and has every section" {
    draw
    write_parser
    run -0 --separate-stderr "$rattn" report s.db -o out.html
    [ -z "$output" ]
    [[ $stderr == *"wrote out.html"* ]]
    python3 - <<'PY'
import page
p = page.load("out.html")
assert list(p.sections) == ["verdict", "card", "policies", "figures", "eval", "refresh", "traffic", "kernels", "worst", "passes", "warnings"]
assert "No timing or counter pass was made" in p.sections["passes"]
assert "No pass counted what DRAM gave and took" in p.sections["traffic"]
assert "Every run and every pass is complete." in p.sections["warnings"]
assert "The runs left none." in p.sections["warnings"]
assert "open loop" in p.sections["verdict"] and "open loop" in p.sections["policies"]
PY
    for name in $("$rattn" list figures --format json | json '" ".join(f["name"] for f in d if f["kind"] == "replay")'); do
        grep -q "<figure id=\"figure-$name\">" out.html
    done
}

@test "the numbers of a page are those of the json and of the store" {
    draw
    write_parser
    "$rattn" report s.db -q -o out.html
    "$rattn" report s.db --format json >r.json
    python3 - <<'PY'
import json, page, sqlite3
p, results, db = page.load("out.html"), json.load(open("r.json")), sqlite3.connect("s.db")
head, *rows = p.rows["policies"]
assert head == ["run", "policy", "mass mean", "mass p05", "mass sparse", "error p95", "bytes % full", head[7],
                "speed up", "eff. stride"], head
scale = {"time us": 1e-3, "time ms": 1e-6}[head[7]]
show = lambda form, x: "-" if x is None else form % x
total = lambda r: r["kv_read_bytes"] + r["kv_write_bytes"] + r["selection_bytes"]
assert len(rows) == len(results) == 4
for i, (row, r) in enumerate(zip(rows, results), 1):
    time = scale * r["attention_ns"]["per_step_mean"]
    assert row[0] == str(i) and row[1].split(":")[0] == r["policy"].split(":")[0]
    assert [c for c in row[2:] if c != " (a bound)"] == [
        show("%.4f", r["mass_recovered"]["mean"]), show("%.4f", r["mass_recovered"]["p05"]),
        show("%.4f", r["on_recycled"]["mass_recovered"]["mean"]), show("%.4f", r["output_rel_err"]["p95"]),
        "%.1f" % (100 * total(r) / total(results[0])), ("%.3f" if time < 10 else "%.1f") % time,
        show("%.2f", r["speedup_attention"]), show("%.4g", r["effective_stride"])], (row, r)
head, row = p.rows["refresh"]
assert row[0] == "2" and row[3] == "%.4f" % results[1]["refresh_overlap"]["mean"], row
n = db.execute("select count(*) from layer_step where run_id = 2 and step >= 0 and is_full").fetchone()[0]
assert row[2] == str(n) and row[7] == "%.3f" % (results[1]["refresh_bytes"] / 1e6)
assert row[5] == "%.1f" % (results[1]["refresh_entries"] / n) and row[6] == "%.1f" % (results[1]["refresh_bytes"] / n / 1e3)
worst = [r for r in p.rows["worst"] if r[0] == "3"]
least = {layer: (min(m for m, _ in both), dict(both)) for layer in (0, 1) for both in [[(m, s) for m, s in db.execute(
    "select mass_recovered_min, step from layer_step where run_id = 3 and layer = ? and step >= 0 order by step desc", (layer,))]]}
assert [r[2:5] for r in worst[:2]] == [[str(l), "%.4f" % m, str(d[m])] for l, (m, d) in
                                       sorted(least.items(), key=lambda x: x[1][0])], (worst, least)
most = db.execute("select max(output_rel_err_max) from layer_step where run_id = 3 and step >= 0").fetchone()[0]
assert worst[2][3] == "%.4f" % most
assert not [r for r in p.rows["worst"] if r[0] == "1"] # full loses nothing
passes = [r for r in p.rows["passes"] if r[0] == "2"]
totals = [t for (t,) in db.execute("select sum(host_end_ns - host_start_ns) from scope_exec join scope s on s.id = scope_id"
    " join pass p on p.id = pass_id where p.run_id = 2 and step >= 0 group by pass_id order by pass_id")]
assert [r[9] for r in passes] == ["%.3f" % (t / 1e6) for t in totals] and len(passes) == 3
assert [r[10] == "times of the table" for r in passes] == [t == results[1]["attention_ns"]["total"] for t in totals]
assert all(r[3:5] == ["bare", "complete"] and r[7:9] == ["32", "0"] for r in passes)
PY
}

@test "the card says how to run it again" {
    "$rattn" replay synth:case=integer,P=32,N=8 -p full -p recycled:k=4,stride=4 --repeat 1 -q --db s.db >/dev/null
    sqlite3 s.db "update run set argv_json = json_array('rattn-sim', 'replay', 'a b', 'it''s', '', 'k=4,stride=4', '\$(x)')"
    write_parser
    "$rattn" report s.db -q -o out.html
    python3 - <<'PY'
import page, re, shlex, html
text = open("out.html").read()
line = html.unescape(re.search(r"<dt>command line</dt><dd><div class=\"wide\"><code class=\"copy\"[^>]*>(.*?)</code>", text).group(1))
assert shlex.split(line) == ["rattn-sim", "replay", "a b", "it's", "", "k=4,stride=4", "$(x)"], line
card = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))
assert card["runs"] == "1 to 2" and card["layers"] == "0, 1 of 2" and card["P, prompt tokens"] == "32"
assert card["method of times"] == "cpu-wall" and card["launch mode"] == "call" and card["repeats"] == "1"
PY
    sqlite3 s.db "update run set argv_json = 'no json', config_json = '{'"
    "$rattn" report s.db -q -o out.html
    [[ $(cat out.html) != *"<dt>command line"* ]]
}

@test "no text of the store becomes markup" {
    draw
    write_parser
    sqlite3 s.db <<'SQL'
update run set model_id = '</p><script>alert(1)</script>' || cast(x'ff01' as text), trace_path = '<b>&"''',
    device = '<img src=http://x>', launch_mode = '"><i>',
    result_json = json_set(result_json, '$.trace', '<b>&"''', '$.model', '</td><svg/onload=1>', '$.device', '<u>');
update policy set canonical = 'x"onclick=''1''<h1>&amp;' where id = 2;
insert into diagnostic(run_id, unix_ns, severity, source, message) values (2, 1000000000, 'warning', '<a>', '<b>it & "them"</b>');
SQL
    mkdir '<b>&'
    cp s.db '<b>&/"s.db'
    "$rattn" report '<b>&/"s.db' -q -o out.html
    python3 - <<'PY'
import page
p = page.load("out.html")
assert """<b>&"'""" in p.sections["card"] and """<b>&"'""" in p.sections["policies"]
assert "</p><script>alert(1)</script>?" in p.sections["card"]
assert "x\"onclick='1'<h1>&amp;" in p.sections["refresh"]
assert '<b>it & "them"</b>' in p.sections["warnings"]
PY
}

@test "without gnuplot the page is written and says so" {
    draw
    write_parser
    run -0 --separate-stderr env PATH=/nowhere "$rattn" report s.db -o out.html
    [[ $stderr == *"gnuplot is not in PATH"* ]]
    n=$("$rattn" list figures --format json | json 'sum(f["kind"] == "replay" for f in d)')
    python3 - "$n" <<'PY'
import page, sys
p = page.load("out.html")
assert p.sections["figures"].count("Not drawn: gnuplot: not found in PATH") == int(sys.argv[1]) - 2, p.sections["figures"]
assert p.sections["figures"].count("Not drawn: the runs lack schedules that the paper ranks") == 1
assert p.sections["traffic"].count("Not drawn: the runs lack passes that counted what DRAM gave and took") == 1
assert "mass_recovered" in p.sections["figures"] # the queries are there
PY
    [ "$(grep -c "<svg" out.html)" = 0 ]
    mkdir tmp
    TMPDIR=$PWD/tmp "$rattn" report s.db -q -o out.html
    [ -z "$(ls tmp)" ]
    run -1 --separate-stderr env TMPDIR=/proc/none "$rattn" report s.db -o other.html
    [[ $stderr == *"/proc/none"* ]]
    [ ! -e other.html ]
}

@test "the verdict follows the data" {
    draw
    write_parser
    mass() { echo "update run set result_json = json_set(result_json, '\$.mass_recovered.mean', case id when 2 then $1 when 3 then $2 else 1 end);"; }
    slow="update scope_exec set host_end_ns = host_start_ns + 1000 + 9000 * (scope_id in (select id from scope where run_id = 1));"
    half="update run set result_json = json_set(result_json, '\$.speedup_attention', 2.0);"
    [[ $(verdict "$(mass 0.75 0.5)$slow$half") == "recycled:k=8,stride=4 keeps the most attention of 2 schedules: 75.0 % of its mass"*", and takes 50.0 % of the attention time of full (cpu-wall, cpu backend on "*", median of 3 repeats, cache-resident)"* ]]
    [[ $(verdict "$(mass 0.25 0.5)") == "streaming:k=8 keeps the most attention of 2 schedules: 50.0 % of its mass"* ]]
    bytes=$("$rattn" report s.db --format json | json '"%.1f" % (100 * sum(d[2][k] for k in ("kv_read_bytes", "kv_write_bytes", "selection_bytes")) / sum(d[0][k] for k in ("kv_read_bytes", "kv_write_bytes", "selection_bytes")))')
    [[ $(verdict "$(mass 0.25 0.5)") == *"for $bytes % of the bytes of full attention"* ]]
    twice="${half/2.0/0.5}"
    [[ $(verdict "$(mass 0.75 0.5)update scope_exec set host_end_ns = host_start_ns + 1000 + 9000 * (scope_id in (select id from scope where run_id = 2));$twice") == *", but takes 200.0 % of the attention time of full"* ]]
    [[ $(verdict "$(mass 0.75 0.5)update scope_exec set host_end_ns = host_start_ns + 1000 where scope_id in (select id from scope where run_id <> 1 or name_id in (select id from string_ids where value = 'attend')); delete from scope_exec where scope_id in (select id from scope where name_id not in (select id from string_ids where value = 'attend'));$half") == *"does not differ from that of full by more than the repeats"* ]]
    [[ $(verdict "update run set result_json = json_set(result_json, '\$.attention_ns.method', 'synthetic')") == *"its times are synthetic, of no device"* ]]
    [[ $(verdict "update run set result_json = json_set(result_json, '\$.attention_ns', null)") == *"; its time was not measured"* ]]
    [[ $(verdict "update run set result_json = json_set(result_json, '\$.batch', 4)") == *", 4 copies of one trace"* ]]
    [[ $(verdict "update run set result_json = json_set(result_json, '\$.kv_read_bytes', 1000000000) where id in (2, 3)") == "Keep full attention: none of the schedules moves fewer bytes."* ]]
    [[ $(verdict "update run set result_json = json_remove(result_json, '\$.mass_recovered')") == "streaming:k=8 moves least, at "*"; what it keeps was not measured, on a synthetic trace; open loop"* ]]
    "$rattn" report s.db --run 1 --run 4 -q -o some.html
    [[ $(python3 -c 'import page; print(page.verdict("some.html"))') == "No schedule was replayed that could be chosen"* ]]
    "$rattn" report s.db --run 2 -q -o some.html
    [[ $(python3 -c 'import page; print(page.verdict("some.html"))') == *"not known, as full was not replayed with it"* ]]
}

@test "several invocations: a sentence, a card and a table each, in the order of the text" {
    fill
    write_parser
    "$rattn" report s.db -q -o out.html
    python3 - <<'PY'
import page
p = page.load("out.html")
v = page.verdict("out.html")
assert v.startswith("Runs 1, 2: recycled:k=4,stride=4 ") and " Run 3: recycled:k=5,stride=4 " in v, v
assert [r[0] for r in p.rows["policies"]] == ["run", "1", "2", "run", "3"]
assert open("out.html").read().count("<dl>") == 2
PY
}

@test "what went wrong is on the page" {
    draw
    write_parser
    sqlite3 s.db <<'SQL'
update run set state = 'aborted', result_json = null where id = 4;
update pass set state = 'failed' where run_id = 2 and ordinal = 2;
update pass set launches_expected = 100, kernels_recorded = 98, records_dropped = 2 where run_id = 3 and ordinal = 0;
update pass set mode = 'timing' where run_id = 3 and ordinal = 2;
insert into diagnostic(pass_id, unix_ns, severity, source, message) select id, 0, 'error', 'cupti', 'lost two'
    from pass where run_id = 2 and ordinal = 2;
SQL
    run -0 --separate-stderr "$rattn" report s.db -o out.html
    [[ $stderr == *"1 run without a result left out"* ]]
    python3 - <<'PY'
import page, sqlite3
p = page.load("out.html")
w = p.rows["warnings"]
assert w[1][:1] + w[1][3:] == ["2", "failed bare pass"] and w[2][:1] + w[2][3:] == ["4", "aborted"], w
assert w[4][:3] == ["error", "2", "2"] and w[4][4] == "cupti" and w[4][6] == "lost two", w
lost = [r for r in p.rows["passes"] if len(r) == 8]
assert lost[1] == ["3", "0", "bare", "100", "98", "–", "2", "–"], lost
t = [t for (t,) in sqlite3.connect("s.db").execute("select sum(host_end_ns - host_start_ns) from scope_exec join scope s on s.id = scope_id"
    " join pass p on p.id = pass_id where p.run_id = 3 and step >= 0 group by pass_id order by pass_id")]
over = [r for r in p.rows["passes"] if len(r) == 6]
assert over[1][2:] == ["2", "timing", "cpu-wall", "%.3f" % (t[2] / min(t[:2]))], (over, t)
assert [r[10] for r in p.rows["passes"] if len(r) == 11 and r[0] == "3"][2] == "–"
PY
    sqlite3 s.db "update run set state = 'aborted', result_json = null"
    "$rattn" report s.db -q -o none.html
    python3 -c 'import page; p = page.load("none.html"); assert "hold no result" in p.sections["verdict"] and "No complete replay" in p.sections["figures"]'
}

@test "a page that cannot be written is an error that names it" {
    fill
    run -1 --separate-stderr "$rattn" report s.db -o /proc/none/x.html
    [[ $stderr == *"/proc/none/x.html"* ]]
    ln -s /dev/full full.html
    run -1 --separate-stderr "$rattn" report s.db -o full.html
    [[ $stderr == *"full.html: No space left"* ]]
    run -1 --separate-stderr "$rattn" report none.db -o out.html
    [ ! -e out.html ]
}
