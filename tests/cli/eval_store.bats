#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Runs of eval and record in a store: what is kept, what reports and figures make of it, and what other
# commands say to it. A tiny random model decodes; its figures mean nothing, but they must agree.

load common

setup_file() {
    export TINY=$BATS_FILE_TMPDIR
    /usr/bin/python3 "$BATS_TEST_DIRNAME/../../traces/tools/tiny_models.py" "$TINY" llama
    mkdir "$TINY/texts"
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$BATS_TEST_DIRNAME/../../traces/tools /usr/bin/python3 - "$TINY" <<'PY'
import sys
import numpy as np, safetensors_io
ids = safetensors_io.Reader(sys.argv[1] + "/llama.ids.safetensors").raw("tokens")
for i in range(3):
    safetensors_io.write(f"{sys.argv[1]}/texts/{i}.safetensors", [("tokens", "I32", ids[90 * i : 90 * i + 90].copy())],
                         {"format": "rattn-tokens", "version": "1.0"})
rng, n = np.random.default_rng(3), 6
tokens = rng.integers(0, 97, 30 * n).astype(np.int32)
safetensors_io.write(sys.argv[1] + "/prompts", [("tokens", "I32", tokens), ("lengths", "I32", np.full(n, 30, np.int32)),
    ("prompt_len", "I32", np.full(n, 24, np.int32)), ("seed", "I64", np.arange(n) - 2),
    ("depth", "F32", np.array([0.5] * (n - 1) + [np.nan], np.float32)),
    ("probe", "I32", np.array([(i, 24 + j) for i in range(n) for j in (1, 4)], np.int32))],
    {"format": "rattn-prompts", "version": "1.0", "task": "niah:made=up", "family": "niah"})
PY
}

fill_evals() { # s.db: a task of texts and one of prompts under two schedules and full, and a recording
    "$rattn" eval "$TINY/llama" --task "ppl:dir=$TINY/texts,prompt=60,steps=24" --task "niah:file=$TINY/prompts" \
        -p streaming:k=8 -p recycled:k=8,stride=4 --dtype f32 --seed 7 --db s.db -q --format json --per-token >eval.json
    "$rattn" record "$TINY/llama" --tokens "$TINY/texts/0.safetensors" --prompt-len 60 -n 12 -o run.safetensors \
        --db s.db -q --format json >record.json
}

sql() { sqlite3 s.db "$1"; }

need_sqlite() { command -v sqlite3 >/dev/null || skip "needs sqlite3"; }
need_gnuplot() { command -v gnuplot >/dev/null || skip "gnuplot is not installed"; }

@test "a run holds its result, the figures and every text and prompt, as the json has them" {
    fill_evals
    python3 - "$TINY" <<'PY'
import json, math, sqlite3, sys
db, results = sqlite3.connect("s.db"), json.load(open("eval.json"))
runs = db.execute("select run.id, state, kind, command, canonical, trace_path, trace_sha256, seq, model_id, backend, dtype,"
    " seed, method, config_json, argv_json, result_json, invocation_uuid from run left join policy p on p.id = policy_id"
    " where kind = 'eval' order by run.id").fetchall()
assert len(runs) == len(results) == 6 and len({r[-1] for r in runs}) == 1
near = lambda a, b: a is b is None or abs(a - b) < 1e-12
for row, result in zip(runs, results):
    run, state, kind, command, policy, path, sha, seq, model, backend, dtype, seed, method, config, argv, stored, _ = row
    is_ppl = result["task"] == "ppl"
    assert (state, command, policy, sha, seq, method) == ("complete", "eval", result["policy"], None, None, None)
    assert (model, backend, dtype, seed) == ("tiny-llama", "cpu", "f32", 7)
    assert path == sys.argv[1] + ("/texts" if is_ppl else "/prompts") and json.loads(stored) == result
    config = json.loads(config)
    assert config["task"] == result["spelling"] and config["model_sha256"] == "0" * 64 and config["cwd"]
    assert config["model_dir"] == sys.argv[1] + "/llama" and config["threads"] == 0 and config["per_token"] is True
    assert json.loads(argv)[1:3] == ["eval", sys.argv[1] + "/llama"] and "--seed" in argv
    found = {m: (u, v, l, h, n) for m, u, v, l, h, n in db.execute(
        "select metric, unit, value, low, high, n_samples from eval_result where run_id = ? and task = ?", (run, result["task"]))}
    wanted = {"nll": "nat", "ppl": "1", "keys_share": "1", "effective_stride": "steps"}
    wanted |= {} if is_ppl else {"accuracy": "1", "hits": "1", "margin": "logit", "baseline_accuracy": "1"}
    for name, unit in wanted.items():
        value = result[name]
        assert (name in found) == (value is not None), name
        assert value is None or found[name] == (unit, value, None, None, result["texts"]), (name, found[name], value)
    for name, unit in {"delta_nll": "nat", "kl": "nat", **({} if is_ppl else {"delta_accuracy": "1"})}.items():
        d = result[name]
        assert found[name] == (unit, d["mean"], d["low"], d["high"], result["texts"]), (name, found[name], d)
    assert set(found) == {n for n in wanted if result[n] is not None} | {"delta_nll", "kl"} | ({"delta_accuracy"} - ({"delta_accuracy"} if is_ppl else set()))
    samples = db.execute("select sample, name, seed, depth, prompt_len, steps, nll, kl, correct, hits, margin from eval_sample"
        " where run_id = ? and task = ? order by sample", (run, result["task"])).fetchall()
    assert len(samples) == len(result["documents"]) == (3 if is_ppl else 6)
    for i, (sample, d) in enumerate(zip(samples, result["documents"])):
        assert sample[:2] == (i, d["document"]) and sample[4:6] == (d["prompt_len"], d["steps"])
        assert near(sample[6], sum(d["nll"]) / len(d["nll"])) and near(sample[7], sum(d["kl"]) / len(d["kl"]))
        assert sample[2] == (None if is_ppl else i - 2) and sample[3] == (None if is_ppl or i == 5 else 0.5)
        assert sample[8:] == ((None,) * 3 if is_ppl else (d["right"], d["hits"], d["margin"])), (sample, d)
    if not is_ppl:  # what is told of the task follows from its prompts
        assert near(result["accuracy"], sum(s[8] for s in samples) / 6) and near(result["margin"], sum(s[10] for s in samples) / 6)
PY
}

@test "the stored command line, run in the stored folder, gives the same result again" {
    need_sqlite
    fill_evals
    sql "select value from run, json_each(argv_json) where run.id = 2 order by json_each.key" >words
    mapfile -t words <words
    (cd "$(sql "select config_json ->> 'cwd' from run where id = 2")" && "$rattn" "${words[@]:1}" --threads 1 >again.json 2>/dev/null)
    [ "$(sql "select count(distinct invocation_uuid) || ' ' || count(*) from run where kind = 'eval'")" = "2 12" ]
    [ "$(sql "select count(*) from eval_result a join eval_result b on a.run_id + 7 = b.run_id and a.task = b.task
        and a.metric = b.metric where a.run_id <= 6 and abs(a.value - b.value) < 1e-4")" = "$(sql "select count(*) from eval_result where run_id <= 6")" ]
}

@test "new runs are named on stderr, unless quiet; without --db nothing is stored" {
    task=ppl:file=$TINY/texts/0.safetensors,steps=4
    run -0 --separate-stderr "$rattn" eval "$TINY/llama" --task "$task" -p streaming:k=8 --db s.db
    [ "$stderr" = "s.db: runs 1 2" ]
    run -0 --separate-stderr "$rattn" record "$TINY/llama" --tokens "$TINY/texts/0.safetensors" -n 4 -o r --db s.db
    [ "$stderr" = "s.db: run 3" ]
    run -0 --separate-stderr "$rattn" eval "$TINY/llama" --task "$task" -p streaming:k=8 --db s.db -q
    [ -z "$stderr" ]
    rm s.db
    "$rattn" eval "$TINY/llama" --task "$task" -p streaming:k=8
    [ -z "$(ls -- *.db* 2>/dev/null)" ]
}

@test "a recording's run has the trace, its checksum, its tokens and its perplexity" {
    need_sqlite
    fill_evals
    [ "$(sql "select state || ' ' || kind || ' ' || trace_path || ' ' || model_id || ' ' || schedule_of_trace from run where id = 7")" = \
        "complete record run.safetensors tiny-llama full" ]
    [ "$(sql "select trace_sha256 from run where id = 7")" = "$("$rattn" info run.safetensors --format json | json 'd["content_sha256"] if "content_sha256" in d else d["sha256"]')" ]
    sql "select result_json from run where id = 7" | python3 -c 'import json, sys; assert json.load(sys.stdin) == json.load(open("record.json"))'
    [ "$(sql "select result_json ->> 'tokens' = config_json ->> 'tokens' and config_json ->> 'cwd' is not null from run where id = 7")" = 1 ]
    # a replay of it lies beside it, and neither changes the other
    "$rattn" replay run.safetensors -p full -q --db s.db >/dev/null
    [ "$(sql "select group_concat(kind, ' ') from run where id > 6")" = "record replay" ]
}

@test "interrupted, and failed, runs say so and keep no result" {
    need_sqlite
    task=ppl:file=$TINY/llama.ids.safetensors,prompt=100,steps=890
    words=()
    for k in $(seq 8 40); do words+=(-p "recycled:k=$k,stride=2"); done
    # a shell without job control starts background work with SIGINT ignored
    env --default-signal=INT "$rattn" eval "$TINY/llama" --task "$task" "${words[@]}" --db s.db -q >out 2>said &
    pid=$!
    for _ in $(seq 200); do
        [ -e s.db ] && [ "$(sqlite3 -readonly s.db "select count(*) from run" 2>/dev/null)" = 34 ] && break
        sleep 0.05
    done
    [ "$(sqlite3 -readonly s.db "select distinct state from run")" = running ]
    kill -INT $pid
    status=0
    wait $pid || status=$?
    [ $status -eq 130 ] && [ ! -s out ]
    [ "$(sql "select state, count(*), count(result_json), count(ended_unix_ns) from run group by state")" = "aborted|34|0|34" ]
    [ "$(sql "select count(*) from eval_result")$(sql "select count(*) from eval_sample")" = 00 ]
    [[ $(sql "select message from diagnostic limit 1") == *interrupted* ]]
    # what fails on the way fails its runs alone
    run -1 "$rattn" record "$TINY/llama" --tokens "$TINY/texts/0.safetensors" -n 4 -o no/such/folder --db s.db
    [ "$(sql "select count(*) from run where kind = 'record' and state <> 'failed'")" = 0 ]
}

@test "list, compare and export take such runs for what they are" {
    need_sqlite
    fill_evals
    "$rattn" replay run.safetensors -p full -q --db s.db >/dev/null
    run -0 "$rattn" list runs s.db -v
    [[ $output == *"eval $TINY/texts, cpu"* && $output != *"sequence -1"* ]]
    [ "$("$rattn" list runs s.db --format json | json '[d[i]["sequence"] for i in (0, 6, 7)]')" = "[None, None, 0]" ]
    run -2 --separate-stderr "$rattn" compare s.db --run 1 --run 2
    [[ $stderr == "rattn-sim: run 1: expected a replay to compare, got eval" ]]
    run -2 --separate-stderr "$rattn" compare s.db --run 8 --run 7
    [[ $stderr == "rattn-sim: run 7: expected a replay to compare, got record" ]]
    for form in csv perfetto "nsys -o n.sqlite"; do
        # shellcheck disable=SC2086 # words
        run -2 --separate-stderr "$rattn" export s.db --run 1 --as $form
        [[ $stderr == *"run 1"* ]]
    done
}

@test "the report has closed loops in tables of their own, and says what they are" {
    need_sqlite
    fill_evals
    "$rattn" replay run.safetensors -p full -p streaming:k=8 --repeat 1 -q --db s.db >/dev/null
    "$rattn" report s.db >said
    [ -z "$(awk 'length > 80' said)" ]
    grep -q "^closed loop: the model decoded under each schedule" said
    grep -q "^recorded run.safetensors: tiny-llama" said
    [ "$(grep -c "^open loop: " said)" = 1 ] # of the replay alone
    python3 - <<'PY'
import json, re
text, results = open("said").read(), json.load(open("eval.json"))
tables = re.split(r"(?m)^task ", text)[1:]
assert [t.split(":")[0] for t in tables] == ["ppl", "niah"], tables
for r in results:
    table = tables[r["task"] != "ppl"]
    name = "full" if r["policy"] == "full" else ",".join(w for w in r["policy"].split(",") if re.match(r"(\w+:)?(k|stride)=\d", w))
    line, below = re.search(r"(?m)^%s +(\S.*)\n +(\S.*)$" % re.escape(name), table).groups()
    d, cells = r["delta_nll"], line.split()
    assert cells[0] == "%.4f" % r["nll"] and cells[1] == "%+.4f" % d["mean"], (cells, r["nll"])
    assert below.split()[0] == "%+.4f..%+.4f" % (d["low"], d["high"]), (below, d)
    assert cells[-2] == "%.1f" % (100 * r["keys_share"])
    assert cells[-1] == ("-" if r["effective_stride"] is None else "%.4g" % r["effective_stride"])
    if r["task"] != "ppl":  # a random model answers nothing: the gate is shut
        assert cells[3:5] == ["n/a", "n/a"] and "right is n/a (baseline %.1f %%)" % (100 * r["baseline_accuracy"]) in " ".join(table.split())
    bins = [b for b in r["by_since"]] if r["policy"] != "full" else []
    for b in bins:
        span = str(b["from"]) if b["from"] == b["to"] else "%d-%d" % (b["from"], b["to"])
        assert "%s: %+.4f (%d)" % (span, b["delta_nll"], b["n"]) in table, (span, table)
PY
    "$rattn" report s.db --format json | json '[r["policy"].split(":")[0] for r in d if "task" in r]' >names
    [ "$(cat names)" = "['streaming', 'recycled', 'full', 'streaming', 'recycled', 'full']" ]
}

@test "the page has them too, apart from the replays" {
    need_sqlite
    fill_evals
    "$rattn" report s.db -q -o alone.html
    grep -q "Nothing was replayed" alone.html
    "$rattn" replay run.safetensors -p full --repeat 1 -q --db s.db >/dev/null
    "$rattn" report s.db -q -o out.html
    python3 - <<'PY'
import html, json, re
page, results = open("out.html").read(), json.load(open("eval.json"))
part = re.search(r'<section id="eval">.*?</section>', page, re.S)[0]
policies = re.search(r'<section id="policies">.*?</section>', page, re.S)[0]
assert "closed loop: the model" in part and "closed loop: the model" not in policies and policies.count("<tbody>") == 1
rows = [[html.unescape(re.sub("<[^>]*>", "", c)) for c in re.findall(r"<td.*?</td>", row)]
        for row in re.findall(r"<tr>.*?</tr>", re.sub(r"<svg.*?</svg>", "", part, flags=re.S)) if row.count("<td") > 3]
assert len(rows) == 6
for i, (row, r) in enumerate(zip(rows, results), 1):
    d = r["delta_nll"]
    assert row[0] == str(i) and row[2] == "%.4f" % r["nll"]
    assert row[3] == "%+.4f [%+.4f..%+.4f]" % (d["mean"], d["low"], d["high"]) and row[5] == "%.2f" % r["ppl"]
    if r["task"] != "ppl": assert row[6] == "n/a (baseline %.1f %%)" % (100 * r["baseline_accuracy"])
for name in ("delta", "drift"):
    assert f'<figure id="figure-{name}">' in part and f'id="figure-{name}"' not in page.replace(part, "")
PY
}

@test "figures hold the store's numbers, of one task, and their titles follow them" {
    need_gnuplot
    need_sqlite
    fill_evals
    run -0 --separate-stderr "$rattn" plot s.db -o d
    [ "$output" = "d/delta.svg
d/drift.svg" ]
    [[ $stderr == *"3 runs of another model, task or decoder left out"* ]]
    python3 - <<'PY'
import csv, json, sqlite3
results = [r for r in json.load(open("eval.json")) if r["task"] == "ppl"]
rows = list(csv.DictReader(open("d/delta.tsv"), delimiter="\t"))
assert len(rows) == 3
for row, r in zip(rows, results):
    d = r["delta_nll"]
    for name, value in (("keys_share", r["keys_share"]), ("delta_nll", d["mean"]), ("low", d["low"]), ("high", d["high"])):
        assert abs(float(row[name]) - value) < 1e-12, (name, row, value)
rows = list(csv.DictReader(open("d/drift.tsv"), delimiter="\t"))
want = [(b["from"].bit_length(), b["from"], b["delta_nll"], b["n"]) for r in results[:2] for b in r["by_since"]]
got = [(int(r["bin"]), int(r["age"]), float(r["delta_nll"]), int(r["n"])) for r in rows]
assert len(got) == len(want) and all(a[:2] == b[:2] and a[3] == b[3] and abs(a[2] - b[2]) < 1e-12 for a, b in zip(got, want)), (got, want)
PY
    title() { sed -n "s/^title_[0-9]* = '\(.*\)'\$/\1/p" "$1.gp" | paste -sd ' '; }
    sql "update eval_result set value = iif(run_id = 1, 0.5, 0.25) where metric = 'delta_nll' and task = 'ppl' and run_id < 3;
        update eval_result set value = iif(run_id = 1, 0.1, 0.4) where metric = 'keys_share' and task = 'ppl' and run_id < 3"
    "$rattn" plot s.db -o e -q >/dev/null
    [ "$(title e/delta)" = "recycled:k=8,stride=4 loses least, +0.250 nats per token at 40 % of the keys; streaming:k=8 reads least: +0.500 at 10 %" ]
    sql "update eval_result set value = 0 where metric = 'delta_nll' and run_id = 1"
    "$rattn" plot s.db -o e -q >/dev/null
    [ "$(title e/delta)" = "streaming:k=8 loses nothing at 10 % of the keys, and reads least" ]
    sql "update run set result_json = json_set(result_json, '\$.by_since', json('[{\"from\":1,\"to\":1,\"n\":4,\"delta_nll\":0.1},{\"from\":2,\"to\":3,\"n\":4,\"delta_nll\":0.9}]')) where id = 2;
        update run set result_json = json_remove(result_json, '\$.by_since') where id = 1"
    "$rattn" plot s.db -o e -q >/dev/null
    [[ $(title e/drift) == "recycled:k=8,stride=4: +0.100 nats per token in the step after a full one, +0.900 from 2 steps on" ]]
    "$rattn" plot s.db -o f --run 4 --run 5 --run 6 --figure delta -q
    [ "$(tail -n +2 f/delta.tsv | wc -l)" = 3 ]
    run -1 --separate-stderr "$rattn" plot s.db -o f --figure mass
    [[ $stderr == *"the runs lack what figure mass needs"* ]]
    run -2 --separate-stderr "$rattn" plot s.db -o f --run 7
    [[ $stderr == *"run 7: expected a complete replay with layer-steps, or a complete eval, got record complete"* ]]
}
