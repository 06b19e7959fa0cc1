#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# speculate: tiny models of every family; the output is what record decodes greedily, and figures
# follow from the model's own files.

load common

setup_file() {
    export TINY=$BATS_FILE_TMPDIR
    /usr/bin/python3 "$BATS_TEST_DIRNAME/../../traces/tools/tiny_models.py" "$TINY"
}

speculate() { # MODEL OPTION...
    "$rattn" speculate "$TINY/$1" --tokens "$TINY/$1.ids.safetensors" "${@:2}"
}

tokens_of() { # TRACE: those that were decoded
    /usr/bin/python3 - "$root" "$1" <<'PY'
import sys
sys.path.insert(0, sys.argv[1] + "/traces/tools")
sys.dont_write_bytecode = True
import safetensors_io
print([int(x) for x in safetensors_io.Reader(sys.argv[2]).raw("s0.tokens")[-31:]])
PY
}

@test "every family's output is what record decodes greedily under full attention" {
    for model in llama llama-llama3 mistral qwen2 qwen2-shards qwen3 gemma3 gemma3-v5; do
        "$rattn" record "$TINY/$model" --tokens "$TINY/$model.ids.safetensors" -n 30 --prompt-len 50 \
            --mode greedy --dtype f32 -o "$model" -q >/dev/null
        speculate $model --prompt-len 50 -n 30 --dtype f32 -q --format json --gamma 1,3,5 \
            -p streaming:k=8 -p recycled:k=8,stride=50 -p triforce:k=8,chunk=2,gamma=50 >out.json
        [ "$(json 'd["tokens"]' <out.json)" = "$(tokens_of $model)" ]
        [ "$(json 'd["different_tokens"] == len(set(d["tokens"]))' <out.json)" = True ]
        [ "$(json 'len(d["runs"]), all(r["tokens"] == d["tokens"] and r["same"] for r in d["runs"])' <out.json)" = "(9, True)" ]
    done
}

@test "in f16 and bf16 too, every token is the model's own choice" {
    for dtype in f16 bf16; do
        speculate qwen2 --prompt-len 50 -n 30 --dtype $dtype -q --format json -p streaming:k=8 >out.json
        [ "$(json '[r["wrong"] for r in d["runs"]]' <out.json)" = "[0]" ]
    done
}

@test "drafts under full attention are all accepted, of few positions not" {
    speculate llama --prompt-len 50 -n 30 --dtype f32 -q --format json --gamma 4 -p full -p streaming:k=2,sinks=1 >out.json
    [ "$(json 'd["runs"][0]["acceptance"], d["runs"][0]["verifications"], d["runs"][0]["passes_per_token"]' <out.json)" = "(1.0, 6, 1.0)" ]
    [ "$(json 'd["runs"][1]["acceptance"] < 1' <out.json)" = True ]
}

@test "bytes are those of the model's own tensors" {
    for model in llama qwen3 gemma3; do
        speculate $model --prompt-len 50 -n 30 --dtype f32 -q --format json --gamma 4 -p full >out.json
        /usr/bin/python3 - "$root" "$TINY/$model" <<'PY'
import json, sys
sys.path.insert(0, sys.argv[1] + "/traces/tools")
sys.dont_write_bytecode = True
import safetensors_io
d = json.load(open("out.json"))
c = json.load(open(sys.argv[2] + "/config.json"))
reader = safetensors_io.Reader(sys.argv[2] + "/model.safetensors")
shapes = {name: reader.raw(name).shape for name in reader.names()}
matrices = {n: s[0] * s[1] for n, s in shapes.items() if len(s) == 2}
if "lm_head.weight" in matrices:
    del matrices["model.embed_tokens.weight"]
assert d["weight_bytes"] == 4 * sum(matrices.values()), d["weight_bytes"]
windows = [c.get("sliding_window") if "layer_types" in c and t == "sliding_attention" else None
           for t in c.get("layer_types", [None] * c["num_hidden_layers"])]
if "sliding_window_pattern" in c:
    windows = [None if (l + 1) % c["sliding_window_pattern"] == 0 else c["sliding_window"] for l in range(c["num_hidden_layers"])]
head = shapes["model.layers.0.self_attn.k_proj.weight"][0]  # Hkv * D
def rows(begin, n):
    return sum(min(begin + n, (w or 10**9) + n - 1) for w in windows)
row = head * 2 * 4
plain = sum(rows(50 + t, 1) for t in range(30)) * row / 30
# Six rounds: four drafts that attend to everything, and a verification of five rows.
run = sum(sum(rows(C + i, 1) for i in range(4)) + rows(C, 5) for C in range(50, 80, 5)) * row / 30
assert abs(d["kv_bytes_per_token"] - plain) < 1e-6 * plain, (d["kv_bytes_per_token"], plain)
assert abs(d["runs"][0]["kv_bytes_per_token"] - run) < 1e-6 * run, (d["runs"][0]["kv_bytes_per_token"], run)
assert abs(d["runs"][0]["kv_share"] - run / plain) < 1e-9
PY
    done
}

@test "a schedule below changes what is read, never what is drafted" {
    few="-p triforce:k=12,chunk=2,gamma=50 --gamma 6 -q --format json --dtype f32 --prompt-len 50 -n 30"
    # shellcheck disable=SC2086
    for model in llama gemma3; do
        speculate $model $few >alone.json
        speculate $model $few --below streaming:k=8 --below-gamma 3 >both.json
        for key in drafted accepted verifications tokens; do
            [ "$(json "d['runs'][0]['$key']" <alone.json)" = "$(json "d['runs'][0]['$key']" <both.json)" ]
        done
        [ "$(json 'd["runs"][0]["guessed"] > 0' <both.json)" = True ]
        [ "$(json 'd["runs"][0]["guessed"], d["runs"][0]["guess_acceptance"]' <alone.json)" = "(None, None)" ]
    done
}

@test "the text fits 80 columns and says that the output is greedy decoding's" {
    run -0 --separate-stderr speculate llama --prompt-len 50 -n 30 -q -p streaming:k=8 --gamma 2,4 --below streaming:k=4,sinks=1
    [ "$(grep -c "output: greedy decoding's" <<<"$output")" = 2 ]
    [ -z "$(awk 'length > 80' <<<"$output")" ]
}

@test "what cannot be is refused, by name" {
    refuses() { # EXPECTED OPTION...
        run -2 --separate-stderr speculate llama --prompt-len 50 -n 30 -q "${@:2}"
        [[ $stderr == *"$1"* ]]
    }
    refuses "h2o:k=8" -p h2o:k=8
    refuses "not kept up while tokens are verified" -p streaming:k=8 --below h2o:k=8
    refuses "--gamma: expected" -p full --gamma 0
    refuses "--gamma: expected" -p full --gamma 2,
    refuses "--gamma: expected" -p full --gamma 256
    refuses "--below" -p full --below-gamma 2
    refuses "expected a policy alone" -p full+kvquant:bits=4
    refuses "expected at least 5000 tokens, got 1000" -p full --prompt-len 5000
    refuses "expected at most 2048 positions" -p full -n 2000
}

@test "rounds that go on from a text give what record says of the text" {
    "$rattn" record "$TINY/qwen3" --tokens "$TINY/qwen3.ids.safetensors" -n 30 --prompt-len 50 \
        --dtype f32 --top-k 1 -o forced -q >/dev/null
    speculate qwen3 --mode text --prompt-len 50 -n 30 --dtype f32 -q --format json -p streaming:k=8 >out.json
    /usr/bin/python3 - "$root" <<'PY'
import json, sys
sys.path.insert(0, sys.argv[1] + "/traces/tools")
sys.dont_write_bytecode = True
import safetensors_io
d = json.load(open("out.json"))
assert d["mode"] == "text"
likeliest = [int(x) for x in safetensors_io.Reader("forced").raw("s0.topk_id").reshape(-1)]
assert d["tokens"][1:] == likeliest, (d["tokens"], likeliest)
assert d["runs"][0]["same"] and d["runs"][0]["accepted"] < d["runs"][0]["drafted"]
PY
    run -2 --separate-stderr speculate qwen3 --mode text --prompt-len 990 -n 30 -q -p full
    [[ $stderr == *"expected at least 1021 tokens, got 1000"* ]]
}
