#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What is built on record, replay and eval: a study of a model, and how well a replay predicts it. A tiny
# random model stands in, so figures mean nothing here; what is tested is that they follow from the data.

load common

setup_file() {
    bats_require_minimum_version 1.5.0
    export TINY=$BATS_FILE_TMPDIR
    /usr/bin/python3 "$BATS_TEST_DIRNAME/../../traces/tools/tiny_models.py" "$TINY" llama
    mkdir "$TINY/texts"
    /usr/bin/python3 - "$BATS_TEST_DIRNAME/../../traces/tools" "$TINY" <<-'END'
	import sys
	sys.path.insert(0, sys.argv[1])
	import numpy as np, safetensors_io
	reader = safetensors_io.Reader(sys.argv[2] + "/llama.ids.safetensors")
	for i, name in enumerate(("book-0", "book-1", "code-0")):
	    part = np.ascontiguousarray(reader.raw("tokens")[300 * i : 300 * i + 300])
	    safetensors_io.write("%s/texts/%s.ids.safetensors" % (sys.argv[2], name), [("tokens", "I32", part)], dict(reader.metadata))
	END
}

@test "fidelity: its page, and figures that follow from its table" {
    run -0 /usr/bin/python3 "$root/docs/fidelity.py" "$TINY/llama" "$TINY/texts" -o out --tool "$rattn" --prompt 160 --steps 12
    [[ $output == *"Kendall tau"*"texts of 2 domains (book, code), P = 160, N = 12"* ]]
    for words in "# Does the offline prediction hold?" "## Which figure predicts" "## What choosing offline costs" \
        "## Drift" "## What the paper says, at this scale" "## All schedules"; do
        grep -qF "$words" out/fidelity.md
    done
    /usr/bin/python3 - <<-'END'
	import csv, json, itertools
	rows = list(csv.DictReader(open("out/fidelity.tsv"), delimiter="\t"))
	found = json.load(open("out/fidelity.json"))
	banded = [r for r in rows if r["band"]]
	assert len({r["band"] for r in banded}) >= 3 and len({r["text"] for r in rows}) == 3
	mean = lambda part, s, key: (lambda v: sum(v) / len(v))([float(r[key]) for r in part if r["schedule"] == s])
	signs = []
	for domain in ("book", "code"):
	    choose = [r for r in banded if r["domain"] != domain]
	    judge = [r for r in banded if r["domain"] == domain]
	    for band in {r["band"] for r in banded}:
	        inside = sorted({r["schedule"] for r in banded if r["band"] == band})
	        for a, b in itertools.combinations(inside, 2):
	            x = mean(choose, a, "error_mean") - mean(choose, b, "error_mean")
	            y = mean(judge, a, "loss") - mean(judge, b, "loss")
	            if x * y:
	                signs.append(1 if x * y > 0 else -1)
	tau, low, high = found["kendall"]["error_mean"]
	assert abs(tau - sum(signs) / len(signs)) < 1e-2 and low <= high, (tau, sum(signs) / len(signs))
	assert all(0.9 * r["band"] <= r["share"] * 1.1 and r["share"] <= 1.15 * r["band"] for r in found["schedules"])
	END
    # What is there already is kept, and the page comes out the same.
    cp out/fidelity.md before.md
    run -0 --separate-stderr /usr/bin/python3 "$root/docs/fidelity.py" "$TINY/llama" "$TINY/texts" -o out --tool "$rattn" --prompt 160 --steps 12
    [[ $stderr != *": decode,"* ]] && [[ $stderr != *": record"* ]]
    cmp before.md out/fidelity.md
}

@test "study: says what it takes, chooses, decodes, reports, and goes on where it was" {
    run -0 --separate-stderr /usr/bin/python3 "$root/docs/study.py" "$TINY/llama" "$TINY/texts/book-0.ids.safetensors" \
        "$TINY/texts/code-0.ids.safetensors" -o study --tool "$rattn" --prompt 160 --steps 8
    [[ $output == *"disk "*"memory "*"time "*"budget"*"decoded"*"page: study/study.html" ]]
    grep -q "closed loop" study/study.html
    python3 - <<-'END'
	import json
	results = json.load(open("study/eval.json"))
	assert {r["policy"] for r in results} >= {"full"} and all(r["texts"] == 1 for r in results)
	END
    rm study/eval.json
    run -0 --separate-stderr /usr/bin/python3 "$root/docs/study.py" "$TINY/llama" "$TINY/texts/book-0.ids.safetensors" \
        "$TINY/texts/code-0.ids.safetensors" -o study --tool "$rattn" --prompt 160 --steps 8
    [[ $stderr == *"book-0: record: kept"*"code-0: replay under "*": kept"* ]]
    run -1 --separate-stderr /usr/bin/python3 "$root/docs/study.py" "$TINY/llama" "$TINY/texts/book-0.ids.safetensors" \
        -o study --tool "$rattn" --prompt 4000 --steps 8
    [[ $stderr == *"expected 4009 tokens, got 300"* ]]
}
