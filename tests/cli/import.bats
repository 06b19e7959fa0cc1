#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# import: results of another decoder beside runs of eval; figures recomputed in python, and what is not
# as it should be refused by name.

load common

# made.json, and change EXPRESSION: the same with a statement over d, its value, run first, into bad.json
setup_file() {
    export MADE=$BATS_FILE_TMPDIR
    python3 - "$MADE" <<'PY'
import json, random, sys
random.seed(4)
def text(i, keys, full):
    return {"document": f"texts/{i}.ids", "prompt_len": 40 + i, "steps": 5, "nll": [random.uniform(1, 4) for _ in range(5)],
            "keys_read": keys, "full_layer_steps": full, "layers": [0, 1, 2],
            "hf_wall": {"prefill_s": 0.5, "decode_s": 0.25, "method": "hf-wall"}}
def prompt(i, right):
    return {"document": str(i), "prompt_len": 30, "steps": 3, "nll": [random.uniform(0, 2) for _ in range(3)],
            "right": right, "hits": 1.0 if right else 0.5, "margin": random.uniform(-1, 1), "seed": i - 3, "depth": i / 10}
rows = [("ppl", "streaming:k=8", [text(i, 40, 0) for i in range(4)]), ("ppl", "full", [text(i, 100, 15) for i in range(4)]),
        ("ppl", "recycled:k=8,stride=2", [text(i, 60, 6) for i in range(4)]),
        ("niah", "full", [prompt(i, i != 3) for i in range(10)]), ("niah", "tova:k=8", [prompt(i, i % 2 == 0) for i in range(10)]),
        ("vt", "full", [prompt(i, i < 7) for i in range(10)]), ("vt", "tova:k=8", [prompt(i, i < 2) for i in range(10)]),
        ("alone", "tova:k=8", [prompt(i, True) for i in range(2)])]
made = {"format": "rattn-eval", "version": "1.0", "tool": "decode_hf", "tool_version": "2.5", "model": "org/model",
        "dtype": "bf16", "device": "some card", "command": ["decode_hf.py", "x"],
        "results": [{"task": t, "policy": p, "documents": d} for t, p, d in rows]}
json.dump(made, open(sys.argv[1] + "/made.json", "w"))
PY
}

change() { # STATEMENT over d
    python3 -c 'import json,sys; d=json.load(open(sys.argv[1])); exec(sys.argv[2]); json.dump(d, open("bad.json", "w"))' "$MADE/made.json" "$1"
}

refused() { # MESSAGE STATEMENT
    change "$2"
    run -1 --separate-stderr "$rattn" import bad.json --db s.db
    echo "$2: $stderr"
    [ "$stderr" = "rattn-sim: bad.json: $1" ] && [ -z "$output" ] && [ ! -e s.db ]
}

@test "figures are those that python has, and what is not known is null" {
    run -0 --separate-stderr "$rattn" import "$MADE/made.json" --db s.db --format json
    [ "$stderr" = "s.db: runs 1 2 3 4 5 6 7 8" ]
    echo "$output" >got.json
    python3 - "$MADE/made.json" <<'PY'
import json, math, sqlite3, sys
made, got = json.load(open(sys.argv[1])), json.load(open("got.json"))
mean = lambda v: sum(v) / len(v)
near = lambda a, b: abs(a - b) < 1e-12
full = {r["task"]: r for r in made["results"] if r["policy"] == "full"}
db = sqlite3.connect("s.db")
for i, (r, g) in enumerate(zip(made["results"], got), 1):
    docs, base = r["documents"], full.get(r["task"], {}).get("documents")
    nll = [mean(d["nll"]) for d in docs]
    assert g["policy"].split(",")[0] == r["policy"].split(",")[0] and g["texts"] == len(docs)
    assert g["steps"] == sum(d["steps"] for d in docs) and near(g["nll"], mean(nll)) and near(g["ppl"], math.exp(mean(nll)))
    assert g["tool"] == "decode_hf" and g["tool_version"] == "2.5" and g["model"] == "org/model"
    assert g["kl"] == {"mean": None, "low": None, "high": None} and g["by_since"] == []
    if base:
        delta = [a - mean(b["nll"]) for a, b in zip(nll, base)]
        d = g["delta_nll"]
        assert near(d["mean"], mean(delta)) and min(delta) <= d["low"] <= d["mean"] <= d["high"] <= max(delta)
        assert (d["low"] < d["high"]) == (r["policy"] != "full")
    else:
        assert g["delta_nll"] == {"mean": None, "low": None, "high": None} and g["gate"] is None
    if r["task"] == "ppl":
        assert "accuracy" not in g and near(g["keys_share"], docs[0]["keys_read"] / 100)
        steps = docs[0]["full_layer_steps"]
        assert g["effective_stride"] == (15 / steps if steps else None)
        assert g["times"] == {"method": "hf-wall", "prefill_s": 2.0, "decode_s": 1.0}
    else:
        right = [d["right"] for d in docs]
        assert near(g["accuracy"], mean(right)) and near(g["hits"], mean([d["hits"] for d in docs]))
        assert near(g["margin"], mean([d["margin"] for d in docs])) and g["keys_share"] is None and g["times"] is None
        if base:
            assert near(g["baseline_accuracy"], mean([d["right"] for d in base])) and g["gate"] == (r["task"] == "niah")
            assert near(g["delta_accuracy"]["mean"], mean(right) - g["baseline_accuracy"])
    row = db.execute("select state, kind, command, backend, device, dtype, model_id, method, seq, trace_path, config_json, result_json"
                     " from run where id = ?", (i,)).fetchone()
    assert row[:10] == ("complete", "eval", "import", "decode_hf", "some card", "bf16", "org/model", None, None, sys.argv[1]), row
    config = json.loads(row[10])
    assert config["provenance"] == {k: v for k, v in made.items() if k != "results"} and json.loads(row[11]) == g
    samples = db.execute("select name, seed, depth, prompt_len, steps, nll, kl, correct, hits, margin from eval_sample"
                         " where run_id = ? order by sample", (i,)).fetchall()
    for s, d, x in zip(samples, docs, nll):
        want = (d["document"], d.get("seed"), d.get("depth"), d["prompt_len"], d["steps"], x, None, d.get("right"), d.get("hits"), d.get("margin"))
        assert all(a == b or near(a, b) for a, b in zip(s, want)), (s, want)
    assert len(samples) == len(docs)
PY
    change 'd["provenance"] = {k: d.pop(k) for k in ("device", "dtype")}'
    "$rattn" import bad.json --db p.db -q >/dev/null
    [ "$(sqlite3 p.db "select distinct device || ' ' || dtype from run")" = "some card bf16" ]
    [ "$(sqlite3 s.db "select config_json ->> 'file_sha256' from run limit 1")" = "$(sha256sum <"$MADE/made.json" | cut -d' ' -f1)" ]
}

@test "the report names the decoder and shuts the gate; no time becomes a speed-up" {
    "$rattn" import "$MADE/made.json" --db s.db -q >first
    "$rattn" report s.db >said
    grep -q "^task ppl: org/model, 4 texts, P = 40 to 43, N = 5," said
    [ "$(grep -c "decoded by decode_hf 2.5 and imported" said)" -ge 3 ]
    tr -s '\n ' ' ' <said >line
    grep -q "here it does (baseline 90.0 %)" line
    grep -q "here right is n/a (baseline 70.0 %)" line
    grep -q "here right is n/a (no baseline)" line
    [ -z "$(grep -iE "speed|hf-wall|time" said)" ]
    [ -z "$(awk 'length > 80' said)" ]
    "$rattn" report s.db -o out.html -q
    grep -q 'n/a (baseline 70.0 %)' out.html
    grep -q 'n/a (no baseline)' out.html
    [ "$(sqlite3 s.db "select count(*) from run where method is not null")" = 0 ]
    # another seed, other resamples, the same means
    "$rattn" import "$MADE/made.json" --db t.db -q --seed 5 --format json >five
    "$rattn" import "$MADE/made.json" --db t.db -q --format json >none
    python3 -c 'import json; a, b = (json.load(open(f))[4]["delta_nll"] for f in ("five", "none")); assert a["mean"] == b["mean"] and a != b'
}

@test "what is not as it should be: file, member, expected and got; and no store is left" {
    refused "format: expected 'rattn-eval', got 'other'" 'd["format"] = "other"'
    refused "format: expected 'rattn-eval', got nothing" 'del d["format"]'
    refused "version: expected '1.0', or a later 1, got '2.0'" 'd["version"] = "2.0"'
    refused "tool: expected a text, got 3" 'd["tool"] = 3'
    refused "model: expected a text, got ''" 'd["model"] = ""'
    refused "results: expected a list of 1 to 10000 results, got an object" 'd["results"] = {}'
    refused "results: expected a list of 1 to 10000 results, got a list of 0" 'd["results"] = []'
    refused "results[2].task: expected a text, got null" 'd["results"][2]["task"] = None'
    refused "results[1].documents: expected a list with documents, got nothing" 'del d["results"][1]["documents"]'
    refused "results[0].documents[1].prompt_len: expected a whole number from 1 to 16777216, got 0" 'd["results"][0]["documents"][1]["prompt_len"] = 0'
    refused "results[0].documents[1].steps: expected a whole number from 1 to 16777216, got 5.5" 'd["results"][0]["documents"][1]["steps"] = 5.5'
    refused "results[0].documents[1].nll: expected a list of 5 numbers, one for each step, got a list of 4" 'd["results"][0]["documents"][1]["nll"].pop()'
    refused "results[0].documents[1].nll[2]: expected a number, got 'x'" 'd["results"][0]["documents"][1]["nll"][2] = "x"'
    refused "results[0].documents[3].nll: expected a list, got nothing" 'del d["results"][0]["documents"][3]["nll"]'
    refused "results[3].documents[4].right: expected true or false, as the first document has, got 1" 'd["results"][3]["documents"][4]["right"] = 1'
    refused "results[0].documents[2].right: expected nothing, as the first document has, got true" 'd["results"][0]["documents"][2]["right"] = True'
    refused "results[3].documents[0].depth: expected a number from 0 to 1, got 2" 'd["results"][3]["documents"][0]["depth"] = 2'
    refused "results[3].documents[0].seed: expected a whole number, got 'a'" 'd["results"][3]["documents"][0]["seed"] = "a"'
    refused "results[0].documents[0].keys_read: expected a number from 0 on, got -1" 'd["results"][0]["documents"][0]["keys_read"] = -1'
    refused "results[0].documents[0].hf_wall.method: expected 'hf-wall', got 'cpu-wall'" 'd["results"][0]["documents"][0]["hf_wall"]["method"] = "cpu-wall"'
    refused "results[2].documents: expected those that full attention decoded, of the same lengths, got a list of 4" 'd["results"][2]["documents"][0]["prompt_len"] = 39'
    refused "results[8]: expected one result of task niah under full, got it in results[3] too" 'd["results"].append(d["results"][3])'
    change 'd["results"][4]["policy"] = "tovs:k=8"'
    run -1 --separate-stderr "$rattn" import bad.json --db s.db
    [[ $stderr == "rattn-sim: bad.json: results[4].policy: no policy named 'tovs'; nearest is 'tova'" ]]
}

@test "files that are no JSON, no file, or too deep" {
    printf '{"format":"rattn-eval","format":"x"}' >twice.json
    printf '{"format":' >cut.json
    printf '[[[[' >list.json
    printf '{"a":1e999}' >large.json
    python3 -c 'print("[" * 100000)' >deep.json
    printf '{"format":"\001"}' >control.json
    : >empty.json
    for name in twice cut list large deep control empty; do
        run -1 --separate-stderr "$rattn" import $name.json --db s.db
        [[ $stderr == "rattn-sim: $name.json: "* && $stderr != *$'\001'* ]] && [ ! -e s.db ]
    done
    mkdir folder.json
    run -1 --separate-stderr "$rattn" import folder.json --db s.db
    [[ $stderr == *"folder.json: expected a file of at most 268435456 bytes, got no file" ]]
    run -1 --separate-stderr "$rattn" import nowhere.json --db s.db
    [[ $stderr == "rattn-sim: nowhere.json: No such file or directory" ]]
    run -2 --separate-stderr "$rattn" import "$MADE/made.json"
    [[ $stderr == *"--db"* ]]
}
