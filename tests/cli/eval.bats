#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# eval: tiny models decode under schedules; what it says is held against recordings of the same runs.

load common

setup_file() {
    export TINY=$BATS_FILE_TMPDIR
    /usr/bin/python3 "$BATS_TEST_DIRNAME/../../traces/tools/tiny_models.py" "$TINY" llama gemma3 qwen2-shards qwen3 mistral-window
}

schedules="recycled:k=6,stride=4 recycled:k=6,stride=8,sim=0.5 recycled:k=6,stride=4,evict=raw
    recycled:k=6,stride=4,agg=mean recycled:k=6,stride=4,k@1=20 streaming:k=6 streaming:k=6,stride=7 h2o:k=6 tova:k=6
    snapkv:k=8,window=4 pyramidkv:k=8,window=4 adakv:k=8,window=4 quest:k=8,page=4 oracle:k=6 tidal:k=6,select=0
    triforce:k=8,chunk=4,gamma=6 unlimiformer:k=6 longformer:window=6 sparse-transformer:stride=6"

record() { # MODEL OPTION...
    "$rattn" record "$TINY/$1" --tokens "$TINY/$1.ids.safetensors" -q "${@:2}"
}

evaluate() { # MODEL P N OPTION...
    "$rattn" eval "$TINY/$1" --task "ppl:file=$TINY/$1.ids.safetensors,prompt=$2,steps=$3" -q "${@:4}"
}

python() { # SCRIPT on stdin, with numpy and the reader of safetensors
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$root/traces/tools /usr/bin/python3 - "$@"
}

@test "what a schedule chose while decoding is what a replay of that run chooses" {
    for model in llama gemma3 qwen2-shards; do
        for schedule in full $schedules; do
            record "$model" --prompt-len 70 -n 30 -p "$schedule" --dtype f32 -o run >/dev/null
            "$rattn" replay run -p "$schedule" --repeat 1 -q --format json >replayed
            evaluate "$model" 70 30 -p "$schedule" --dtype f32 --format json >decoded
            python "$model $schedule" <<'PY'
import json, sys
decoded, replayed = json.load(open("decoded"))[0], json.load(open("replayed"))
replayed = replayed[0] if isinstance(replayed, list) else replayed
assert decoded["policy"] == replayed["policy"], sys.argv[1]
replayed["keys_read"] -= replayed["window"]["keys_read"]  # eval counts layers that choose
for name in ("keys_read", "full_layer_steps", "effective_stride"):
    assert decoded[name] == replayed[name], (sys.argv[1], name, decoded[name], replayed[name])
PY
        done
    done
}

@test "costs of tokens are the recording's log-probabilities" {
    for model in llama gemma3 qwen3; do
        for dtype in f16 bf16 f32; do
            for schedule in full recycled:k=6,stride=4 h2o:k=6; do
                record "$model" --prompt-len 50 -n 20 -p "$schedule" --dtype $dtype -o run --top-k 97 >said
                evaluate "$model" 50 20 -p "$schedule" --dtype $dtype --format json --per-token >decoded
                # OpenBLAS sums one row otherwise than two, and keys may then round to another neighbour
                python $dtype <<'PY'
import json, re, sys
import numpy as np, safetensors_io
bound = {"f32": 1e-4, "f16": 2e-2, "bf16": 2e-1}[sys.argv[1]]
run, decoded = safetensors_io.Reader("run"), json.load(open("decoded"))[0]
logprob = run.raw("s0.logprob").astype(float)
own = np.array(decoded["documents"][0]["nll"])
assert np.abs(own + logprob).max() < bound, np.abs(own + logprob).max()
assert abs(decoded["ppl"] / np.exp(own.mean()) - 1) < 1e-9
said, ppl = float(re.search(r"under .*: ([0-9.]+)", open("said").read())[1]), np.exp(-logprob.mean())
assert abs(said - ppl) < 6e-4 + 1e-6 * ppl and abs(decoded["ppl"] / ppl - 1) < bound
# All 97 logarithms are there: they are of probabilities, in their order, the target's among them.
ids, best = run.raw("s0.topk_id"), run.raw("s0.topk_logprob").astype(float)
assert np.abs(np.exp(best).sum(1) - 1).max() < 1e-5 and (np.diff(best, axis=1) <= 0).all()
assert (np.sort(ids, axis=1) == np.arange(97)).all()
tokens = run.raw("s0.tokens")
assert all(best[t][ids[t] == tokens[51 + t]][0] == logprob[t] for t in range(20))
PY
            done
        done
    done
}

@test "check rows of every recording are full attention over it" {
    for model in llama gemma3 qwen2-shards qwen3; do
        for schedule in full recycled:k=6,stride=4 tova:k=6 quest:k=8,page=4; do
            record "$model" --prompt-len 70 -n 30 -p "$schedule" -o run >/dev/null
            "$rattn" info run --verify
        done
    done
}

@test "several texts: means over them, and bins that hold every step" {
    mkdir texts
    python "$TINY" <<'PY'
import sys
import numpy as np, safetensors_io
for i, n in enumerate((60, 80, 61)):
    ids = np.random.default_rng(i).integers(0, 97, n).astype(np.int32)
    safetensors_io.write(f"texts/{i}.safetensors", [("tokens", "I32", ids)], {"format": "rattn-tokens", "version": "1.0"})
PY
    touch texts/notes.txt
    "$rattn" eval "$TINY/qwen3" --task ppl:dir=texts,steps=12 -p recycled:k=6,stride=4 -p full --format json --per-token -q >both
    for i in 0 1 2; do
        "$rattn" eval "$TINY/qwen3" --task ppl:file=texts/$i.safetensors,steps=12 -p recycled:k=6,stride=4 --format json --per-token -q >one$i
    done
    python <<'PY'
import json
import numpy as np
own, full = json.load(open("both"))
ones = [json.load(open(f"one{i}")) for i in range(3)]
assert own["texts"] == 3 and own["steps"] == 36 and full["policy"] == "full"
assert [d["prompt_len"] for d in own["documents"]] == [47, 67, 48]
for i, (a, b) in enumerate(ones):
    assert own["documents"][i] == a["documents"][0] and full["documents"][i] == b["documents"][0]
nll = np.array([[d["nll"] for d in r["documents"]] for r in (own, full)])
delta = nll.mean(2)[0] - nll.mean(2)[1]
near = lambda a, b: abs(a - b) < 1e-12 * max(1, abs(b))
assert near(own["nll"], nll[0].mean()) and near(own["ppl"], np.exp(nll[0].mean()))
assert near(own["delta_nll"]["mean"], delta.mean())
assert delta.min() <= own["delta_nll"]["low"] <= delta.mean() <= own["delta_nll"]["high"] <= delta.max()
assert own["keys_read"] == sum(a["keys_read"] for a, _ in ones)
assert near(own["keys_share"], own["keys_read"] / full["keys_read"])
assert full["keys_read"] == 2 * 3 * sum(P * 12 + 78 for P in (47, 67, 48))
# Full steps are 3, 7, 11: bins of 0, 1, and 2 to 3 steps since.
bins = {(b["from"], b["to"]): (b["n"], b["delta_nll"], b["kl"]) for b in own["by_since"]}
since = (np.arange(12) + 1) % 4
kl = np.array([d["kl"] for d in own["documents"]])
assert set(bins) == {(0, 0), (1, 1), (2, 3)}
for (low, high), (n, mean, mean_kl) in bins.items():
    at = (since >= low) & (since <= high)
    assert n == 3 * at.sum() and near(mean, (nll[0] - nll[1])[:, at].mean()) and near(mean_kl, kl[:, at].mean())
PY
}

# Prompts of 20 to 30 tokens and 8 more; judged are the first, one between, and the last.
prompts() { # FAMILY
    python "$1" <<'PY'
import sys
import numpy as np, safetensors_io
rng = np.random.default_rng(5)
P, n = np.array([20, 30, 25, 21, 28], np.int32), 5
tokens = rng.integers(0, 97, int((P + 8).sum())).astype(np.int32)
probe = np.array([(i, P[i] + j) for i in range(n) for j in (0, 3, 7)], np.int32)
candidates = np.full((15, 3), -1, np.int32)
candidates[1::2] = rng.integers(0, 97, (7, 3))
candidates[3, 1:] = -1
metadata = {"format": "rattn-prompts", "version": "1.0", "task": "made:up", "family": sys.argv[1]}
safetensors_io.write("prompts", [("tokens", "I32", tokens), ("lengths", "I32", P + 8), ("prompt_len", "I32", P),
    ("seed", "I64", np.arange(n)), ("depth", "F32", np.full(n, 0.5, np.float32)),
    ("probe", "I32", probe), ("candidates", "I32", candidates)], metadata)
first = 0
for i in range(n):  # the same texts for record, with one token before
    safetensors_io.write(f"text{i}", [("tokens", "I32", tokens[first:first + P[i] + 8])], {"format": "rattn-tokens", "version": "1.0"})
    first += P[i] + 8
PY
}

@test "prompts: margins are differences of the recording's log-probabilities" {
    prompts niah
    for schedule in full recycled:k=6,stride=4; do
        "$rattn" eval "$TINY/qwen3" --task niah:file=prompts -p $schedule --dtype f32 -q --format json >decoded
        for i in 0 1 2 3 4; do # what the prefill predicts is the step of a prompt one token shorter
            P=$((20 + $(echo 0 10 5 1 8 | cut -d' ' -f$((i + 1)))))
            "$rattn" record "$TINY/qwen3" --tokens text$i --prompt-len $P -n 7 -p $schedule --dtype f32 --top-k 97 -q -o run$i >/dev/null
            "$rattn" record "$TINY/qwen3" --tokens text$i --prompt-len $((P - 1)) -n 1 --dtype f32 --top-k 97 -q -o first$i >/dev/null
        done
        python <<'PY'
import json
import numpy as np, safetensors_io
d, prompts = json.load(open("decoded"))[0], safetensors_io.Reader("prompts")
P, probe, candidates = (prompts.raw(x) for x in ("prompt_len", "probe", "candidates"))
def logprobs(name):
    run = safetensors_io.Reader(name)
    ids, best = run.raw("s0.topk_id"), run.raw("s0.topk_logprob").astype(float)
    out = np.empty_like(best)
    np.put_along_axis(out, ids, best, 1)
    return out
margins = np.zeros((5, 3))
for k, (i, at) in enumerate(probe):
    text = safetensors_io.Reader(f"text{i}").raw("tokens")
    row = logprobs(f"first{i}")[0] if at == P[i] else logprobs(f"run{i}")[at - P[i] - 1]
    rivals = [c for c in candidates[k] if c >= 0] or [x for x in range(97) if x != text[at]]
    margins[i, k % 3] = row[text[at]] - max(row[c] for c in rivals)
assert abs(d["margin"] - margins.mean()) < 1e-4, (d["margin"], margins.mean())
right = margins > 0
assert 0 < right.sum() < 15
assert d["hits"] == right.mean() and d["accuracy"] == right.all(1).mean() and d["prompts"] == 5
assert [x["right"] for x in d["documents"]] == list(right.all(1))
assert [x["steps"] for x in d["documents"]] == [7] * 5 and [x["seed"] for x in d["documents"]] == list(range(5))
assert d["family"] == "niah" and d["task"] == "made:up" and d["gate"] is False
PY
    done
    "$rattn" eval "$TINY/qwen3" --task prompts:file=prompts,first=2 -p full -q --format json >few
    [ "$(json '(d[0]["prompts"], len(d[0]["documents"]))' <few)" = "(2, 2)" ]
    "$rattn" eval "$TINY/qwen3" --task prompts:file=prompts -p streaming:k=6 -q >said
    grep -q 'right n/a (baseline' said # what the model cannot do is no measure of a schedule
}

@test "threads, company and order change nothing" {
    evaluate gemma3 60 12 -p recycled:k=6,stride=4 -j 1 --format json --per-token >one
    evaluate gemma3 60 12 -p recycled:k=6,stride=4 -j 3 --format json --per-token >three
    evaluate gemma3 60 12 -p h2o:k=6 -p full -p tova:k=6 -p recycled:k=6,stride=4 --format json --per-token >beside
    # BLAS may split its sums otherwise
    python <<'PY'
import json
import numpy as np
one, three, beside = (json.load(open(x)) for x in ("one", "three", "beside"))
assert [x["policy"].split(":")[0] for x in beside] == ["h2o", "full", "tova", "recycled"]
for a, b in ((one[0], three[0]), (one[0], beside[3]), (one[1], beside[1])):
    assert a["policy"] == b["policy"] and a["keys_read"] == b["keys_read"]
    assert np.abs(np.array(a["documents"][0]["nll"]) - b["documents"][0]["nll"]).max() < 1e-2
PY
}

refused() { # WORDS of the message, then the task
    run -2 "$rattn" eval "$TINY/llama" --task "$2" -p full -q
    echo "$2: $output"
    [[ $output == *"$1"* ]]
}

@test "tasks that cannot be: what was expected and what came" {
    ids=$TINY/llama.ids.safetensors
    prompts niah
    refused "unknown task 'pp'; nearest is 'ppl'" "pp:file=$ids"
    refused "unknown key 'stepz'; nearest is 'steps'" "ppl:file=$ids,stepz=4"
    refused "expected key=value, got 'prompt'" "ppl:file=$ids,prompt"
    refused "steps: expected a number from 1 on, got '0'" "ppl:file=$ids,steps=0"
    refused "prompt: expected a number from 1 on, got '7x'" "ppl:file=$ids,prompt=7x"
    refused "expected file=IDS or dir=FOLDER" "ppl:prompt=5"
    refused "expected file=IDS or dir=FOLDER" "ppl:file=$ids,dir=."
    refused "expected file=PROMPTS" "niah:dir=."
    refused "expected first=n alone" "niah:file=prompts,steps=4"
    refused "expected prompt=P and steps=N alone" "ppl:file=$ids,first=4"
    refused "expected prompts of family vt, got niah" "vt:file=prompts"
    refused "expected at least 1001 tokens for a prompt of 990 and 10 steps, got 1000" "ppl:file=$ids,prompt=990,steps=10"
    refused "expected at least 1001 tokens for a prompt of 1 and 999 steps, got 1000" "ppl:file=$ids,steps=999"
    mkdir none
    refused "none: expected *.safetensors of token ids" "ppl:dir=none"
    run -1 "$rattn" eval "$TINY/llama" --task ppl:dir=nowhere -p full -q
    [[ $output == *"nowhere: cannot read the folder: No such file"* ]]
    cp -r "$TINY/llama" short
    sed -i 's/"max_position_embeddings": 2048/"max_position_embeddings": 40/' short/config.json
    "$rattn" eval short --task "ppl:file=$ids,prompt=30,steps=10" -p full -q >/dev/null
    run -2 "$rattn" eval short --task "ppl:file=$ids,prompt=30,steps=11" -p full -q
    [[ $output == *"expected at most 40 positions (max_position_embeddings), got 30 + 11"* ]]
    sed -i 's/"max_position_embeddings": 40/"max_position_embeddings": 36/' short/config.json
    run -2 "$rattn" eval short --task prompts:file=prompts -p full -q
    [[ $output == *"prompt 1: expected at most 36 positions"*"got 37"* ]]
}

@test "schedules and models that cannot be evaluated" {
    run -2 evaluate llama 50 5 -p streaming:k=6+int4
    [[ $output == *"streaming:k=6"*"+int4"*"expected a policy alone"* ]]
    run -2 evaluate llama 50 5 -p snapkv:k=100,window=51
    [[ $output == *"snapkv"*"expected at most 50"*"got 51"* ]]
    run -2 evaluate llama 50 5 -p nonsense
    run -2 evaluate mistral-window 50 5 -p full
    [[ $output == *"window layers only"* ]]
}

scaled() { # TENSOR FACTOR: llama with one matrix so much larger, in ./big
    rm -rf big && cp -r "$TINY/llama" big
    python "$1" "$2" <<'PY'
import sys
import safetensors_io
model = safetensors_io.Reader("big/model.safetensors")
tensors = [(n, "F32", model.raw(n) * (float(sys.argv[2]) if n == sys.argv[1] else 1)) for n in model.names()]
safetensors_io.write("big/model.safetensors", [(n, t, a.astype("float32")) for n, t, a in tensors], {"format": "pt"})
PY
}

@test "values that the cache's type cannot hold: which, in which layer, at which position" {
    for part in q:query k:key v:value; do
        scaled "model.layers.1.self_attn.${part%:*}_proj.weight" 1e6
        run -1 "$rattn" eval big --task "ppl:file=$TINY/llama.ids.safetensors,prompt=30,steps=3" -p full -q
        echo "$output"
        [[ $output == *"layer 1, position 0: expected a ${part#*:} that fits f16, got "*"another --dtype may hold it"* ]]
        run -1 "$rattn" record big --tokens "$TINY/llama.ids.safetensors" -n 3 -o refused -q
        [[ $output == *"layer 1, position 0: expected a ${part#*:} that fits f16"* ]]
        "$rattn" eval big --task "ppl:file=$TINY/llama.ids.safetensors,prompt=30,steps=3" -p full -q --dtype bf16 >/dev/null
    done
    [ "$(ls)" = big ]
}

@test "recordings that cannot be: what was expected and what came" {
    for line in "--layers 2:expected ascending layers below 2, got '2'" "--layers 1,0:expected ascending layers below 2, got '1,0'" \
        "--layers 0-:expected numbers and ranges like" "--check-steps 5,:ascending steps below 5 joined by commas, got '5,'" \
        "--check-steps 1,1:got '1,1'" "--check-steps 1x:got '1x'" "--check-steps ,:got ','" "--check-steps 1,,2:got '1,,2'" \
        "--prompt-len 995:expected at least 1001 tokens for a prompt of 995 and 5 steps with their targets, got 1000" \
        "--prompt-len 1001 --mode greedy:expected at least 1001 tokens for a prompt of 1001 and 5 steps, got 1000" \
        "-p streaming:k=6+int4:expected a policy alone" "-p snapkv:k=100,window=65:expected at most 64"; do
        [[ $line == "-p "* ]] && words=${line%:expected*} || words=${line%%:*}
        # shellcheck disable=SC2086 # a list of words
        run -2 record llama -n 5 $words -o refused
        echo "$words: $output"
        [[ $output == *"${line##*"$words":}"* ]]
    done
    run -2 record llama -n 1049 --prompt-len 1000 --mode greedy -o refused
    [[ $output == *"expected at most 2048 positions (max_position_embeddings), got 1000 + 1049"* ]]
    run -1 record llama -n 5 -o no/such/folder
    mkdir folder
    run -1 record llama -n 5 -o folder
    [[ $output == *"no regular file"* ]]
    [ "$(ls)" = folder ]
}
